"""Writes the files of a matrix block by block, so that its memory does not grow."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.manifest import Manifest
from hfclip.embedding.parts import vectors_of

if TYPE_CHECKING:
    import pyarrow

# Rows that are written at once.
BLOCK = 8_192
# Rows of a record batch: few batches make access by number fast.
_BATCH = 65_536


class ArrayFile:
    """A .npy file of float32 that grows. Its header is completed when it is closed."""

    def __init__(self, path: Path, row: tuple[int, ...]) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._row = row
        self.count = 0
        self._write_header()

    def add(self, values: NDArray[np.float32]) -> None:
        """Adds rows."""
        self._file.write(np.ascontiguousarray(values, np.float32).data)
        self.count += len(values)

    def close(self) -> None:
        """Writes the header again and closes the file."""
        self._file.seek(0)
        self._write_header()  # NumPy leaves room in it for a longer first axis
        self._file.close()

    def _write_header(self) -> None:
        shape = (self.count, *self._row)
        facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, facts)


class TableFile:
    """An Arrow IPC file that grows, in batches of the same size."""

    def __init__(self, path: Path, columns: dict[str, Any]) -> None:
        import pyarrow  # noqa: PLC0415

        self._schema = pyarrow.schema(columns)
        self._file = pyarrow.ipc.new_file(str(path), self._schema)
        self._waiting: list[pyarrow.Table] = []

    def add(self, columns: dict[str, Any]) -> None:
        """Adds rows as columns, in the given types."""
        import pyarrow  # noqa: PLC0415

        self._waiting.append(pyarrow.table(columns, schema=self._schema))
        if sum(table.num_rows for table in self._waiting) >= _BATCH:
            self._flush()

    def close(self) -> None:
        """Writes the last batch and closes the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow  # noqa: PLC0415

        if self._waiting:
            self._file.write_table(pyarrow.concat_tables(self._waiting).combine_chunks())
        self._waiting = []


class MatrixFiles:
    """The files of a matrix while they are written."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import pyarrow  # noqa: PLC0415

        self._folder = folder
        self._dimension = manifest.dimension
        self._vectors = ArrayFile(folder / "vectors.npy", (manifest.dimension,))
        self._norms = None if manifest.normalized else ArrayFile(folder / "norms.npy", ())
        self._captions: ArrayFile | None = None
        number = pyarrow.int32()
        text = pyarrow.string()
        self._rows = TableFile(
            folder / "rows.arrow",
            {
                "key": text,
                "caption": text,
                "width": number,
                "height": number,
                "part": number,
                "row": number,
            },
        )
        self._errors = TableFile(folder / "errors.arrow", {"key": text, "error": text})

    def __enter__(self) -> "MatrixFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._vectors, self._norms, self._captions, self._rows, self._errors):
            if file is not None:
                file.close()

    def add(
        self, part: int, rows: NDArray[np.int32], keys: Sequence[str], table: "pyarrow.Table"
    ) -> None:
        """Adds rows of a part.

        Args:
            part: The number of the part.
            rows: The row numbers in the part (B,).
            keys: Their keys.
            table: Their other columns.
        """
        found = vectors_of(table.column("embedding"))
        finite = np.isfinite(found.values).all(axis=1)
        good = found.valid & finite
        self._add_errors(keys, table.column("error").to_pylist(), good)
        chosen: list[int] = np.flatnonzero(good).tolist()
        if not chosen:
            return
        captions = vectors_of(table.column("caption_embedding").take(chosen))
        self._add_captions(captions.values, captions.valid)
        vectors = found.values[chosen]
        self._vectors.add(vectors)
        if self._norms is not None:
            squares = np.square(vectors, dtype=np.float64)
            self._norms.add(np.sqrt(squares.sum(axis=1)).astype(np.float32))
        self._rows.add(
            {
                "key": [keys[place] for place in chosen],
                **{
                    name: table.column(name).take(chosen) for name in ("caption", "width", "height")
                },
                "part": np.full(len(chosen), part, np.int32),
                "row": rows[chosen],
            }
        )

    def _add_errors(
        self, keys: Sequence[str], errors: Sequence[str | None], good: NDArray[np.bool_]
    ) -> None:
        bad: list[int] = np.flatnonzero(~good).tolist()
        reasons = [errors[place] or "the embedding is not finite" for place in bad]
        self._errors.add({"key": [keys[place] for place in bad], "error": reasons})

    def _add_captions(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        if self._captions is None:
            if not valid.any():
                return
            self._captions = ArrayFile(self._folder / "captions.npy", (self._dimension,))
            for begin in range(0, self._vectors.count, BLOCK):  # the rows without, so far
                count = min(BLOCK, self._vectors.count - begin)
                self._captions.add(np.full((count, self._dimension), np.nan, np.float32))
        self._captions.add(np.where(valid[:, None], values, np.float32(np.nan)))
