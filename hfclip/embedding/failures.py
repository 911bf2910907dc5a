"""Counts the rows of a collection, and lists those without an embedding in errors.csv."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hfclip.embedding.parts import complete_parts, part_path, read_table, write_synced
from hfclip.embedding.plan import Plan

NAME = "errors.csv"


@dataclass(frozen=True)
class Counts:
    """The numbers of inputs.

    Attributes:
        inputs: All inputs of the plan.
        embedded: Those with an embedding.
        errors: Those that could not be read.
        pending: Those that are not encoded yet.
        errors_file: The table of the errors, or None if there are none.
    """

    inputs: int
    embedded: int
    errors: int
    pending: int
    errors_file: Path | None


def write_errors(out: Path) -> Counts:
    """Writes errors.csv with the key and the error of each live row without an embedding.

    The file is removed if there are no such rows. Rows are read part by part.

    Raises:
        DataError: The folder has no plan, or the plan or a part is damaged.
        OSError: A file cannot be read or written.
    """
    plan = Plan(out)
    path = out / NAME
    pending = sum(plan.sizes[number] for number in plan.pending)
    errors = sum(1 for _ in failed_rows(out, plan))
    if errors:
        write_synced(path, lambda temporary: _write(temporary, failed_rows(out, plan)))
    else:
        path.unlink(missing_ok=True)
    return Counts(
        inputs=plan.count,
        embedded=plan.count - pending - errors,
        errors=errors,
        pending=pending,
        errors_file=path if errors else None,
    )


def _write(path: Path, rows: Iterator[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key", "error"))
        writer.writerows(rows)


def failed_rows(out: Path, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yields the key and the error of each live row without an embedding."""
    complete = set(complete_parts(out))
    for number, table in plan.tables(["row", "key"]):
        if number not in complete:
            continue
        errors = read_table(part_path(out, number), ["error"]).column("error")
        if errors.null_count == len(errors):
            continue
        live = errors.take(table.column("row"))
        failed = live.is_valid()
        keys = table.column("key").filter(failed).to_pylist()
        yield from zip(keys, live.filter(failed).to_pylist(), strict=True)
