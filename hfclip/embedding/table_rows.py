"""Lists the rows of CSV, TSV and JSONL files, row by row."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, TypeAlias

from hfclip.data.columns import SAMPLE, check_column, find_caption_column, find_image_column
from hfclip.data.delimited import open_text, stream_delimited
from hfclip.data.json_rows import json_lines
from hfclip.data.records import UnusableRowError
from hfclip.data.tables import JSON_LINES
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location
from hfclip.embedding.named import (
    NamedPictures,
    Roles,
    changed_with,
    path_of,
    row_key,
    row_text,
    text_item,
)
from hfclip.embedding.settings import Listing
from hfclip.errors import DataError

# The number of a row, and its cells or why it has none.
_Rows: TypeAlias = Iterator[tuple[int, dict[str, Any] | str]]


def table_items(file: Location, listing: Listing) -> Iterator[Item]:
    """Yields the pictures or texts of a CSV, TSV or JSONL file.

    Raises:
        DataError: The file is no table, or its columns are ambiguous.
        DamagedFileError: The rows cannot be read from here on.
        OSError: The file cannot be read.
    """
    stamp = changed_with(file.info())
    pictures = NamedPictures(file)
    with file.open() as content, open_text(content) as text:
        names: tuple[str, ...] = ()
        if file.ending in JSON_LINES:
            rows: _Rows = json_lines(content)
        else:
            names, rows = stream_delimited(text, file.key, listing.delimiter)
        head = list(islice(rows, SAMPLE))
        sample = [row for _, row in head if isinstance(row, dict)]
        names = names or tuple(dict.fromkeys(name for row in sample for name in row))
        if not sample:
            raise DataError(f"{file.key} has no rows{_reason(head)}.")
        roles = find_roles(names, sample, listing, file.key)
        for number, row in chain(head, rows):
            yield _item(f"{file.key}:{number}", row, roles, pictures, stamp)


def _item(
    name: str,
    row: dict[str, Any] | str,
    roles: Roles,
    pictures: NamedPictures,
    stamp: int | None,
) -> Item:
    if isinstance(row, str):
        return Item(name, None, None, mtime_ns=stamp, error=row)
    try:
        key, text = row_key(row, roles, name), row_text(row, roles)
        if roles.image is None:
            return text_item(key, text, stamp)
        return pictures.item(path_of(row.get(roles.image)), key, text)
    except UnusableRowError as error:
        return Item(name, None, None, mtime_ns=stamp, error=str(error))


def find_roles(
    names: tuple[str, ...], sample: list[dict[str, Any]], listing: Listing, what: str
) -> Roles:
    """Finds the columns of pictures, captions and keys by the options, the content and the names.

    Args:
        names: All columns.
        sample: The first rows.
        listing: The options.
        what: The table's name in errors.

    Raises:
        DataError: A chosen column does not exist, or a column is missing or ambiguous.
    """
    if listing.kind == "images":
        check_column(listing.image_column, "image_column", names, what)
    check_column(listing.caption_column, "caption_column", names, what)
    check_column(listing.key_column, "key_column", names, what)
    if listing.kind == "texts":
        text = listing.caption_column or find_caption_column(names, what)
        if text is None:
            raise DataError(
                f"{what}: no column is named like texts. Name it with caption_column "
                "(--caption-column)."
            )
        return Roles(None, text, listing.key_column)
    image = listing.image_column or find_image_column(names, sample, what)
    caption = listing.caption_column
    if caption is None:
        others = [name for name in names if name not in (image, listing.key_column)]
        caption = find_caption_column(others, what) if listing.captions else None
    return Roles(image, caption if listing.captions else None, listing.key_column)


def _reason(head: list[tuple[int, dict[str, Any] | str]]) -> str:
    return f": line {head[0][0]}, {head[0][1]}" if head else ""
