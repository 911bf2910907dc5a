"""The inputs of a collection. An input that cannot be listed has an error and no content."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfclip.data.references import FileImage, ImageRef, ParquetImage, TarImage
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow

# The columns of a plan that describe an item, with the names of their Arrow types.
_COLUMNS = {
    "key": "string",
    "text": "string",
    "size": "int64",
    "mtime_ns": "int64",
    "error": "string",
    "ref": "string",
    "path": "string",
    "offset": "int64",
    "length": "int64",
    "row_group": "int32",
    "row_in_group": "int32",
    "column": "string",
    "field": "string",
}


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, a picture with a caption, or a text.

    Attributes:
        key: The unique name: a path, or a row such as "table.csv:12".
        image: A reference that reads the picture's bytes, or None.
        text: The caption of the picture, or the text itself.
        size: The size of the content in bytes, or None if it is not known without reading it.
        mtime_ns: The time of the last change of the file, in nanoseconds, or None.
        error: Why the input cannot be read, or None if that is not known yet.
    """

    key: str
    image: ImageRef | None
    text: str | None
    size: int | None = None
    mtime_ns: int | None = None
    error: str | None = None

    def content(self) -> bytes:
        """Returns the bytes that identify the input: those of the picture, or of the text.

        Raises:
            OSError: The file cannot be read.
            DataError: The file is damaged or has changed.
        """
        return self.image.read() if self.image is not None else (self.text or "").encode()


def columns_of(items: Sequence[Item]) -> "pyarrow.Table":
    """Returns items as the columns of a plan."""
    import pyarrow  # noqa: PLC0415

    rows = [_row(item) for item in items]
    return pyarrow.table(
        {
            name: pyarrow.array([row.get(name) for row in rows], getattr(pyarrow, kind)())
            for name, kind in _COLUMNS.items()
        }
    )


def items_of(columns: "pyarrow.Table") -> list[Item]:
    """Returns the items that the columns of a plan describe."""
    lists = [columns.column(name).to_pylist() for name in _COLUMNS]
    return [
        Item(key, _reference(ref, rest), text, size, mtime, error)
        for key, text, size, mtime, error, ref, *rest in zip(*lists, strict=True)
    ]


def _row(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": item.key,
        "text": item.text,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "error": item.error,
    }
    image = item.image
    if isinstance(image, FileImage):
        row |= {"ref": "file", "path": image.path}
    elif isinstance(image, TarImage):
        row |= {"ref": "tar", "path": image.path, "offset": image.offset, "length": image.size}
    elif isinstance(image, ParquetImage):
        row |= {"ref": "parquet", "path": image.path, "column": image.column}
        row |= {"row_group": image.row_group, "row_in_group": image.row, "field": image.field}
    return row


def _reference(ref: str | None, rest: Sequence[Any]) -> ImageRef | None:
    path, offset, length, group, row, column, field = rest
    if ref is None:
        return None
    if ref == "file":
        return FileImage(path)
    if ref == "tar":
        return TarImage(path, offset, length)
    if ref == "parquet":
        return ParquetImage(path, group, row, column, field)
    raise DataError(f"The plan has a reference of the kind {ref!r}. Update hfclip.")
