"""Limits and lists the pictures and rows that are not used."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hfclip.atomic import write_text
from hfclip.data.records import Skipped
from hfclip.errors import DataError

_NAMED = 3


def check_skipped(skipped: Sequence[Skipped], used: int, most: float, source: str) -> None:
    """Raises an error if too much of the data cannot be used.

    Args:
        skipped: The pictures and rows that are skipped.
        used: The number of the others.
        most: The largest share that may be skipped.
        source: The name of the data.

    Raises:
        DataError: More is skipped, or nothing is left.
    """
    total = len(skipped) + used
    if used and len(skipped) <= most * total:
        return
    if not total:
        raise DataError(f"{source} holds no pictures.")
    examples = "; ".join(f"{item.key}: {item.reason}" for item in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    remedy = (
        f"At most {most:.0%} may be skipped. Correct them, or raise max_skipped (--max-skipped)."
        if used
        else "Nothing is left."
    )
    raise DataError(
        f"{source}: {len(skipped):,} of {total:,} pictures or rows cannot be used: {examples}"
        f"{more}. {remedy}"
    )


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Writes the skipped pictures and rows as CSV, whole or not at all: key, reason.

    Raises:
        OSError: The file cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("key", "reason"))
    writer.writerows((_printable(item.key), _printable(item.reason)) for item in skipped)
    write_text(path, table.getvalue())


def _printable(text: str) -> str:
    """Replaces what UTF-8 cannot encode, such as the bytes of a file name in another encoding."""
    return text.encode("utf-8", "backslashreplace").decode()
