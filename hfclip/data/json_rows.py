"""Reads JSON lines, and JSON files that hold a list of objects."""

import json
from pathlib import Path
from typing import Any

from hfclip.data.delimited import Cells
from hfclip.errors import DataError


def read_json_lines(path: Path) -> Cells:
    """Reads a file with a JSON object per line, in UTF-8 with or without a byte order mark.

    Raises:
        OSError: The file cannot be read.
    """
    # Not splitlines, which also splits at characters that JSON allows in a string.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    table = Cells((), note=f"{path.name}: a JSON object per line")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode(), parse_constant=_missing)
        except (ValueError, RecursionError):
            table.problems.append((number, "the line is not JSON in UTF-8"))
            continue
        _add(table, number, row)
    return _with_names(table)


def read_json_table(path: Path, rows: list[Any]) -> Cells:
    """Takes the rows of a JSON file that holds a list. Rows are counted from 1."""
    table = Cells((), note=f"{path.name}: a JSON list of objects")
    for number, row in enumerate(rows, 1):
        _add(table, number, row)
    return _with_names(table)


def load_json(path: Path) -> Any:
    """Reads a JSON file in UTF-8 with or without a byte order mark.

    Raises:
        DataError: The file is not JSON.
        OSError: The file cannot be read.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_missing)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON in UTF-8 ({error}).") from None


def _add(table: Cells, number: int, row: Any) -> None:
    if isinstance(row, dict):
        table.rows.append((number, row))
    else:
        table.problems.append((number, f"the row is a {type(row).__name__}; expected an object"))


def _with_names(table: Cells) -> Cells:
    table.names = tuple(dict.fromkeys(name for _, row in table.rows for name in row))
    return table


def _missing(_: str) -> None:
    """Reads NaN, which is not JSON but is written for a missing value, as null."""
