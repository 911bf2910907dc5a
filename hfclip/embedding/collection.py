"""Compares a plan with the parts on the disk: what to encode, what to reuse, what is gone.

Rows that are gone or changed are removed by rewriting their part, which is written whole or not at
all. A run that is killed in between leaves parts that the next run compares again.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hfclip.embedding.items import Item
from hfclip.embedding.parts import ENDING, Rows, read_part, write_part
from hfclip.embedding.plan import PartPlan, Plan, divided
from hfclip.errors import DataError


@dataclass(frozen=True)
class Difference:
    """What a run has to do.

    Attributes:
        encode: The parts to encode.
        reused: The keys whose rows stay, among them the new keys of moved files.
        gone: The keys whose rows are removed, because the input is gone or has changed.
        kept: For each part with rows to remove or rename: the row index and the item that stays.
    """

    encode: tuple[PartPlan, ...]
    reused: frozenset[str]
    gone: frozenset[str]
    kept: dict[str, tuple[tuple[int, Item], ...]]


def complete_parts(out: Path) -> dict[str, Path]:
    """Returns the complete parts of a collection by name, sorted."""
    return {path.stem: path for path in sorted(out.glob(f"part-*{ENDING}"))}


def difference(
    out: Path, plan: Plan, *, rehash: bool = False, part_size: int = 5_000
) -> Difference:
    """Compares a plan with the complete parts. Changes nothing.

    Args:
        out: The folder of the collection.
        plan: The plan of this run.
        rehash: Whether files are compared by content instead of by size and time.
        part_size: The number of inputs in a new part.
    """
    wanted = {item.key: item for part in plan.parts for item in part.items}
    loose: dict[tuple[str, str | None], list[tuple[str, int, str]]] = {}
    sizes: set[int | None] = set()
    kept: dict[str, list[tuple[int, Item]]] = {}
    altered: set[str] = set()
    parts = complete_parts(out)
    gone: set[str] = set()
    for name, path in parts.items():
        rows = read_part(path)
        kept[name] = []
        for row, key in enumerate(rows.keys):
            item = wanted.get(key)
            if item is not None and _is_same(item, rows, row, rehash):
                kept[name].append((row, wanted.pop(key)))
                if item.mtime_ns != rows.mtimes[row]:
                    altered.add(name)
                continue
            altered.add(name)
            gone.add(key)
            digest = rows.digests[row]
            if digest is not None:
                loose.setdefault((digest, rows.captions[row]), []).append((name, row, key))
                sizes.add(rows.sizes[row])
    for item in list(wanted.values()):
        found = loose.get((_digest(item), item.text)) if item.size in sizes else None
        if found:
            name, row, _ = found.pop()
            kept[name].append((row, wanted.pop(item.key)))
    reused = {item.key for entries in kept.values() for _, item in entries}
    return Difference(
        _to_encode(plan, wanted, set(parts), part_size),
        frozenset(reused),
        frozenset(gone),
        {name: tuple(sorted(kept[name], key=lambda entry: entry[0])) for name in altered},
    )


def apply(
    out: Path, found: Difference, *, dtype: Literal["float16", "float32"], dimension: int
) -> None:
    """Removes the rows that are gone and renames those of moved files, part by part."""
    parts = complete_parts(out)
    for name, entries in found.kept.items():
        if not entries:
            parts[name].unlink()
            continue
        rows = read_part(parts[name]).take([row for row, _ in entries])
        items = [item for _, item in entries]
        rows = replace(
            rows, keys=[item.key for item in items], mtimes=[item.mtime_ns for item in items]
        )
        write_part(out, name, rows, dtype=dtype, dimension=dimension)


def _to_encode(
    plan: Plan, wanted: dict[str, Item], names: set[str], size: int
) -> tuple[PartPlan, ...]:
    """Keeps the planned parts that are wholly new, and divides the other inputs into new parts."""
    whole, rest = [], []
    for part in plan.parts:
        items = [item for item in part.items if item.key in wanted]
        if len(items) == len(part.items) and part.name not in names:
            whole.append(part)
        else:
            rest += items
    numbers = [int(name.removeprefix("part-")) for name in names | {p.name for p in plan.parts}]
    return (*whole, *divided(rest, max(numbers, default=-1) + 1, size))


def _is_same(item: Item, rows: Rows, row: int, rehash: bool) -> bool:
    if item.text != rows.captions[row] or item.size != rows.sizes[row]:
        return False
    if rehash and rows.digests[row] is not None:
        return _digest(item) == rows.digests[row]
    return item.mtime_ns == rows.mtimes[row]


def _digest(item: Item) -> str | None:
    try:
        return hashlib.sha256(item.content()).hexdigest()
    except (OSError, DataError):
        return None
