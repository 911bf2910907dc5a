import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from collection import ITEMS, write_pictures

from hfclip.data import references
from hfclip.data.examples import Dataset, Skipped, read_dataset
from hfclip.data.references import ParquetImage
from hfclip.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PICTURES = [item.content for item in ITEMS]


def read(path: Path) -> Dataset:
    return read_dataset(path, validation=0, max_skipped=1)


def test_rows_without_a_picture_or_text_are_skipped(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": [{"bytes": PICTURES[0]}, {"bytes": None}, None, {"bytes": PICTURES[1]}],
            "caption": ["a", "b", "c", None],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet")
    assert [(example.digest, example.captions) for example in data.train] == [
        (ITEMS[0].digest, ("a",))
    ]
    assert data.skipped == (
        Skipped("t.parquet:4", "the caption is empty"),
        Skipped("t.parquet:2", "the row holds no picture"),
        Skipped("t.parquet:3", "the row holds no picture"),
    )


def test_a_label_outside_the_class_names_is_skipped(tmp_path: Path) -> None:
    features = '{"info": {"features": {"y": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}'
    table = pa.table({"image": PICTURES[:3], "y": [1, -1, 0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet")
    assert {example.digest: example.label for example in data.train} == {
        ITEMS[0].digest: "dog",
        ITEMS[2].digest: "cat",
    }
    assert data.skipped == (Skipped("t.parquet:2", "the label is -1; expected 0 to 1"),)


def test_a_path_in_a_folder_of_parquet_files_stays_there(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:1])
    write_pictures(tmp_path / "data", ITEMS[1:2])
    table = pa.table({"file": ["01.png", "../00.png"], "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "data/t.parquet")
    data = read(tmp_path / "data")
    assert [example.digest for example in data.train] == [ITEMS[1].digest]
    assert data.skipped[0].reason == f"../00.png is outside the folder {tmp_path / 'data'}"
    assert len(read(tmp_path / "data/t.parquet").train) == 2


@pytest.mark.parametrize("damage", ["text", "cut", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": PICTURES, "text": ["a"] * 60}), path)
    content = path.read_bytes()
    damaged = {
        "text": b"no parquet",
        "cut": content[:-20],
        "header": content[: len(content) // 2] + b"\0" * (len(content) // 2 - 4) + b"PAR1",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"t\.parquet is"):
        read(path)


def test_an_empty_table_and_a_table_without_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "text": []}), path)
    with pytest.raises(DataError, match="has no rows"):
        read(path)
    pq.write_table(pa.table({"embedding": [[0.5]], "text": ["a"]}), path)
    with pytest.raises(DataError, match="no column holds file names of pictures"):
        read(path)


def test_the_cache_of_row_groups_stays_small_and_each_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": PICTURES}), path, row_group_size=10)
    images = [ParquetImage(str(path), n // 10, n % 10, "image") for n in range(60)]
    cache = references._RowGroups()
    monkeypatch.setattr(references, "_row_groups", cache)
    reads = []
    read_column = references._read_column

    def counted(*arguments: object) -> object:
        reads.append(arguments[1])
        return read_column(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(references, "_read_column", counted)
    assert [image.read() for image in images] == PICTURES
    assert reads == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr(references, "_MOST_CACHED", 3000)
    assert [image.read() for image in reversed(images)] == PICTURES[::-1]
    monkeypatch.setattr(references, "_row_groups", references._RowGroups())
    for image in images:
        image.read()
        kept = references._row_groups._kept
        assert sum(values.nbytes for values in kept.values()) <= 3000
    assert pickle.loads(pickle.dumps(images[7])).read() == PICTURES[7]


def test_a_missing_pyarrow_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").touch()
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from hfclip.data.examples import read_dataset\n"
        "try: read_dataset(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    path = str(tmp_path / "t.parquet")
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert done.stdout == (
        f'DataError {path} is a Parquet file, which needs pyarrow: pip install "hfclip[finetune]"\n'
    )
