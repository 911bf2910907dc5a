"""Records of the parts that are complete, for collections on remote storage.

A file that is copied there, or on a file system that orders writes as it likes, may have its name
before it is whole. So a record is written after each part:

    .hfclip/complete/part-00003.10242048.5000.2.SHA256    size in bytes, rows, errors and sha256

The facts are in the name, so that one listing gives those of all parts. A folder on this machine
needs no records: its parts are synced to the disk before they are renamed.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hfclip.embedding.stores import HIDDEN, Store

FOLDER = f"{HIDDEN}/complete"
_NAME = re.compile(r"part-(\d{5,9})\.(\d+)\.(\d+)\.(\d+)\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Record:
    """What is known about a part that was written.

    Attributes:
        number: The number of the part.
        size: Its size in bytes.
        rows: The number of its rows.
        errors: The number of rows without an embedding.
        sha256: The sha256 of the file.
    """

    number: int
    size: int
    rows: int
    errors: int
    sha256: str

    @property
    def name(self) -> str:
        """The name of the record's file in the collection."""
        facts = f"{self.size}.{self.rows}.{self.errors}.{self.sha256}"
        return f"{FOLDER}/part-{self.number:05d}.{facts}"


def facts_of(records: Sequence[Record]) -> Record | None:
    """Returns the facts of a part, or None if they are not known.

    Two processes that wrote the same part may have found different errors.
    """
    return records[0] if len(records) == 1 else None


def write_record(store: Store, record: Record) -> None:
    """Writes the record of a part that is whole. Call it after the part is written.

    Raises:
        DataError: A request fails.
    """
    store.write_text(record.name, json.dumps(asdict(record)) + "\n")


def read_records(store: Store) -> dict[int, tuple[Record, ...]]:
    """Returns all records by the number of their part.

    A part has several if two processes have written it.

    Raises:
        DataError: A request fails.
    """
    found: dict[int, tuple[Record, ...]] = {}
    for name in store.names(FOLDER):
        if match := _NAME.fullmatch(name):
            number, size, rows, errors = map(int, match.groups()[:4])
            record = Record(number, size, rows, errors, match[5])
            found[number] = (*found.get(number, ()), record)
    return found
