"""Rewrites parts so that they hold exactly the live rows, with their present keys."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hfclip.embedding.inputs import recorded
from hfclip.embedding.items import Item
from hfclip.embedding.layout import next_number, nowhere, replace_plan, with_new_parts
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.opening import Opened, opened
from hfclip.embedding.part_files import complete_parts, recorded_parts, remove_unplanned
from hfclip.embedding.parts import Rows, joined, read_part, read_table, write_part
from hfclip.embedding.plan import Plan, PlannedPart
from hfclip.embedding.records import facts_of
from hfclip.embedding.settling import settle
from hfclip.embedding.stores import AnyStore, Store, open_store
from hfclip.errors import ArgumentError


@dataclass(frozen=True)
class Compaction:
    """What `compact` has done.

    Attributes:
        rows: The number of rows in the parts now.
        removed: The number of dead rows that were removed.
        rewritten: The number of parts that were rewritten.
        parts: The number of parts now.
    """

    rows: int
    removed: int
    rewritten: int
    parts: int


def compact(out: AnyStore, *, part_size: int) -> Compaction:
    """Rewrites the parts that hold dead rows or old keys, and joins small ones.

    Parts of at least half of `part_size` without such rows stay. The new parts are written first,
    then the plan is replaced, then the old parts are removed, so a run that is killed leaves a
    valid collection, and the next run removes what it left.

    Args:
        out: The place of the collection.
        part_size: The number of rows in a new part.

    Raises:
        ArgumentError: `part_size` is not positive.
        DataError: The folder is no collection, is damaged, or another process writes to it.
        OSError: A file cannot be read or written.
    """
    if part_size < 1:
        raise ArgumentError(f"part_size is {part_size}; expected at least 1.")
    out = open_store(out)
    with opened(out, read_manifest(out)) as collection:
        plan = Plan(out)
        settle(out, plan)
        remove_unplanned(out, plan.sizes)
        before = _count(out)
        rewritten = _to_rewrite(out, plan, part_size)
        if rewritten:
            plan = _rewrite(collection, plan, rewritten, part_size)
        return Compaction(
            rows=sum(plan.sizes[number] for number in complete_parts(out)),
            removed=before - _count(out),
            rewritten=len(rewritten),
            parts=len(complete_parts(out)),
        )


def _count(store: Store) -> int:
    count = 0
    for number, records in recorded_parts(store).items():
        facts = facts_of(records)
        count += facts.rows if facts else read_table(store, number, ["error"], records).num_rows
    return count


def _to_rewrite(store: Store, plan: Plan, part_size: int) -> set[int]:
    """Returns the numbers of the parts to rewrite: those with dead rows or old keys, and small."""
    complete = recorded_parts(store)
    stale, small = set(), set()
    for number, table in plan.tables(["row", "key"]):
        if number not in complete:
            continue
        keys = read_table(store, number, ["key"], complete[number]).column("key")
        rows = table.column("row").to_numpy()
        if not np.array_equal(rows, np.arange(len(keys))) or not keys.equals(table.column("key")):
            stale.add(number)
        elif 2 * len(keys) < part_size:
            small.add(number)
    return stale | small if stale or len(small) > 1 else set()


def _rewrite(collection: Opened, plan: Plan, chosen: set[int], part_size: int) -> Plan:
    out, first = collection.out, next_number(collection.out, plan)
    manifest = collection.manifest
    for number, rows in enumerate(_divided(_live_rows(out, plan, chosen), part_size), first):
        write_part(out, number, rows, dtype=manifest.dtype, dimension=manifest.dimension)
    with recorded(out, _items(plan)) as inputs, collection.planning():
        parts, rows_ = nowhere(len(inputs))
        start = 0
        for part, table in plan.tables(["row"]):
            here = slice(start, start + table.num_rows)
            if part not in chosen:
                parts[here], rows_[here] = part, table.column("row").to_numpy()
            start += table.num_rows
        layout = with_new_parts(parts, rows_, first, part_size)
        plan = replace_plan(out, plan, inputs, layout, collection)
        collection.record(plan.digest, plan.count)
    return plan


def _items(plan: Plan) -> Iterator[Item]:
    for part in plan.parts():
        yield from part.items


def _live_rows(store: Store, plan: Plan, chosen: set[int]) -> Iterator[Rows]:
    records = recorded_parts(store)
    for part in plan.parts():
        if part.number in chosen:
            yield _present(read_part(store, part.number, records[part.number]), part)


def _present(rows: Rows, part: PlannedPart) -> Rows:
    """Returns the live rows of a part with their present keys."""
    return replace(rows.take(part.rows), keys=[item.key for item in part.items])


def _divided(blocks: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Joins and divides rows into blocks of `size` rows; the last one may be shorter."""
    waiting: Rows | None = None
    for block in blocks:
        waiting = block if waiting is None else joined([waiting, block])
        while len(waiting) >= size:
            yield waiting.take(range(size))
            waiting = waiting.take(range(size, len(waiting)))
    if waiting is not None and len(waiting):
        yield waiting
