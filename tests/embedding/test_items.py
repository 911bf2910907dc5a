import os
import pickle
from pathlib import Path

import pytest

from hfclip.data.references import (
    FileImage,
    ImageRef,
    ParquetImage,
    ParquetRow,
    RemoteImage,
    TarImage,
)
from hfclip.embedding.items import Item, columns_of, item_schema, items_of
from hfclip.errors import DataError

pa = pytest.importorskip("pyarrow")

NOT_UTF8 = os.fsdecode(b"/photos/caf\xe9 %20.")
IMAGES: list[ImageRef | None] = [
    None,
    FileImage("/photos/a.jpg"),
    FileImage(f"{NOT_UTF8}jpg"),
    RemoteImage("hf://datasets/org/name@0a/a.jpg"),
    TarImage("/a.tar", 2**40, 2**33),
    TarImage(f"{NOT_UTF8}tar", 512, 0),
    ParquetRow("s3://b/t.parquet", 3, 2**31 - 1, "image", "bytes"),
    ParquetRow("/t.parquet", 0, 0, "image"),
    ParquetImage("/t.parquet", 0, 7, "image", "bytes"),
]
ITEMS = [
    *[Item(f"key {n}", image, None, n, -n) for n, image in enumerate(IMAGES)],
    Item("caption", FileImage("/a.jpg"), "two\nlines, é"),
    Item("text", None, "", 0, 2**62),
    Item("error", None, "caption", None, None, "no such file"),
]


def test_items_and_columns_convert_without_loss(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = columns_of(ITEMS)
    assert table.schema == item_schema()
    assert items_of(table) == ITEMS
    parquet.write_table(table, tmp_path / "t.parquet")
    assert items_of(parquet.read_table(tmp_path / "t.parquet")) == ITEMS
    assert [item for batch in table.to_batches(5) for item in items_of(batch)] == ITEMS
    assert items_of(columns_of([])) == []


def test_the_columns_have_the_names_and_values_of_the_plan() -> None:
    table = columns_of([ITEMS[4], ITEMS[6], ITEMS[2], ITEMS[-1]])
    assert table.column_names == [
        *["key", "text", "size", "mtime_ns", "error"],
        *["ref", "path", "offset", "length", "row_group", "row_in_group", "column", "field"],
    ]
    tar, row, quoted, error = (tuple(cells.values())[2:] for cells in table.to_pylist())
    assert tar == (4, -4, None, "tar", "/a.tar", 2**40, 2**33, None, None, None, None)
    assert row == (
        *(6, -6, None, "parquet", "s3://b/t.parquet", None, None, 3, 2**31 - 1),
        *("image", "bytes"),
    )
    assert quoted[3:5] == ("file-quoted", "/photos/caf%E9%20%2520.jpg")
    assert error == (None, None, "no such file", *[None] * 8)


def test_an_unknown_kind_of_reference_is_refused() -> None:
    table = columns_of([ITEMS[1]])
    index = table.column_names.index("ref")
    changed = table.set_column(index, "ref", pa.array(["zip"]))
    with pytest.raises(DataError, match=r"a reference of the kind 'zip'.*Update hfclip"):
        items_of(changed)


def test_the_content_is_the_picture_the_text_or_the_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    image = FileImage(str(tmp_path / "a.jpg"))
    assert Item("k", image, "caption").content() == b"picture"
    assert Item("k", None, "é").content() == "é".encode()
    with pytest.raises(DataError, match=r"^no such file$"):
        Item("k", image, "caption", error="no such file").content()


def test_items_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(ITEMS)) == ITEMS
