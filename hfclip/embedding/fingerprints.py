"""Fingerprints of items: what a comparison of a million inputs keeps in memory, 49 bytes each."""

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow

Hashes: TypeAlias = NDArray[np.bytes_]
_WIDTH = 16
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
    if not len(among):
        return np.full(len(values), -1, np.int64)
    order = np.argsort(among, kind="stable")
    found = np.searchsorted(among, values, sorter=order)
    found = order[np.minimum(found, len(among) - 1)]
    found[among[found] != values] = -1
    return found
