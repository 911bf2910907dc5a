"""Parts: exactly the columns, the values, and no space for what is not there."""

import os
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from embedded import Killed, killed_at
from pyarrow import parquet

from hfclip.embedding.part_files import (
    complete_parts,
    digest_file,
    part_file,
    remove_leftovers,
)
from hfclip.embedding.parts import (
    Rows,
    Vectors,
    joined,
    read_digests,
    read_part,
    write_part,
)
from hfclip.embedding.records import Record
from hfclip.errors import DataError


def rows(count: int = 3, width: int = 2, *, captions: bool = False) -> Rows:
    values = np.arange(count * width, dtype=np.float32).reshape(count, width) / np.float32(8)
    valid = np.ones(count, np.bool_)
    valid[1] = False
    return Rows(
        keys=[f"a/{number}.jpg" for number in range(count)],
        embeddings=Vectors(np.where(valid[:, None], values, 0).astype(np.float32), valid),
        errors=[None if ok else "truncated" for ok in valid],
        widths=[640 if ok else None for ok in valid],
        heights=[480 if ok else None for ok in valid],
        captions=["a cat"] * count if captions else [None] * count,
        caption_embeddings=Vectors(values, np.ones(count, np.bool_)) if captions else None,
        digests=[
            bytes([number % 255 + 1]) * 32 if valid[number] else None for number in range(count)
        ],
    )


def same(one: Rows, other: Rows) -> bool:
    lists = ("keys", "errors", "widths", "heights", "captions", "digests")
    assert all(getattr(one, name) == getattr(other, name) for name in lists)
    for name in ("embeddings", "caption_embeddings"):
        first, second = getattr(one, name), getattr(other, name)
        if first is None or second is None:
            assert first is second
        else:
            np.testing.assert_array_equal(first.values, second.values)
            np.testing.assert_array_equal(first.valid, second.valid)
    return True


@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_part_is_read_as_it_was_written(tmp_path: Path, dtype: str, captions: bool) -> None:
    written = rows(captions=captions)
    record = write_part(tmp_path, 7, written, dtype=dtype, dimension=2)  # type: ignore[arg-type]
    content = (tmp_path / "part-00007.parquet").read_bytes()
    assert record == Record(7, len(content), 3, 1, sha256(content).hexdigest())
    assert same(read_part(tmp_path, 7), written)
    assert complete_parts(tmp_path) == [7]


