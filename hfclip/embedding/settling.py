"""Checks the parts of a remote collection that have no record, or whose record does not fit.

A run that was killed, or a copy of a folder, leaves parts without a record. Storage that loses or
cuts off the last writes leaves records without their part.
"""

import warnings
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING

from hfclip.data.parquet_files import open_parquet
from hfclip.embedding.part_files import part_file, part_name
from hfclip.embedding.parts import COLUMNS
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import Record, read_records, write_record
from hfclip.embedding.stores import Store
from hfclip.errors import DataError

if TYPE_CHECKING:
    import pyarrow

# From this number of parts to read on, a warning says what is done.
_MANY = 20
# Parts that a warning names.
_NAMED = 5


def settle(store: Store, plan: Plan | None) -> None:
    """Records the parts that are whole, and removes the records of others.

    A part without a record is whole if it can be read and has the keys of the plan. A warning names
    the parts that are encoded again. Does nothing for a folder on this machine.

    Args:
        store: The place of the collection.
        plan: Its plan.

    Raises:
        DataError: A request fails, or the plan is damaged.
    """
    if store.folder is not None or plan is None:
        return
    records = read_records(store)  # before the files: a part that is written meanwhile has one
    files = store.files()
    unusable: dict[int, str] = {}
    unrecorded: list[int] = []
    for number in plan.sizes:
        file, found = files.get(part_file(number)), records.get(number, ())
        fitting = [record for record in found if file and record.size == file.size]
        for record in set(found).difference(fitting):
            store.remove(record.name)
        if file is None and found:
            unusable[number] = "it is missing"
        elif file is not None and not fitting:
            unrecorded.append(number)
    unusable |= _checked(store, plan, unrecorded)
    if unusable:
        _warn(store, unusable)


def _checked(store: Store, plan: Plan, numbers: list[int]) -> dict[int, str]:
    """Records the parts that are whole, and returns what is wrong with the others."""
    if len(numbers) >= _MANY:
        warnings.warn(
            f"{len(numbers):,} parts of {store} have no record that they are complete, as in a "
            "copy of a folder. They are read once to check them.",
            stacklevel=4,
        )
    unusable: dict[int, str] = {}
    for number, planned in plan.tables(["row", "key"], numbers):
        try:
            write_record(store, _record(store, number, planned))
        except _UnusableError as error:
            unusable[number] = str(error)
    return unusable


class _UnusableError(Exception):
    """A part is not whole, or is not the planned one."""


def _record(store: Store, number: int, planned: "pyarrow.Table") -> Record:
    """Returns the record of a part.

    Raises:
        _UnusableError: It is not whole, or has other keys than the plan.
        DataError: The request fails.
    """
    name = part_file(number)
    try:
        content = store.read(name)
    except FileNotFoundError as error:
        raise _UnusableError("it is missing") from error
    try:
        with open_parquet(store.path(name), "embed", BytesIO(content)) as file:
            table = file.read(columns=list(COLUMNS), use_threads=False)
            keys, errors = table.column("key"), table.column("error")
    except (DataError, OSError, ValueError, KeyError) as error:
        raise _UnusableError(f"its {len(content):,} bytes are not a whole part") from error
    rows = planned.column("row")
    if rows.to_numpy().max(initial=-1) >= len(keys):
        raise _UnusableError(f"it has {len(keys):,} rows, and the plan has more")
    if not keys.take(rows).combine_chunks().equals(planned.column("key").combine_chunks()):
        raise _UnusableError("it has other keys than the plan")
    failed = len(errors) - errors.null_count
    return Record(number, len(content), len(keys), failed, sha256(content).hexdigest())


def _warn(store: Store, unusable: Mapping[int, str]) -> None:
    named = sorted(unusable.items())
    reasons = "; ".join(f"{part_name(number)}: {reason}" for number, reason in named[:_NAMED])
    more = f"; and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
    warnings.warn(
        f"{len(named):,} parts of {store} are encoded again ({reasons}{more}).", stacklevel=4
    )
