"""Names the files of parts, says which parts are complete, and removes files without use."""

import re
from collections.abc import Container, Sequence

from hfclip.embedding.records import Record, read_records
from hfclip.embedding.stores import HIDDEN, AnyStore, open_store

_CONTENT = f"{HIDDEN}/content"
_NAME = re.compile(r"part-(\d{5,9})\.(parquet|sha256)")
_LEFTOVER = ".part-*.part"


def part_name(number: int) -> str:
    """Returns the name of a part without its ending, such as "part-00003"."""
    return f"part-{number:05d}"


def part_file(number: int) -> str:
    """Returns the name of the file of a part."""
    return f"{part_name(number)}.parquet"


def digest_file(number: int) -> str:
    """Returns the name of the file with the digests of a part."""
    return f"{_CONTENT}/{part_name(number)}.sha256"


def named_parts(out: AnyStore) -> list[int]:
    """Returns the numbers of the parts that have a file, whole or not, ascending."""
    return _numbers(open_store(out).names(), "parquet")


def is_written(out: AnyStore, number: int) -> bool:
    """Returns whether a part has got its file since the plan was read, so that it can be left out.

    On remote storage it is always False: the file may not be whole, and to encode a part twice does
    no harm.
    """
    store = open_store(out)
    return store.folder is not None and store.exists(part_file(number))


def complete_parts(out: AnyStore) -> list[int]:
    """Returns the numbers of the parts that are complete, ascending."""
    return list(recorded_parts(out))


def recorded_parts(out: AnyStore) -> dict[int, tuple[Record, ...]]:
    """Returns the parts that are complete, ascending, with the records that fit their files.

    In a folder on this machine, each part with a file is complete, and there are no records. On
    remote storage a part is complete if its file has the size in a record.

    Raises:
        DataError: A request fails.
        OSError: The folder cannot be listed.
    """
    store = open_store(out)
    if store.folder is not None:
        return dict.fromkeys(named_parts(store), ())
    # Before the parts: a part that is written meanwhile may lack a record, not the reverse.
    records = read_records(store)
    files = store.files()
    found = {}
    for number, candidates in sorted(records.items()):
        file = files.get(part_file(number))
        fitting = tuple(record for record in candidates if file and record.size == file.size)
        if fitting:
            found[number] = fitting
    return found


def _numbers(names: Sequence[str], ending: str) -> list[int]:
    found = [_NAME.fullmatch(name) for name in names]
    return sorted(int(match[1]) for match in found if match is not None and match[2] == ending)


def remove_leftovers(out: AnyStore) -> None:
    """Removes the temporary files of parts that a killed run left in a folder on this machine.

    Call it only while nobody else writes to the collection.
    """
    place = open_store(out).folder
    if place is None:  # an upload shows no file before it is complete
        return
    for folder in (place, place / _CONTENT):
        for path in folder.glob(_LEFTOVER):
            path.unlink(missing_ok=True)


def remove_unplanned(out: AnyStore, planned: Container[int]) -> None:
    """Removes the parts with other numbers, with their digests and records.

    They are parts without a live row, and parts of a `compact` that was killed. Call it only while
    nobody else writes to the collection.

    Args:
        out: The place of the collection.
        planned: The numbers of the parts of the plan.
    """
    store = open_store(out)
    for number in named_parts(store):
        if number not in planned:
            store.remove(part_file(number))
    for number in _numbers(store.names(_CONTENT), "sha256"):
        if number not in planned:
            store.remove(digest_file(number))
    if store.folder is None:
        for number, records in read_records(store).items():
            for record in records if number not in planned else ():
                store.remove(record.name)
