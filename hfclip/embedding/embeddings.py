"""Reads the embeddings of a collection: mapped arrays, keys, captions and errors."""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.items import Item
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.matrix import Matrix, open_matrix
from hfclip.embedding.parts import read_digests
from hfclip.embedding.plan import Plan
from hfclip.embedding.stores import open_store
from hfclip.errors import ArgumentError, ArgumentTypeError, DataError

if TYPE_CHECKING:
    import pandas

_Value = TypeVar("_Value")
# Rows as a slice, a mask, or numbers.
Selection: TypeAlias = "slice | Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]"
# Keys that are compared letter by letter to suggest one.
_COMPARED = 5_000
_SUGGESTED = 3


class Column(Sequence[_Value], Generic[_Value]):
    """A column of an Arrow table. It stays in its file: a value is read when it is asked for."""

    def __init__(self, values: Any) -> None:
        self.arrow = values

    def __len__(self) -> int:
        return len(self.arrow)

    @overload
    def __getitem__(self, place: SupportsIndex) -> _Value: ...

    @overload
    def __getitem__(self, place: slice) -> "Column[_Value]": ...

    def __getitem__(self, place: SupportsIndex | slice) -> "_Value | Column[_Value]":
        value = self.arrow[place]
        return Column(value) if isinstance(place, slice) else value.as_py()

    def __iter__(self) -> Iterator[_Value]:
        for chunk in self.arrow.chunks:
            yield from chunk.to_pylist()

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}{', ...' if len(self) > 3 else ''}] ({len(self):,})"


