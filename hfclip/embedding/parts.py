"""Reads and writes parts: Parquet files with a row for each input, written whole or not at all."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hfclip.atomic import synced
from hfclip.data.parquet_files import open_parquet
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow

ENDING = ".parquet"
_VECTORS = ("embedding", "caption_embedding")


@dataclass
class Vectors:
    """Embeddings of rows, some of which have none.

    Attributes:
        values: (n, D) float32; zeros in the rows without an embedding.
        valid: (n,) bool, whether a row has an embedding.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def take(self, rows: Sequence[int]) -> "Vectors":
        """Returns the vectors of some rows, in the given order."""
        index = np.asarray(rows, dtype=np.intp)
        return Vectors(self.values[index], self.valid[index])


@dataclass
class Rows:
    """The rows of a part, column by column; every column has n entries.

    Attributes:
        keys: The unique names of the inputs.
        embeddings: The embeddings of the pictures or texts.
        captions: The captions beside the pictures, or the texts.
        caption_embeddings: The embeddings of the captions, or None if there are no captions.
        widths: The widths of the pictures in pixels.
        heights: The heights of the pictures in pixels.
        errors: Why a row has no embedding, or None.
        digests: The sha256 of the content in hexadecimal, or None if it was not read.
        sizes: The sizes of the content in bytes.
        mtimes: The times of the last change of the files, in nanoseconds.
    """

    keys: list[str]
    embeddings: Vectors
    captions: list[str | None]
    caption_embeddings: Vectors | None
    widths: list[int | None]
    heights: list[int | None]
    errors: list[str | None]
    digests: list[str | None]
    sizes: list[int | None]
    mtimes: list[int | None]

    def take(self, rows: Sequence[int]) -> "Rows":
        """Returns some rows, in the given order."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, Vectors):
                taken[field.name] = column.take(rows)
            else:
                taken[field.name] = None if column is None else [column[row] for row in rows]
        return Rows(**taken)


def joined(parts: Iterable[Rows]) -> Rows:
    """Joins the rows of several parts. At least one part is needed."""
    parts = list(parts)
    columns: dict[str, Any] = {}
    for field in fields(Rows):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "embeddings":
            columns[field.name] = _joined_vectors(values)
        elif field.name == "caption_embeddings":
            columns[field.name] = _joined_captions(parts)
        else:
            columns[field.name] = [entry for column in values for entry in column]
    return Rows(**columns)


def _joined_vectors(vectors: Sequence[Vectors]) -> Vectors:
    return Vectors(
        np.concatenate([part.values for part in vectors]),
        np.concatenate([part.valid for part in vectors]),
    )


def _joined_captions(parts: Sequence[Rows]) -> Vectors | None:
    if all(part.caption_embeddings is None for part in parts):
        return None
    return _joined_vectors(
        [
            part.caption_embeddings
            or Vectors(
                np.zeros_like(part.embeddings.values), np.zeros(len(part.keys), dtype=np.bool_)
            )
            for part in parts
        ]
    )


def write_part(
    folder: Path, name: str, rows: Rows, *, dtype: Literal["float16", "float32"], dimension: int
) -> Path:
    """Writes a part under a temporary name, syncs it to the disk, and renames it.

    Args:
        folder: The folder of the parts.
        name: The name of the part without an ending, such as "part-00000".
        rows: The rows.
        dtype: The type of the embeddings in the file.
        dimension: The width D of the embeddings.

    Raises:
        DataError: pyarrow is missing, or the columns do not fit together.
        OSError: The file cannot be written.
    """
    table = _table(rows, dtype, dimension)
    from pyarrow import parquet  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{ENDING}"
    part = folder / f".{name}.{uuid.uuid4().hex[:12]}.part"
    others = [column for column in table.column_names if column not in _VECTORS]
    try:
        # A dictionary of vectors saves no space and makes writing three times slower.
        parquet.write_table(
            table, part, use_dictionary=False, write_statistics=others, compression="none"
        )
        synced(part)
        part.replace(path)
        synced(folder)
    finally:
        part.unlink(missing_ok=True)
    return path


def _table(rows: Rows, dtype: str, dimension: int) -> "pyarrow.Table":
    try:
        import pyarrow  # noqa: PLC0415
    except ImportError as error:
        raise DataError('Parts need pyarrow: pip install "hfclip[embed]"') from error
    count = len(rows.keys)
    captions = rows.caption_embeddings or Vectors(
        np.zeros((count, dimension), np.float32), np.zeros(count, np.bool_)
    )
    return pyarrow.table(
        {
            "key": pyarrow.array(rows.keys, pyarrow.string()),
            "embedding": _fixed(rows.embeddings, dtype, (count, dimension)),
            "error": pyarrow.array(rows.errors, pyarrow.string()),
            "width": pyarrow.array(rows.widths, pyarrow.int32()),
            "height": pyarrow.array(rows.heights, pyarrow.int32()),
            "caption": pyarrow.array(rows.captions, pyarrow.string()),
            "caption_embedding": _fixed(captions, dtype, (count, dimension)),
            "size": pyarrow.array(rows.sizes, pyarrow.int64()),
            "mtime_ns": pyarrow.array(rows.mtimes, pyarrow.int64()),
            "sha256": pyarrow.array(rows.digests, pyarrow.string()),
        }
    )


def _fixed(vectors: Vectors, dtype: str, shape: tuple[int, int]) -> "pyarrow.Array":
    import pyarrow  # noqa: PLC0415

    if vectors.values.shape != shape or vectors.valid.shape != shape[:1]:
        raise DataError(f"The embeddings have shape {vectors.values.shape}; expected {shape}.")
    flat = pyarrow.array(np.ascontiguousarray(vectors.values, dtype=dtype).reshape(-1))
    mask = pyarrow.array(~vectors.valid)
    return pyarrow.FixedSizeListArray.from_arrays(flat, shape[1], mask=mask)


def read_part(path: Path) -> Rows:
    """Reads a part.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or is no part.
        OSError: The file cannot be read.
    """
    with open_parquet(path) as file:
        try:
            table = file.read(use_threads=False)
            cells = {
                name: table.column(name).to_pylist()
                for name in table.column_names
                if name not in _VECTORS
            }
            captions = _vectors(table, "caption_embedding")
            return Rows(
                keys=cells["key"],
                embeddings=_vectors(table, "embedding"),
                captions=cells["caption"],
                caption_embeddings=captions if captions.valid.any() else None,
                widths=cells["width"],
                heights=cells["height"],
                errors=cells["error"],
                digests=cells["sha256"],
                sizes=cells["size"],
                mtimes=cells["mtime_ns"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is no part of a collection, or is damaged ({error}).") from (
                error
            )


def _vectors(table: "pyarrow.Table", name: str) -> Vectors:
    column = table.column(name).combine_chunks()
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    width = column.type.list_size
    # flatten() leaves out the rows without a vector.
    values = np.zeros((len(column), width), np.float32)
    values[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return Vectors(values, valid)
