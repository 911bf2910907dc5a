"""Reads and writes parts: Parquet files with a row for each input, written whole and never edited.

The digests of the contents are in a file beside the part, which is written first. A part without
digests stays valid, but a moved or touched file of it is encoded again.
"""

import os
import re
import uuid
from collections.abc import Callable, Sequence
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

HIDDEN = ".hfclip"
COLUMNS = ("key", "embedding", "error", "width", "height", "caption", "caption_embedding")
_VECTORS = ("embedding", "caption_embedding")
_NAME = re.compile(r"part-(\d{5,9})\.parquet")
_LEFTOVER = ".part-*.part"
# Bytes of a sha256.
_DIGEST = 32


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
        errors: Why a row has no embedding, or None.
        widths: The widths of the pictures in pixels.
        heights: The heights of the pictures in pixels.
        captions: The captions beside the pictures, or the texts.
        caption_embeddings: The embeddings of the captions, or None if there are no captions.
        digests: The sha256 of each content, 32 bytes, or None if it was not read.
    """

    keys: list[str]
    embeddings: Vectors
    errors: list[str | None]
    widths: list[int | None]
    heights: list[int | None]
    captions: list[str | None]
    caption_embeddings: Vectors | None
    digests: list[bytes | None]

    def __len__(self) -> int:
        return len(self.keys)

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


def part_name(number: int) -> str:
    """Returns the name of a part without its ending, such as "part-00003"."""
    return f"part-{number:05d}"


def part_path(out: Path, number: int) -> Path:
    """Returns the path of a part."""
    return out / f"{part_name(number)}.parquet"


def digest_path(out: Path, number: int) -> Path:
    """Returns the path of the digests of a part."""
    return out / HIDDEN / "content" / f"{part_name(number)}.sha256"


def complete_parts(out: Path) -> list[int]:
    """Returns the numbers of the parts that have a file, ascending."""
    try:
        found = [_NAME.fullmatch(name) for name in os.listdir(out)]  # noqa: PTH208  # fast
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in found if match is not None)


def joined(parts: Sequence[Rows]) -> Rows:
    """Joins the rows of several parts. At least one part is needed."""
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
            or Vectors(np.zeros_like(part.embeddings.values), np.zeros(len(part), dtype=np.bool_))
            for part in parts
        ]
    )


def write_part(
    out: Path, number: int, rows: Rows, *, dtype: Literal["float16", "float32"], dimension: int
) -> Path:
    """Writes the digests of a part and then the part, each under a temporary name first.

    The part is synced to the disk before it gets its name, so a part is whole or missing.

    Args:
        out: The folder of the collection.
        number: The number of the part.
        rows: The rows.
        dtype: The type of the embeddings in the file.
        dimension: The width D of the embeddings.

    Raises:
        DataError: pyarrow is missing, the columns do not fit together, or an embedding is too
            large for float16.
        OSError: The file cannot be written.
    """
    table = _table(rows, dtype, dimension)
    content = b"".join(digest or bytes(_DIGEST) for digest in rows.digests)
    if len(rows.digests) != len(rows) or len(content) != len(rows) * _DIGEST:
        raise DataError(f"The digests of {part_name(number)} have the wrong number or length.")
    write_synced(digest_path(out, number), lambda temporary: temporary.write_bytes(content))
    return write_synced(part_path(out, number), lambda temporary: _write(table, temporary))


def write_synced(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a temporary file, syncs it to the disk, and renames it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.part")
    try:
        write(temporary)
        synced(temporary)
        temporary.replace(path)
        synced(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_leftovers(out: Path) -> None:
    """Removes the temporary files of parts that a killed run left.

    Call it only while nobody else writes to the collection.
    """
    for folder in (out, out / HIDDEN / "content"):
        for path in folder.glob(_LEFTOVER):
            path.unlink(missing_ok=True)


def _write(table: "pyarrow.Table", path: Path) -> None:
    from pyarrow import parquet  # noqa: PLC0415

    # A dictionary of vectors saves no space and makes writing three times slower.
    others = [column for column in table.column_names if column not in _VECTORS]
    parquet.write_table(
        table,
        path,
        row_group_size=max(1, table.num_rows),
        use_dictionary=False,
        write_statistics=others,
        compression="none",
    )


def _table(rows: Rows, dtype: str, dimension: int) -> "pyarrow.Table":
    try:
        import pyarrow  # noqa: PLC0415
    except ImportError as error:
        raise DataError('Embedding needs pyarrow: pip install "hfclip[embed]"') from error
    shape = (len(rows), dimension)
    vector = pyarrow.list_(getattr(pyarrow, dtype)(), dimension)
    captions = rows.caption_embeddings
    columns = {
        "key": pyarrow.array(rows.keys, pyarrow.string()),
        "embedding": _fixed(rows.embeddings, dtype, shape),
        "error": pyarrow.array(rows.errors, pyarrow.string()),
        "width": pyarrow.array(rows.widths, pyarrow.int32()),
        "height": pyarrow.array(rows.heights, pyarrow.int32()),
        "caption": pyarrow.array(rows.captions, pyarrow.string()),
        "caption_embedding": pyarrow.nulls(len(rows), vector)
        if captions is None
        else _fixed(captions, dtype, shape),
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns of a part have different lengths: {lengths}.")
    return pyarrow.table(columns)


def _fixed(vectors: Vectors, dtype: str, shape: tuple[int, int]) -> "pyarrow.Array":
    import pyarrow  # noqa: PLC0415

    if vectors.values.shape != shape or vectors.valid.shape != shape[:1]:
        raise DataError(f"The embeddings have shape {vectors.values.shape}; expected {shape}.")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(vectors.values, dtype=dtype)
    if dtype == "float16" and (np.isinf(values) & np.isfinite(vectors.values)).any():
        raise DataError(
            "An embedding has a value beyond 65,504, the largest of float16. Use --dtype float32 "
            "and another folder."
        )
    mask = pyarrow.array(~vectors.valid)
    return pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(values.reshape(-1)), shape[1], mask=mask
    )


def read_part(path: Path) -> Rows:
    """Reads a part with the digests of its contents.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or is no part.
        OSError: The file cannot be read.
    """
    table = read_table(path, COLUMNS)
    captions = vectors_of(table.column("caption_embedding"))
    match = _NAME.fullmatch(path.name)
    digests = read_digests(path.parent, int(match[1]), table.num_rows) if match else None
    return Rows(
        keys=table.column("key").to_pylist(),
        embeddings=vectors_of(table.column("embedding")),
        errors=table.column("error").to_pylist(),
        widths=table.column("width").to_pylist(),
        heights=table.column("height").to_pylist(),
        captions=table.column("caption").to_pylist(),
        caption_embeddings=captions if captions.valid.any() else None,
        digests=[None] * table.num_rows
        if digests is None
        else [row.tobytes() if row.any() else None for row in digests],
    )


def read_table(path: Path, columns: Sequence[str]) -> "pyarrow.Table":
    """Reads some columns of a part.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or is no part.
        OSError: The file cannot be read.
    """
    try:
        with open_parquet(path, "embed") as file:
            return file.read(columns=list(columns), use_threads=False).select(list(columns))
    except DataError:
        raise
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system
            raise
        raise DataError(
            f"{path} is damaged, or is no part of a collection ({error}). Delete it and run the "
            "same `hfclip embed` again, which encodes this part again."
        ) from error


def vectors_of(column: "pyarrow.ChunkedArray") -> Vectors:
    """Returns a column of embeddings as float32 (n, D)."""
    array = column.combine_chunks()
    width = array.type.list_size
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    values = np.zeros((len(array), width), np.float32)
    # flatten() leaves out the rows without a vector.
    values[valid] = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return Vectors(values, valid)


def read_digests(out: Path, number: int, count: int) -> NDArray[np.uint8] | None:
    """Reads the sha256 of the contents of a part, uint8 (n, 32); zeros where it is unknown.

    Args:
        out: The folder of the collection.
        number: The number of the part.
        count: The number n of its rows.

    Returns:
        The digests, or None if the file is missing or has another length.
    """
    try:
        content = digest_path(out, number).read_bytes()
    except FileNotFoundError:
        return None
    if len(content) != count * _DIGEST:
        return None
    return np.frombuffer(content, np.uint8).reshape(count, _DIGEST)
