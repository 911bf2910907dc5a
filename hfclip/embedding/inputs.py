"""The inputs of a run: on the disk while the run plans, with their fingerprints in memory."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.fingerprints import Fingerprints
from hfclip.embedding.items import Item, columns_of, item_schema, items_of
from hfclip.embedding.stores import AnyStore, open_store
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_BLOCK = 8_192
_ENDING = ".listing"
# The age from which a listing is the rest of a killed run, in seconds.
_OLD = 86_400


class Inputs:
    """The inputs of a run, each once, in the order of the sources.

    Attributes:
        prints: Their fingerprints.
    """

    def __init__(self, blocks: "list[pyarrow.RecordBatch]", prints: Fingerprints) -> None:
        """Removes repetitions.

        Raises:
            DataError: Two different inputs have one key.
        """
        self._blocks = blocks
        repeated = _repeated(blocks, prints)
        self.prints = prints.without(repeated) if len(repeated) else prints
        self._places = np.delete(np.arange(len(prints)), repeated) if len(repeated) else None

    def __len__(self) -> int:
        return len(self.prints)

    def columns(self, chosen: NDArray[np.int64]) -> "pyarrow.Table":
        """Returns the columns of some inputs, in the given order."""
        return _taken(self._blocks, chosen if self._places is None else self._places[chosen])

    def items(self, chosen: NDArray[np.int64]) -> list[Item]:
        """Returns some inputs, in the given order."""
        return items_of(self.columns(chosen))

    def close(self) -> None:
        """Releases the file of the inputs: Windows removes no file that is mapped."""
        self._blocks = []


@contextmanager
def recorded(out: AnyStore, items: Iterator[Item]) -> Iterator[Inputs]:
    """Lists items into a temporary file, which is mapped and removed at the end.

    Raises:
        DataError: Two different inputs have one key.
        OSError: The file cannot be written.
    """
    with open_store(out).scratch() as folder:
        _remove_old(folder)
        path = folder / f"{uuid.uuid4().hex}{_ENDING}"
        try:
            prints = _write(path, items)
            with _mapped(path, prints) as inputs:
                yield inputs
        finally:
            path.unlink(missing_ok=True)


def _write(path: Path, items: Iterator[Item]) -> Fingerprints:
    import pyarrow  # noqa: PLC0415

    prints = Fingerprints()
    with pyarrow.ipc.new_file(path, item_schema()) as writer:
        while block := list(islice(items, _BLOCK)):
            columns = columns_of(block)
            prints.add(columns)
            for batch in columns.combine_chunks().to_batches():
                writer.write_batch(batch)
    return prints


@contextmanager
def _mapped(path: Path, prints: Fingerprints) -> Iterator[Inputs]:
    import pyarrow  # noqa: PLC0415

    with pyarrow.memory_map(str(path)) as mapped:
        file = pyarrow.ipc.open_file(mapped)
        blocks = [file.get_batch(number) for number in range(file.num_record_batches)]
        inputs = Inputs(blocks, prints)
        del file, blocks
        yield inputs
        inputs.close()


def _repeated(blocks: "list[pyarrow.RecordBatch]", prints: Fingerprints) -> NDArray[np.int64]:
    """Returns the indices of the items that repeat an earlier one.

    Raises:
        DataError: Two different inputs have one key.
    """
    keys, states = prints.keys, prints.states
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    again, first = order[repeated + 1], order[repeated]
    different = np.flatnonzero(states[again] != states[first])
    if len(different):
        key = items_of(_taken(blocks, again[different[:1]]))[0].key
        raise DataError(
            f"{len(different):,} keys belong to more than one input, {key!r} first. Rename the "
            "files, name sources that do not overlap, or choose another key column."
        )
    return again


def _taken(blocks: "list[pyarrow.RecordBatch]", places: NDArray[np.int64]) -> "pyarrow.Table":
    """Returns rows of blocks of equal size, in the given order."""
    import pyarrow  # noqa: PLC0415

    order = np.argsort(places, kind="stable")
    ordered = places[order]
    used, starts = np.unique(ordered // _BLOCK, return_index=True)
    pieces = [
        blocks[block].take(pyarrow.array(rows % _BLOCK))
        for block, rows in zip(used.tolist(), np.split(ordered, starts[1:]), strict=True)
    ]
    table = pyarrow.Table.from_batches(pieces, item_schema())
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return table.take(pyarrow.array(back))


def _remove_old(folder: Path) -> None:
    for path in folder.glob(f"*{_ENDING}"):
        if time.time() - os.path.getmtime(path) > _OLD:  # noqa: PTH204
            path.unlink(missing_ok=True)
