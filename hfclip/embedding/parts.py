"""Reads and writes parts: Parquet files with a row for each input, written whole and never edited.

The digests of the contents are in a file beside the part, which is written first. A part without
digests stays valid, but a moved or touched file of it is encoded again. On remote storage a record
of the part is written last, see `hfclip.embedding.records`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hfclip.data.parquet_files import open_parquet
from hfclip.embedding.part_files import digest_file, part_file, part_name
from hfclip.embedding.records import Record, write_record
from hfclip.embedding.stores import AnyStore, open_store
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow

COLUMNS = ("key", "embedding", "error", "width", "height", "caption", "caption_embedding")
_VECTORS = ("embedding", "caption_embedding")
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
    out: AnyStore, number: int, rows: Rows, *, dtype: Literal["float16", "float32"], dimension: int
) -> Record:
    """Writes the digests of a part, then the part, then its record if the storage is remote.

    Each is written whole or not at all. In a folder on this machine a part is synced to the disk
    before it gets its name.

    Args:
        out: The place of the collection.
        number: The number of the part.
        rows: The rows.
        dtype: The type of the embeddings in the file.
        dimension: The width D of the embeddings.

    Returns:
        What is known about the part, with or without a file for it.

    Raises:
        DataError: pyarrow is missing, the columns do not fit together, an embedding is too large
            for float16, or a request fails.
        OSError: The file cannot be written.
    """
    store = open_store(out)
    table = _table(rows, dtype, dimension)
    content = b"".join(digest or bytes(_DIGEST) for digest in rows.digests)
    if len(rows.digests) != len(rows) or len(content) != len(rows) * _DIGEST:
        raise DataError(f"The digests of {part_name(number)} have the wrong number or length.")
    store.write(digest_file(number), lambda temporary: temporary.write_bytes(content))
    facts: list[Record] = []

    def write(temporary: Path) -> None:
        _write(table, temporary)
        with temporary.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            facts.append(Record(number, file.tell(), len(rows), _failed(rows), digest))

    store.write(part_file(number), write)
    if store.folder is None:
        write_record(store, facts[0])
    return facts[0]


def _failed(rows: Rows) -> int:
    return sum(error is not None for error in rows.errors)


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


def read_part(out: AnyStore, number: int, records: Sequence[Record] = ()) -> Rows:
    """Reads a part with the digests of its contents.

    Args:
        out: The place of the collection.
        number: The number of the part.
        records: The records of the part; one of them has to fit its content.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or is no part.
        OSError: The file cannot be read.
    """
    table = read_table(out, number, COLUMNS, records)
    captions = vectors_of(table.column("caption_embedding"))
    digests = read_digests(out, number, table.num_rows)
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


def read_table(
    out: AnyStore, number: int, columns: Sequence[str], records: Sequence[Record] = ()
) -> "pyarrow.Table":
    """Reads some columns of a part.

    Args:
        out: The place of the collection.
        number: The number of the part.
        columns: The names of the columns.
        records: The records of the part; one of them has to fit its content.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or is no part.
        OSError: The file cannot be read.
    """
    store = open_store(out)
    path, source = store.path(part_file(number)), store.source(part_file(number))
    try:
        if isinstance(source, BytesIO) and records:
            _check_content(source.getbuffer(), records)
        with open_parquet(path, "embed", source) as file:
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


def _check_content(content: memoryview, records: Sequence[Record]) -> None:
    found = sha256(content).hexdigest()
    if all(record.sha256 != found for record in records):
        raise ValueError(f"its sha256 is {found}, and its record has {records[0].sha256}")


def vectors_of(column: "pyarrow.ChunkedArray") -> Vectors:
    """Returns a column of embeddings as float32 (n, D)."""
    array = column.combine_chunks()
    width = array.type.list_size
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    values = np.zeros((len(array), width), np.float32)
    # flatten() leaves out the rows without a vector.
    values[valid] = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return Vectors(values, valid)


def read_digests(out: AnyStore, number: int, count: int | None) -> NDArray[np.uint8] | None:
    """Reads the sha256 of the contents of a part, uint8 (n, 32); zeros where it is unknown.

    Args:
        out: The place of the collection.
        number: The number of the part.
        count: The number n of its rows, or None to take as many as there are.

    Returns:
        The digests, or None if the file is missing or has another length.
    """
    try:
        content = open_store(out).read(digest_file(number))
    except FileNotFoundError:
        return None
    rows, rest = divmod(len(content), _DIGEST)
    if rest or count not in (None, rows):
        return None
    return np.frombuffer(content, np.uint8).reshape(rows, _DIGEST)
