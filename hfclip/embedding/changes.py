"""Compares the inputs of a run with the plan on the disk, and replaces the plan where they differ.

No part is edited: a row whose input is gone or has changed leaves the plan, and the row of a moved
file gets the new key there. What has no row is planned in new parts.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.comparing import Comparison, Recorded, compare, recall
from hfclip.embedding.inputs import recorded
from hfclip.embedding.items import Item
from hfclip.embedding.layout import Layout, next_number, nowhere, replace_plan, with_new_parts
from hfclip.embedding.opening import Opened
from hfclip.embedding.plan import Plan, find_plan
from hfclip.embedding.settling import settle
from hfclip.embedding.stores import AnyStore, open_store
from hfclip.errors import ArgumentError, DataError

# From this number of lost embeddings on, losing most of a collection needs `drop`.
_MANY = 1_000


@dataclass(frozen=True)
class Changes:
    """How the inputs of a run differ from those of the run before.

    Attributes:
        plan: The plan of this run.
        new: The number of inputs with new keys, without moved ones.
        changed: The number of inputs whose content has changed.
        deleted: The number of inputs that are gone.
        moved: The number of inputs that keep the embedding of an input with another key.
        unchanged: The number of inputs that have not changed, encoded or not.
        retried: Those of them that are encoded again, because they could not be read before.
        pending: The numbers of the parts to encode, ascending.
    """

    plan: Plan
    new: int
    changed: int
    deleted: int
    moved: int
    unchanged: int
    retried: int
    pending: tuple[int, ...]


def update_plan(
    out: AnyStore,
    items: Iterator[Item],
    *,
    part_size: int,
    rehash: bool = False,
    retry_errors: bool = False,
    opened: Opened | None = None,
) -> Changes:
    """Makes the plan fit the inputs of this run, and returns what has changed.

    Memory grows by about 150 bytes with each input. If inputs could not be read because of
    `max_pixels`, and it has grown, inputs with errors are encoded again.

    Args:
        out: The place of the collection.
        items: The inputs, in the order of the sources.
        part_size: The number of inputs in a new part.
        rehash: Whether contents are compared also where size and time agree.
        retry_errors: Whether inputs that could not be read are encoded again.
        opened: The collection, opened for writing. None if nobody else can write to it.

    Raises:
        ArgumentError: `part_size` is not positive.
        DataError: Two different inputs have one key, most embeddings would be lost without
            `drop`, the plan or a part is damaged, or another process writes parts although the
            plan has to change.
        OSError: A file cannot be read or written.
    """
    if part_size < 1:
        raise ArgumentError(f"part_size is {part_size}; expected at least 1.")
    out = open_store(out)
    with (
        recorded(out, items) as inputs,
        opened.planning() if opened is not None else nullcontext() as before,
    ):
        plan = find_plan(out)
        settle(out, plan)
        rows = recall(out, plan)
        if opened is not None and before is not None:
            retry_errors |= opened.manifest.max_pixels > before.max_pixels
        found = compare(out, inputs, rows, rehash=rehash, retry_errors=retry_errors)
        gone = _gone(rows, found)
        if opened is not None and not opened.drop:
            _check_lost(out, rows, gone)
        layout = _layout(out, plan, rows, found, part_size)
        plan = replace_plan(out, plan, inputs, layout, opened)
        if opened is not None:
            opened.hold(changes_plan=False)
            opened.record(plan.digest, plan.count)
        return _changes(plan, found, int(gone.sum()))


def _layout(
    out: AnyStore, plan: Plan | None, rows: Recorded, found: Comparison, part_size: int
) -> Layout:
    """Keeps rows and whole planned parts, and divides the other inputs into new parts."""
    parts, places = nowhere(len(found.source))
    kept = found.source >= 0
    parts[kept] = rows.parts[found.source[kept]]
    places[kept] = rows.rows[found.source[kept]]
    planned = ~kept & (found.same_key >= 0)
    planned[planned] = ~rows.complete[found.same_key[planned]]
    stays = np.flatnonzero(planned)
    earlier = found.same_key[stays]
    whole = np.isin(rows.parts[earlier], _whole(rows, earlier))
    parts[stays[whole]] = rows.parts[earlier[whole]]
    places[stays[whole]] = rows.rows[earlier[whole]]
    return with_new_parts(parts, places, next_number(out, plan), part_size)


def _whole(rows: Recorded, still: NDArray[np.int64]) -> NDArray[np.int32]:
    """Returns the planned parts all of whose rows, from 0 on, still have their input."""
    waiting = ~rows.complete
    numbers, counts = np.unique(rows.parts[waiting], return_counts=True)
    present, remaining = np.unique(rows.parts[still], return_counts=True)
    last = np.zeros(len(numbers), np.int64)
    np.maximum.at(last, np.searchsorted(numbers, rows.parts[waiting]), rows.rows[waiting])
    found = np.zeros(len(numbers), np.int64)
    found[np.searchsorted(numbers, present)] = remaining
    whole: NDArray[np.int32] = numbers[(found == counts) & (last + 1 == counts)]
    return whole


def _gone(rows: Recorded, found: Comparison) -> NDArray[np.bool_]:
    """Returns which rows have neither their input nor another one that uses them, bool (m,)."""
    gone = np.ones(len(rows.prints), np.bool_)
    gone[found.same_key[found.same_key >= 0]] = False
    gone[found.source[found.moved]] = False
    return gone


def _check_lost(out: AnyStore, rows: Recorded, gone: NDArray[np.bool_]) -> None:
    """Checks that a collection does not lose most of its embeddings by mistake.

    Raises:
        DataError: More than half of the embeddings, and at least 1,000, would be lost.
    """
    lost, total = int((gone & rows.complete).sum()), int(rows.complete.sum())
    if lost >= _MANY and 2 * lost > total:
        raise DataError(
            f"{lost:,} of the {total:,} embedded inputs of {out} are gone. If a disk is not "
            "mounted or a download is not complete, repair that first. If they were deleted, "
            "remove them from the results with --drop (drop=True in Python)."
        )


def _changes(plan: Plan, found: Comparison, deleted: int) -> Changes:
    known = found.same_key >= 0
    kept = known & (found.source == found.same_key)
    unchanged = int((kept | (known & (found.equal | found.retried) & ~found.moved)).sum())
    return Changes(
        plan,
        new=int((~known & ~found.moved).sum()),
        changed=int((known & ~found.moved).sum()) - unchanged,
        deleted=deleted,
        moved=int(found.moved.sum()),
        unchanged=unchanged,
        retried=int(found.retried.sum()),
        pending=plan.pending,
    )
