"""Fingerprints of items: what a comparison of a million inputs keeps in memory, 49 bytes each."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow

Hashes: TypeAlias = NDArray[np.bytes_]
_WIDTH = 16
_BLOCK = 65_536
# Two inputs of a million have one hash of 128 bits with a probability below 1e-26.
HASH = np.dtype(f"S{_WIDTH}")


class Fingerprints:
    """Hashes of items, in their order."""

    def __init__(self) -> None:
        self._columns = [bytearray() for _ in range(4)]

    def add(self, columns: "pyarrow.Table") -> None:
        """Adds items, given as the columns of a plan."""
        keys, contents, states, failed = self._columns
        lists = {name: columns.column(name).to_pylist() for name in columns.column_names}
        keys += b"".join(map(short_hash, lists.pop("key")))
        has_no_picture = [ref is None for ref in lists["ref"]]
        content = zip(lists.pop("text"), has_no_picture, lists.pop("size"), strict=True)
        hashes = list(map(short_hash, content))
        contents += b"".join(hashes)
        failed += bytes([error is not None for error in lists["error"]])
        states += b"".join(map(short_hash, zip(hashes, *lists.values(), strict=True)))

    def without(self, places: NDArray[np.int64]) -> "Fingerprints":
        """Returns the fingerprints of all but some items."""
        others = Fingerprints()
        others._columns = [
            bytearray(np.delete(column, places).tobytes())
            for column in (self.keys, self.contents, self.states, self.failed)
        ]
        return others

    def __len__(self) -> int:
        return len(self._columns[3])

    @property
    def keys(self) -> Hashes:
        """Hashes of the keys (n,)."""
        return np.frombuffer(self._columns[0], HASH)

    @property
    def contents(self) -> Hashes:
        """Hashes of the texts and sizes (n,). Inputs with different ones differ."""
        return np.frombuffer(self._columns[1], HASH)

    @property
    def states(self) -> Hashes:
        """Hashes of everything but the keys (n,).

        Inputs with one key and equal states are equal, unless a file was changed with equal size
        and time.
        """
        return np.frombuffer(self._columns[2], HASH)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether an input could not be listed, bool (n,)."""
        return np.frombuffer(self._columns[3], np.bool_)


def short_hash(value: Any) -> bytes:
    """Returns a hash of 16 bytes of a value that its `repr` describes."""
    return blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=_WIDTH).digest()


def positions(values: Hashes, among: Hashes) -> NDArray[np.int64]:
    """Returns for each value its index in `among`, whose values are unique, or -1."""
    result = np.full(len(values), -1, np.int64)
    if not len(among):
        return result
    order = np.argsort(among, kind="stable")
    for here in blocks(len(values)):
        found = np.searchsorted(among, values[here], sorter=order)
        found = order[np.minimum(found, len(among) - 1)]
        result[here] = np.where(among[found] == values[here], found, -1)
    return result


def equal_at(values: Hashes, others: Hashes, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns whether each value equals the other at its place; False at the place -1."""
    result = np.zeros(len(values), np.bool_)
    for here in blocks(len(values)) if len(others) else ():
        index = places[here]
        result[here] = (index >= 0) & (values[here] == others[index])
    return result


def blocks(count: int) -> Iterator[slice]:
    """Yields slices of `count` values, so that intermediate results stay small."""
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))
