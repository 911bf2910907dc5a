"""The inputs of a collection, and their columns in a plan.

An input that cannot be listed has an error and no content.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from hfclip.data.references import (
    FileImage,
    ImageRef,
    ParquetImage,
    ParquetRow,
    RemoteImage,
    TarImage,
)
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, a picture with a caption, or a text.

    Attributes:
        key: The unique name: a path, or a row such as "table.csv:12".
        image: A reference that reads the picture's bytes, or None.
        text: The caption of the picture, or the text itself.
        size: The size of the content in bytes, or None if it is not known without reading it.
        mtime_ns: The time of the last change of the file, in nanoseconds. For files without a time
            and rows of tables another number that changes with the file. None if nothing is known.
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
            DataError: The file is damaged or has changed, or the item has an error.
        """
        if self.error is not None:
            raise DataError(self.error)
        return self.image.read() if self.image is not None else (self.text or "").encode()


# The columns of a plan that describe the item itself.
_ITEM = {
    "key": "string",
    "text": "string",
    "size": "int64",
    "mtime_ns": "int64",
    "error": "string",
}
# The columns that describe the reference to a picture.
_REFERENCE = {
    "ref": "string",
    "path": "string",
    "offset": "int64",
    "length": "int64",
    "row_group": "int32",
    "row_in_group": "int32",
    "column": "string",
    "field": "string",
}
_REF, _PATH = 0, 1
# The value of the column "ref" for each class, and the columns of the class's fields.
_KINDS: dict[str, tuple[type[ImageRef], tuple[str, ...]]] = {
    "file": (FileImage, ("path",)),
    "remote": (RemoteImage, ("path",)),
    "tar": (TarImage, ("path", "offset", "length")),
    "parquet": (ParquetRow, ("path", "row_group", "row_in_group", "column", "field")),
    "row_group": (ParquetImage, ("path", "row_group", "row_in_group", "column", "field")),
}
# For each class the value of the column "ref", and the fields with the places of their columns.
_PLACES: dict[type[ImageRef], tuple[str, list[tuple[str, int]]]] = {
    kind: (
        name,
        [
            (field, list(_REFERENCE).index(column))
            for field, column in zip(kind.__slots__, columns, strict=True)
        ],
    )
    for name, (kind, columns) in _KINDS.items()
}
# Added to "ref" if the path is not UTF-8. Its bytes are then percent-encoded.
_QUOTED = "-quoted"


def item_schema() -> "pyarrow.Schema":
    """Returns the types of the columns of `columns_of`. Only `key` is never null."""
    import pyarrow as pa  # noqa: PLC0415

    types = _ITEM | _REFERENCE
    return pa.schema([pa.field(name, kind, name != "key") for name, kind in types.items()])


def columns_of(items: Iterable[Item]) -> "pyarrow.Table":
    """Returns a table with a row for each item. `items_of` returns the same items again."""
    import pyarrow as pa  # noqa: PLC0415

    rows = list(items)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _ITEM}
    references = [_stored(row.image) for row in rows]
    for place, name in enumerate(_REFERENCE):
        columns[name] = [reference[place] for reference in references]
    return pa.table(columns, schema=item_schema())


def items_of(columns: "pyarrow.Table | pyarrow.RecordBatch") -> list[Item]:
    """Returns the items of a table with the columns of `columns_of`, and perhaps others."""
    lists = {name: columns.column(name).to_pylist() for name in (*_ITEM, *_REFERENCE)}
    images = [_loaded(row) for row in zip(*(lists[name] for name in _REFERENCE), strict=True)]
    rows = zip(
        lists["key"],
        images,
        lists["text"],
        lists["size"],
        lists["mtime_ns"],
        lists["error"],
        strict=True,
    )
    return [Item(*row) for row in rows]


def _stored(image: ImageRef | None) -> list[Any]:
    """Returns the values of the columns of a reference."""
    values: list[Any] = [None] * len(_REFERENCE)
    if image is None:
        return values
    name, fields = _PLACES[type(image)]
    for field, place in fields:
        values[place] = getattr(image, field)
    path = values[_PATH]
    try:
        path.encode()
    except UnicodeEncodeError:
        name, values[_PATH] = name + _QUOTED, quote_from_bytes(os.fsencode(path))
    values[_REF] = name
    return values


def _loaded(row: tuple[Any, ...]) -> ImageRef | None:
    values = dict(zip(_REFERENCE, row, strict=True))
    name = values["ref"]
    if name is None:
        return None
    if name.endswith(_QUOTED):
        name = name.removesuffix(_QUOTED)
        values["path"] = os.fsdecode(unquote_to_bytes(values["path"]))
    if name not in _KINDS:
        raise DataError(
            f"The plan has a reference of the kind {name!r}, which this version of hfclip does not "
            "know. Update hfclip."
        )
    kind, fields = _KINDS[name]
    return kind(*(values[field] for field in fields))
