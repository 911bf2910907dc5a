"""Lists the rows of Parquet files. Reads captions, keys and paths, but no picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfclip.data.asking import unreadable
from hfclip.data.parquet import Layout, has_no_bytes, layout_of, sample_rows
from hfclip.data.parquet_files import DamagedFileError, open_parquet
from hfclip.data.records import UnusableRowError
from hfclip.data.references import ParquetRow
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
from hfclip.embedding.table_rows import find_roles
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet

# Rows whose captions and keys are in memory at once.
_ROWS = 4096


def parquet_items(file: Location, listing: Listing) -> Iterator[Item]:
    """Yields the pictures or texts of a Parquet file. Keys count rows from 1.

    Raises:
        DataError: pyarrow is not installed, or the columns are ambiguous.
        DamagedFileError: The rows cannot be read from here on.
        OSError: The file cannot be read.
    """
    stamp = changed_with(file.info())
    source = file.where if file.is_remote else Path(file.where)
    with open_parquet(source, "embed") as parquet:
        try:
            yield from _items(file, parquet, listing, stamp)
        except DataError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            if file.is_remote and isinstance(error, OSError):
                raise unreadable(file.key, error) from None
            raise DamagedFileError(f"{file.key} is damaged or cannot be read ({error}).") from error


def _items(
    file: Location, parquet: "pyarrow.parquet.ParquetFile", listing: Listing, stamp: int | None
) -> Iterator[Item]:
    layout = layout_of(parquet.schema_arrow)
    roles = find_roles(layout.names, sample_rows(file.key, parquet, layout), listing, file.key)
    pictures = NamedPictures(file)
    number = 0
    for group in range(parquet.num_row_groups):
        for row, cells in enumerate(_cells(parquet, group, layout, roles)):
            number += 1
            otherwise = f"{file.key}:{number}"
            try:
                key, text = row_key(cells, roles, otherwise), row_text(cells, roles)
                if listing.kind == "texts":
                    yield text_item(key, text, stamp)
                elif _IS_EMBEDDED in cells:
                    column = str(roles.image)
                    image = ParquetRow(file.where, group, row, column, layout.embedded[column])
                    yield Item(key, image, text, None, stamp)
                else:
                    yield pictures.item(path_of(cells.get(str(roles.image))), key, text)
            except UnusableRowError as error:
                yield Item(otherwise, None, None, mtime_ns=stamp, error=str(error))


# A cell of this name marks rows whose picture is in the file.
_IS_EMBEDDED = "\0embedded"


def _cells(
    parquet: "pyarrow.parquet.ParquetFile", group: int, layout: Layout, roles: Roles
) -> Iterator[dict[str, Any]]:
    """Yields the cells of the columns in use, without pictures."""
    names = [name for name in (roles.caption, roles.key) if name is not None]
    image, field = roles.image, layout.embedded.get(str(roles.image))
    is_embedded = image in layout.embedded
    by_path = field is not None and has_no_bytes(parquet, group, f"{image}.{field}")
    if image is not None and by_path:
        names.append(f"{image}.path")
    elif image is not None and not is_embedded:
        names.append(image)
    extra = {_IS_EMBEDDED: True} if is_embedded and not by_path else {}
    if not names:
        for _row in range(parquet.metadata.row_group(group).num_rows):
            yield extra
        return
    for batch in parquet.iter_batches(
        _ROWS, row_groups=[group], columns=list(dict.fromkeys(names)), use_threads=False
    ):
        for cells in batch.to_pylist():
            if by_path:
                cells[image] = (cells.get(image) or {}).get("path")
            yield cells | extra
