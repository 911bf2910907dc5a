"""Counts the rows of a collection, and lists those without an embedding in errors.csv."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hfclip.embedding.part_files import recorded_parts
from hfclip.embedding.parts import read_table
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import facts_of
from hfclip.embedding.stores import AnyStore, Store, open_store

NAME = "errors.csv"


@dataclass(frozen=True)
class Counts:
    """The numbers of inputs.

    Attributes:
        inputs: All inputs of the plan.
        embedded: Those with an embedding.
        errors: Those that could not be read.
        pending: Those that are not encoded yet.
        errors_file: The path or URL of the table of the errors, or None if there are none.
    """

    inputs: int
    embedded: int
    errors: int
    pending: int
    errors_file: str | None


def write_errors(out: AnyStore) -> Counts:
    """Writes errors.csv with the key and the error of each live row without an embedding.

    The file is removed if there are no such rows. Rows are read part by part.

    Raises:
        DataError: The folder has no plan, or the plan or a part is damaged.
        OSError: A file cannot be read or written.
    """
    store = open_store(out)
    plan = Plan(store)
    pending = sum(plan.sizes[number] for number in plan.pending)
    errors = sum(1 for _ in failed_rows(store, plan))
    if errors:
        store.write(NAME, lambda temporary: _write(temporary, failed_rows(store, plan)))
    else:
        store.remove(NAME)
    return Counts(
        inputs=plan.count,
        embedded=plan.count - pending - errors,
        errors=errors,
        pending=pending,
        errors_file=store.path(NAME) if errors else None,
    )


def _write(path: Path, rows: Iterator[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key", "error"))
        writer.writerows(rows)


def failed_rows(store: Store, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yields the key and the error of each live row without an embedding."""
    complete = recorded_parts(store)
    for number, table in plan.tables(["row", "key"]):
        if number not in complete:
            continue
        facts = facts_of(complete[number])
        if facts is not None and not facts.errors:
            continue
        errors = read_table(store, number, ["error"], complete[number]).column("error")
        if errors.null_count == len(errors):
            continue
        live = errors.take(table.column("row"))
        failed = live.is_valid()
        keys = table.column("key").filter(failed).to_pylist()
        yield from zip(keys, live.filter(failed).to_pylist(), strict=True)
