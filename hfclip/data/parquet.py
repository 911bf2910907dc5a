"""Reads Parquet files, as the Hub's datasets store pictures: bytes, a struct, or a path."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfclip.data.columns import SAMPLE, Columns, find_columns
from hfclip.data.parquet_files import open_parquet
from hfclip.data.records import Choices, Findings, Split
from hfclip.data.references import ParquetImage
from hfclip.data.rows import Place, Table
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# The fields of a picture in the Hub's datasets.
_BYTES, _PATH = "bytes", "path"


@dataclass(frozen=True)
class Layout:
    """The columns of a Parquet file.

    Attributes:
        names: All columns.
        embedded: The columns with pictures; the field with the bytes if they are structs.
        classes: The class names of each column that numbers them (the Hub's ClassLabel).
    """

    names: tuple[str, ...]
    embedded: Mapping[str, str | None]
    classes: Mapping[str, tuple[str, ...]]


def add_parquet(
    path: Path, name: str, place: Place, split: Split | None, choices: Choices, findings: Findings
) -> None:
    """Adds the rows of a Parquet file. Reads no picture.

    Args:
        path: The file.
        name: Its name in keys: "data.parquet" gives "data.parquet:12" for the twelfth row.
        place: The folder of paths in the file.
        split: The split of all rows if no column gives one.
        choices: The columns that a person chose.
        findings: The findings to which the rows are added.

    Raises:
        DataError: pyarrow is missing, or the file is damaged, ambiguous or without pictures.
    """
    with open_parquet(path) as file:
        try:
            layout = layout_of(file.schema_arrow)
            columns = _columns(path, file, layout, choices)
            classes = layout.classes.get(columns.label or "")
            findings.notes.append(f"{path.name}: Parquet; columns: {columns}.")
            if columns.label is not None and classes is not None:
                findings.notes.append(
                    f"{path.name}: {len(classes)} class names of the column {columns.label!r} are "
                    "in the file."
                )
            table = Table(columns, place, split, classes)
            rows = enumerate(_picture_rows(path, file, layout, columns), 1)
            table.add(((f"{name}:{number}", row) for number, row in rows), findings)
        except DataError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is damaged or cannot be read ({error}).") from error


def layout_of(schema: "pyarrow.Schema") -> Layout:
    """Returns the columns of a Parquet file, and those that hold pictures."""
    from pyarrow import types  # noqa: PLC0415

    embedded: dict[str, str | None] = {}
    for field in schema:
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            embedded[field.name] = None
        elif types.is_struct(field.type) and field.type.get_field_index(_BYTES) >= 0:
            embedded[field.name] = _BYTES
    return Layout(tuple(schema.names), embedded, _class_names(schema.metadata or {}))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Reads the names of ClassLabel features, which the Hub's library writes to the schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _columns(
    path: Path, file: "pyarrow.parquet.ParquetFile", layout: Layout, choices: Choices
) -> Columns:
    """Finds the columns from the first rows."""
    sample = sample_rows(path, file, layout)
    return find_columns(layout.names, sample, choices, str(path), layout.classes)


def sample_rows(
    path: Path | str, file: "pyarrow.parquet.ParquetFile", layout: Layout
) -> list[dict[str, Any]]:
    """Returns the cells of the first rows, with a reference in place of a picture.

    Raises:
        DataError: There are no rows.
    """
    others = [name for name in layout.names if name not in layout.embedded]
    sample: list[dict[str, Any]] = []
    for batch in file.iter_batches(SAMPLE, columns=others, use_threads=False):
        sample = batch.to_pylist() if others else [{} for _ in range(batch.num_rows)]
        break
    if not sample:
        raise DataError(f"{path} has no rows.")
    for row in sample:
        row.update((name, ParquetImage(str(path), 0, 0, name)) for name in layout.embedded)
    return sample


def _picture_rows(
    path: Path, file: "pyarrow.parquet.ParquetFile", layout: Layout, columns: Columns
) -> Iterator[dict[str, Any]]:
    """Yields the cells of each row, with a reference in place of a picture."""
    names = [name for name in (columns.caption, columns.label, columns.split) if name is not None]
    is_embedded = columns.image in layout.embedded
    field = layout.embedded.get(columns.image)
    for group in range(file.num_row_groups):
        by_path = field is not None and has_no_bytes(file, group, f"{columns.image}.{field}")
        image = f"{columns.image}.{_PATH}" if by_path else columns.image
        read = names if is_embedded and not by_path else [*names, image]
        for number, row in enumerate(file.read_row_group(group, columns=read).to_pylist()):
            if by_path:
                row[columns.image] = (row[columns.image] or {}).get(_PATH)
            elif is_embedded:
                row[columns.image] = ParquetImage(str(path), group, number, columns.image, field)
            yield row


def has_no_bytes(file: "pyarrow.parquet.ParquetFile", group: int, leaf: str) -> bool:
    """Returns whether all pictures of a row group are null, so that only their paths are given."""
    chunks = file.metadata.row_group(group)
    for index in range(chunks.num_columns):
        chunk = chunks.column(index)
        if chunk.path_in_schema == leaf:
            found = chunk.statistics
            return bool(found and found.has_null_count and found.null_count == chunks.num_rows)
    return False
