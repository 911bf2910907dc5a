"""Gives each input its place in a part, and writes the plan that says so."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.fingerprints import blocks
from hfclip.embedding.inputs import Inputs
from hfclip.embedding.opening import Opened
from hfclip.embedding.part_files import named_parts, remove_unplanned
from hfclip.embedding.plan import Plan, write_plan
from hfclip.embedding.stores import AnyStore

if TYPE_CHECKING:
    import pyarrow

_NO_PART = -1


@dataclass(frozen=True)
class Layout:
    """The places of inputs.

    Attributes:
        parts: The number of each input's part, int32 (n,).
        rows: Its row in the part, int32 (n,).
        next_number: The number of the next new part.
    """

    parts: NDArray[np.int32]
    rows: NDArray[np.int32]
    next_number: int


def next_number(out: AnyStore, plan: Plan | None) -> int:
    """Returns the number of the next new part."""
    # A `compact` that was killed leaves parts that no plan has named.
    return max([plan.next_number if plan else 0, *(n + 1 for n in named_parts(out))])


def nowhere(count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns parts and rows of inputs that have no place yet, for `with_new_parts`."""
    return np.full(count, _NO_PART, np.int32), np.zeros(count, np.int32)


def with_new_parts(
    parts: NDArray[np.int32], rows: NDArray[np.int32], first: int, size: int
) -> Layout:
    """Divides the inputs that have no place into parts of `size` rows, from the number `first`."""
    rest = np.flatnonzero(parts == _NO_PART)
    index = np.arange(len(rest))
    parts[rest] = first + index // size
    rows[rest] = index % size
    return Layout(parts, rows, first + -(-len(rest) // size))


def replace_plan(
    out: AnyStore, plan: Plan | None, inputs: Inputs, layout: Layout, opened: Opened | None
) -> Plan:
    """Writes a plan if it differs from the one on the disk, and removes parts that it lacks.

    Args:
        out: The place of the collection.
        plan: The plan on the disk.
        inputs: The inputs.
        layout: Their places.
        opened: The collection, opened for writing. None if nobody else can write to it.

    Raises:
        DataError: Another process writes parts.
        OSError: The plan cannot be written.
    """
    order = np.lexsort((layout.rows, layout.parts))
    digest = _digest(inputs, layout, order)
    is_new = plan is None or plan.digest != digest
    if plan is None or is_new:
        if opened is not None:
            opened.hold(changes_plan=True)
        tables = _tables(inputs, layout, order)
        plan = write_plan(out, tables, digest, layout.next_number)
    if is_new or opened is None or not opened.shared:  # nobody else writes
        remove_unplanned(out, plan.sizes)
    return plan


def _digest(inputs: Inputs, layout: Layout, order: NDArray[np.int64]) -> str:
    """Returns the sha256 of all places, keys and states, in the order of the plan."""
    digest = sha256()
    for values in (layout.parts, layout.rows, inputs.prints.keys, inputs.prints.states):
        for here in blocks(len(order)):
            digest.update(values[order[here]].tobytes())
    return digest.hexdigest()


def _tables(
    inputs: Inputs, layout: Layout, order: NDArray[np.int64]
) -> "Iterator[tuple[int, pyarrow.Table]]":
    """Yields the number and the columns of each part."""
    import pyarrow  # noqa: PLC0415

    numbers, starts = np.unique(layout.parts[order], return_index=True)
    for number, chosen in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
        rows = pyarrow.array(layout.rows[chosen])
        yield number, inputs.columns(chosen).append_column("row", rows)