class Embeddings:
    """The embeddings of a collection that `hfclip embed` has written.

    It has N rows: the inputs that have an embedding, in the order of the collection. A slice or an
    array of row numbers gives the same interface for some of the rows: `embeddings[100:200]`,
    `embeddings[[5, 3]]`, `embeddings[mask]`.

    The first opening builds a matrix beside the parts, which later ones map: a million rows open in
    under a second. The matrix of a remote collection is in the folder of the Hub's cache. A
    collection that is being written opens with its complete parts.

    Attributes:
        out: The folder of the collection, or its URL.
        manifest: The model and the options that made the embeddings.
    """

    def __init__(self, out: "str | os.PathLike[str]", *, progress: bool = False) -> None:
        """Opens a collection.

        Args:
            out: The folder of the collection, or its URL, such as "s3://bucket/collection".
            progress: Whether to show a progress bar while the matrix is built.

        Raises:
            DataError: It is no collection, has no complete part yet, a part is damaged, pyarrow is
                missing, or a request fails.
        """
        self._store = open_store(out)
        self.out: Path | str = self._store.folder or str(self._store)
        self.manifest = read_manifest(self._store)
        self._matrix: Matrix = open_matrix(self._store, self.manifest, progress=progress)
        self._rows: range | NDArray[np.int64] = range(len(self._matrix.vectors))

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Embeddings({str(self.out)!r}: {len(self):,} x {self.dimension})"

    def __getitem__(self, rows: Selection) -> "Embeddings":
        """Returns some of the rows.

        Raises:
            ArgumentTypeError: `rows` is a single number.
            ArgumentError: A row number is out of range, or a mask has another length.
        """
        chosen = Embeddings.__new__(Embeddings)
        chosen.out, chosen.manifest = self.out, self.manifest
        chosen._store, chosen._matrix = self._store, self._matrix  # noqa: SLF001  # same class
        chosen._rows = (  # noqa: SLF001
            self._rows[rows]
            if isinstance(rows, slice)
            else np.asarray(self._rows, np.int64)[self._numbers(rows)]
        )
        return chosen

    @property
    def dimension(self) -> int:
        """The width D of the embeddings."""
        return self.manifest.dimension

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows of the collection, in its order."""
        rows = self._rows
        return isinstance(rows, range) and rows == range(len(self._matrix.vectors))

    @property
    def folder(self) -> Path:
        """The folder of the matrix. Its name changes with the collection."""
        return self._matrix.folder

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The embeddings, float32 (N, D), read-only. They are mapped unless rows were chosen."""
        return self._chosen(self._matrix.vectors)

    @cached_property
    def norms(self) -> NDArray[np.float32] | None:
        """The norms of the embeddings, float32 (N,), or None if they are normalised."""
        return None if self._matrix.norms is None else self._chosen(self._matrix.norms)

    @cached_property
    def caption_vectors(self) -> NDArray[np.float32] | None:
        """The embeddings of the captions beside pictures, float32 (N, D), or None without captions.

        A row without a caption has NaN.
        """
        return None if self._matrix.captions is None else self._chosen(self._matrix.captions)

    @cached_property
    def keys(self) -> Column[str]:
        """The unique names of the inputs."""
        return self._column("key")

    @cached_property
    def captions(self) -> Column[str | None]:
        """The captions beside the pictures, or the texts."""
        return self._column("caption")

    @cached_property
    def widths(self) -> Column[int | None]:
        """The widths of the pictures as displayed, in pixels."""
        return self._column("width")

    @cached_property
    def heights(self) -> Column[int | None]:
        """The heights of the pictures as displayed, in pixels."""
        return self._column("height")

    @cached_property
    def errors(self) -> Mapping[str, str]:
        """Why inputs of the collection have no embedding, by their keys. They have no rows."""
        table = self._matrix.errors
        pairs = zip(table.column("key").to_pylist(), table.column("error").to_pylist(), strict=True)
        return MappingProxyType(dict(pairs))

    def position(self, key: str) -> int:
        """Returns the row of a key.

        Raises:
            DataError: No row has this key. The message suggests similar keys.
        """
        import pyarrow.compute  # noqa: PLC0415

        keys = self.keys.arrow
        for form in dict.fromkeys([key, os.path.normpath(key).replace(os.sep, "/")]):
            found: int = pyarrow.compute.index(keys, form).as_py()
            if found >= 0:
                return found
        if key in self.errors:
            raise DataError(f"{key!r} has no embedding: {self.errors[key]}")
        similar = _similar(key, keys)
        hint = f" Similar keys: {', '.join(map(repr, similar))}." if similar else ""
        raise DataError(f"{self.out} has no key {key!r}.{hint}")

    def items(self, rows: Sequence[int]) -> list[Item]:
        """Returns the inputs of rows, which read the original pictures and texts again.

        Args:
            rows: Row numbers.

        Returns:
            The items in the given order. An input that is no longer in the collection has an error.
        """
        numbers = np.asarray(self._rows, np.int64)[self._numbers(rows)]
        chosen = self._matrix.rows.select(["part", "row", "key"]).take(numbers).to_pylist()
        plan = Plan(self._store)
        planned = set(plan.part_numbers)
        found: dict[tuple[int, int], Item] = {}
        for number in sorted({one["part"] for one in chosen} & planned):
            wanted = {one["row"] for one in chosen if one["part"] == number}
            part = plan.part(number)
            found |= {
                (number, row): item
                for row, item in zip(part.rows, part.items, strict=True)
                if row in wanted
            }
        return [
            found.get((one["part"], one["row"]))
            or Item(one["key"], None, None, error="it is no longer in the collection")
            for one in chosen
        ]

    def digests(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the sha256 of the contents of rows, uint8 (n, 32); zeros where it is unknown."""
        numbers = np.asarray(self._rows, np.int64)[self._numbers(rows)]
        found = np.zeros((len(numbers), 32), np.uint8)
        parts, places = (
            self._matrix.rows.column(name).take(numbers).to_numpy() for name in ("part", "row")
        )
        for number in np.unique(parts):
            own = parts == number
            digests = read_digests(self._store, int(number), None)
            if digests is not None and places[own].max() < len(digests):
                found[own] = digests[places[own]]
        return found

    def to_numpy(self) -> NDArray[np.float32]:
        """Returns a copy of the embeddings in memory, float32 (N, D), which may be written to."""
        return np.array(self.vectors)

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a table with the columns key, embedding, caption, width and height.

        Raises:
            DataError: pandas is not installed.
        """
        try:
            import pandas  # noqa: PLC0415
        except ImportError as error:
            raise DataError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame(
            {
                "key": list(self.keys),
                "embedding": list(self.vectors),
                "caption": list(self.captions),
                "width": self.widths.arrow.to_pandas().astype("Int64"),
                "height": self.heights.arrow.to_pandas().astype("Int64"),
            }
        )

    def _numbers(self, rows: Any) -> NDArray[np.int64]:
        """Returns row numbers from 0 to N - 1."""
        numbers = np.asarray(rows)
        if numbers.ndim != 1:
            raise ArgumentTypeError(
                f"rows is {rows!r}; expected a slice, a mask or a list of row numbers. Use "
                "embeddings.vectors[row] and embeddings.keys[row] for one row."
            )
        if numbers.dtype == np.bool_:
            if len(numbers) != len(self):
                raise ArgumentError(f"The mask has {len(numbers)} values for {len(self)} rows.")
            return np.flatnonzero(numbers)
        if len(numbers) and not np.issubdtype(numbers.dtype, np.integer):
            raise ArgumentTypeError(f"rows has dtype {numbers.dtype}; expected integers or a mask.")
        numbers = numbers.astype(np.int64)
        if len(numbers) and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise ArgumentError(f"A row number is out of range; there are {len(self)} rows.")
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _chosen(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        if isinstance(self._rows, range):
            return array[_slice(self._rows)]
        chosen = array[self._rows]
        chosen.flags.writeable = False
        return chosen

    def _column(self, name: str) -> Column[Any]:
        column = self._matrix.rows.column(name)
        if isinstance(self._rows, range) and self._rows.step == 1:
            return Column(column.slice(self._rows.start, len(self._rows)))
        return Column(column.take(np.asarray(self._rows, np.int64)))


def _slice(rows: range) -> slice:
    """Returns the slice that gives these row numbers, which may run backwards to row 0."""
    return slice(rows.start, rows.stop if rows.stop >= 0 else None, rows.step)


def _similar(key: str, keys: Any) -> list[str]:
    """Returns a few keys that resemble a key: those that contain it, else by their letters."""
    import pyarrow.compute as arrow  # noqa: PLC0415

    name = key.replace("\\", "/").rstrip("/").rpartition("/")[2]
    for pattern in dict.fromkeys([name, name.rpartition(".")[0] or name]):
        mask = arrow.match_substring(keys, pattern, ignore_case=True)
        found = keys.filter(mask).slice(0, _SUGGESTED).to_pylist() if pattern else []
        if found:
            return list(found)
    return get_close_matches(key, keys.slice(0, _COMPARED).to_pylist(), _SUGGESTED)
