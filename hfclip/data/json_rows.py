"""Reads JSON lines, and JSON files that hold a list of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hfclip.data.delimited import Cells
from hfclip.errors import DataError


def read_json_lines(path: Path) -> Cells:
    """Reads a file with a JSON object per line, in UTF-8 with or without a byte order mark.

    Raises:
        OSError: The file cannot be read.
    """
    table = Cells((), note=f"{path.name}: a JSON object per line")
    with path.open("rb") as file:
        for number, row in json_lines(file):
            if isinstance(row, str):
                table.problems.append((number, row))
            else:
                table.rows.append((number, row))
    return _with_names(table)


def json_lines(file: IO[bytes]) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Yields the number of each line that is not blank, and its object or why it has none."""
    # Binary files are split at b"\n" only, so not at other characters that JSON allows in a string.
    for number, line in enumerate(file, 1):
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not content.strip():
            continue
        try:
            row = json.loads(content.decode(), parse_constant=_missing)
        except (ValueError, RecursionError):
            yield number, "the line is not JSON in UTF-8"
            continue
        yield number, row if isinstance(row, dict) else _no_object(row)


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
        table.problems.append((number, _no_object(row)))


def _no_object(row: Any) -> str:
    return f"the row is a {type(row).__name__}; expected an object"


def _with_names(table: Cells) -> Cells:
    table.names = tuple(dict.fromkeys(name for _, row in table.rows for name in row))
    return table


def _missing(_: str) -> None:
    """Reads NaN, which is not JSON but is written for a missing value, as null."""
