from pathlib import Path

import pytest
from collection import ITEMS, picture, write_lines, write_pictures, write_table

from hfclip.data.examples import Skipped, read_dataset
from hfclip.data.records import Choices, Findings
from hfclip.data.sources import read_source
from hfclip.errors import DataError
from hfclip.hub.fetch import Access


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found_in(folder: Path | str) -> Findings:
    return read_source(folder, Choices(), Access(local_files_only=True))


def labels_of(findings: Findings) -> dict[str, tuple[str | None, str | None]]:
    return {record.key: (record.label, record.split) for record in findings.records}


def test_a_picture_further_below_belongs_to_its_class_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2021/a.jpg", "cat/b.PNG", "dog/c.webp", "cat/notes.txt", "dog/._c.jpg")
    findings = found_in(tmp_path)
    assert labels_of(findings) == {
        "cat/2021/a.jpg": ("cat", None),
        "cat/b.PNG": ("cat", None),
        "dog/c.webp": ("dog", None),
    }
    assert findings.notes[0] == (
        "Ignored 2 hidden files, files without the ending of a picture and links to folders: "
        "cat/notes.txt, dog/._c.jpg."
    )


def test_split_folders_are_recognized_by_the_class_folders_in_them(tmp_path: Path) -> None:
    touch(tmp_path, "Train/cat/a.jpg", "valid/cat/b.jpg", "test/dog/c.jpg")
    assert labels_of(found_in(tmp_path)) == {
        "Train/cat/a.jpg": ("cat", "train"),
        "valid/cat/b.jpg": ("cat", "validation"),
        "test/dog/c.jpg": ("dog", "test"),
    }


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "bus/b.jpg")
    assert labels_of(found_in(tmp_path)) == {
        "train/a.jpg": ("train", None),
        "bus/b.jpg": ("bus", None),
    }


def test_an_unlabelled_test_folder_is_ignored_with_a_note(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.jpg", "test/b.jpg", "test/c.jpg")
    findings = found_in(tmp_path)
    assert labels_of(findings) == {"train/cat/a.jpg": ("cat", "train")}
    assert "Ignored the folder test: its 2 pictures are in no class folder." in findings.notes


def test_pictures_beside_the_class_folders_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "b.jpg")
    assert found_in(tmp_path).skipped == [Skipped("b.jpg", "the picture is in no class folder")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/cat/a.jpg", "bus/b.jpg"), "split folder train beside bus, which is no split"),
        (("train/a.jpg", "val/b.jpg"), "train, val hold pictures, but no class folders"),
        (("val/cat/a.jpg", "test/cat/b.jpg"), "has the splits test, validation, but none for"),
        (("a.jpg", "b.jpg"), "holds 2 pictures but no class folders. Expected"),
        (("notes.txt",), "holds 0 pictures"),
        (("a.tar", "b.parquet"), r"holds tars \(a.tar\) and Parquet files \(b.parquet\)"),
        (("x/a.parquet", "y/a.parquet"), "Parquet files in several folders: x, y"),
        (("a.tar.gz",), "is no uncompressed tar"),
        (("train-0.tar", "more.tar"), "more.tar belongs to no split, but other files do"),
        (("metadata.csv", "metadata.jsonl"), "holds metadata.csv and metadata.jsonl"),
    ],
)
def test_an_ambiguous_folder_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        found_in(tmp_path)


def test_a_table_without_pictures_does_not_hide_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg")
    write_table(tmp_path / "counts.csv", ("class", "count"), [("cat", "1")])
    findings = found_in(tmp_path)
    assert labels_of(findings) == {"cat/a.jpg": ("cat", None)}
    assert findings.notes[-1].startswith("Ignored counts.csv, because: ")
    assert "no column holds file names" in findings.notes[-1]


def test_a_table_without_pictures_and_without_folders_is_the_error(tmp_path: Path) -> None:
    write_table(tmp_path / "counts.csv", ("class", "count"), [("cat", "1")])
    with pytest.raises(DataError, match=r"counts\.csv: no column holds file names"):
        found_in(tmp_path)


def test_several_tables_that_are_no_splits_are_refused(tmp_path: Path) -> None:
    for name in ("first.csv", "second.csv"):
        write_table(tmp_path / name, ("file", "label"), [("a.jpg", "cat")])
    with pytest.raises(DataError, match=r"several tables of pictures: first\.csv, second\.csv"):
        found_in(tmp_path)


def test_a_table_in_a_folder_cannot_name_pictures_outside(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    write_pictures(inside, ITEMS[:2])
    (tmp_path / "secret.png").write_bytes(picture(99))
    names = [*(item.name for item in ITEMS[:2]), "../secret.png", str(tmp_path / "secret.png")]
    table = write_table(inside / "table.csv", ("file", "label"), [(name, "x") for name in names])
    data = read_dataset(inside, max_skipped=0.5)
    assert [item.key for item in data.skipped] == ["table.csv:4", "table.csv:5"]
    assert "is outside the folder" in data.skipped[0].reason
    assert len(read_dataset(table).train + read_dataset(table).validation) == 3


def test_lines_with_unicode_separators_and_bad_lines(tmp_path: Path) -> None:
    write_pictures(tmp_path, ITEMS[:2])
    rows = [{"file": ITEMS[0].name, "text": "a\u2028b\x85c"}, {"file": ITEMS[1].name, "text": "d"}]
    path = write_lines(tmp_path / "table.jsonl", rows)
    raw = '{"file": "00.png", "text": "raw\u2028line"}\n'
    path.write_text(path.read_text() + raw + "{broken\n[1]\n\n" + '{"file": "01.png"}\n')
    data = read_dataset(path, validation=0, max_skipped=1)
    captions = {example.digest: example.captions for example in data.train}
    assert captions == {
        ITEMS[0].digest: ("a\u2028b\x85c", "raw\u2028line"),
        ITEMS[1].digest: ("d",),
    }
    assert data.skipped == (
        Skipped("table.jsonl:4", "the line is not JSON in UTF-8"),
        Skipped("table.jsonl:5", "the row is a list; expected an object"),
        Skipped("table.jsonl:7", "the caption is empty"),
    )


def test_a_missing_source_is_named_with_a_hint_to_the_hub(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"me/pets does not exist\. For a dataset on the Hub, write"
    ):
        found_in("me/pets")
    with pytest.raises(DataError, match="No file matches"):
        found_in(f"{tmp_path}/*.tar")


def test_a_json_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    with pytest.raises(DataError, match="holds a JSON dict; expected a list of objects"):
        found_in(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(DataError, match="is not JSON in UTF-8"):
        found_in(tmp_path / "a.json")