def test_a_part_has_exactly_the_columns_in_their_order_with_plain_types(tmp_path: Path) -> None:
    write_part(tmp_path, 0, rows(), dtype="float16", dimension=2)
    schema = parquet.read_schema(tmp_path / part_file(0))
    vector = pyarrow.list_(pyarrow.float16(), 2)
    assert list(zip(schema.names, schema.types, strict=True)) == [
        ("key", pyarrow.string()),
        ("embedding", vector),
        ("error", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("caption", pyarrow.string()),
        ("caption_embedding", vector),
    ]
    table = parquet.read_table(tmp_path / "part-00000.parquet")
    assert table.column("embedding").to_pylist() == [[0, 0.125], None, [0.5, 0.625]]
    assert table.column("caption_embedding").to_pylist() == [None] * 3


def test_vectors_have_no_dictionary_and_no_statistics_and_missing_captions_no_space(
    tmp_path: Path,
) -> None:
    part = rows(1_000, 512)
    write_part(tmp_path, 0, part, dtype="float16", dimension=512)
    path = tmp_path / part_file(0)
    group = parquet.read_metadata(path).row_group(0)
    columns = {
        column.path_in_schema.split(".")[0]: column
        for column in map(group.column, range(group.num_columns))
    }
    assert not any(column.has_dictionary_page for column in columns.values())
    assert columns["embedding"].statistics is None
    assert columns["caption_embedding"].statistics is None
    assert columns["key"].statistics.max == "a/999.jpg"
    assert columns["caption_embedding"].total_compressed_size < 100
    assert path.stat().st_size < 1.05 * 1_000 * 512 * 2


def test_the_digests_stand_beside_the_part_with_zeros_for_unknown_ones(tmp_path: Path) -> None:
    write_part(tmp_path, 0, rows(), dtype="float16", dimension=2)
    assert (tmp_path / digest_file(0)).read_bytes() == b"\1" * 32 + bytes(32) + b"\3" * 32
    found = read_digests(tmp_path, 0, 3)
    assert found is not None
    assert found.tolist() == [[1] * 32, [0] * 32, [3] * 32]
    assert read_digests(tmp_path, 0, 4) is None
    assert read_digests(tmp_path, 1, 3) is None


def test_a_write_that_is_killed_at_any_step_leaves_the_part_whole_or_missing(
    tmp_path: Path,
) -> None:
    for step in range(100):
        try:
            with killed_at(step):
                write_part(tmp_path, 0, rows(), dtype="float16", dimension=2)
        except Killed:
            if complete_parts(tmp_path):
                assert same(read_part(tmp_path, 0), rows())
            (tmp_path / part_file(0)).unlink(missing_ok=True)
        else:
            break
    # for each of two files: a sync, a rename, a sync of the folder, a removal
    assert step == 8
    assert len(list(tmp_path.glob(".part-*.part"))) > 0
    remove_leftovers(tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"part-00000.parquet", "part-00000.sha256"}


def test_the_digests_are_written_before_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed: list[str] = []
    rename = os.replace

    def noted(old: Path, new: Path) -> None:
        renamed.append(new.name)
        rename(old, new)

    monkeypatch.setattr(os, "replace", noted)
    write_part(tmp_path, 0, rows(), dtype="float16", dimension=2)
    assert renamed == ["part-00000.sha256", "part-00000.parquet"]


def test_an_embedding_beyond_float16_is_refused(tmp_path: Path) -> None:
    part = rows()
    part.embeddings.values[0, 0] = 70_000
    with pytest.raises(DataError, match=r"beyond 65,504.*--dtype float32"):
        write_part(tmp_path, 0, part, dtype="float16", dimension=2)
    assert complete_parts(tmp_path) == []
    write_part(tmp_path, 0, part, dtype="float32", dimension=2)
    assert read_part(tmp_path, 0).embeddings.values[0, 0] == 70_000


def test_columns_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(3, 2\); expected \(3, 4\)"):
        write_part(tmp_path, 0, rows(), dtype="float16", dimension=4)
    part = rows()
    part.errors.pop()
    with pytest.raises(DataError, match="different lengths"):
        write_part(tmp_path, 0, part, dtype="float16", dimension=2)
    part = rows()
    part.digests[0] = b"short"
    with pytest.raises(DataError, match="digests of part-00000"):
        write_part(tmp_path, 0, part, dtype="float16", dimension=2)


def test_a_file_that_is_no_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    parquet.write_table(pyarrow.table({"key": ["a"]}), path)
    with pytest.raises(DataError, match=r"is damaged, or is no part .*encodes this part again"):
        read_part(tmp_path, 0)
    with pytest.raises(FileNotFoundError):
        read_part(tmp_path, 1)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'pip install "hfclip\[embed\]"'):
        write_part(tmp_path, 0, rows(), dtype="float16", dimension=2)


def test_rows_are_taken_and_joined_with_their_captions() -> None:
    plain, captioned = rows(), rows(captions=True)
    both = joined([plain, captioned])
    assert len(both) == 6
    assert both.caption_embeddings is not None
    assert both.caption_embeddings.valid.tolist() == [False] * 3 + [True] * 3
    assert same(both.take([3, 4, 5]), captioned)
    assert both.take([5, 0]).keys == ["a/2.jpg", "a/0.jpg"]
    assert joined([plain, plain]).caption_embeddings is None


def test_only_files_that_are_named_like_parts_are_parts(tmp_path: Path) -> None:
    for name in ("part-00002.parquet", "part-123456.parquet", "part-1.parquet", "table.parquet"):
        (tmp_path / name).touch()
    (tmp_path / ".part-00003.abc.part").touch()
    assert complete_parts(tmp_path) == [2, 123456]
    assert complete_parts(tmp_path / "missing") == []
