"""Reads a table of pictures: CSV, TSV, JSON lines or a JSON list."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfclip.data.columns import SAMPLE, Columns, find_columns
from hfclip.data.delimited import Cells, read_delimited
from hfclip.data.json_rows import load_json, read_json_lines, read_json_table
from hfclip.data.records import Choices, Findings, Split
from hfclip.data.rows import Place, Table
from hfclip.errors import DataError

JSON_LINES = (".jsonl", ".ndjson")
TABLE_ENDINGS = frozenset((".csv", ".tsv", *JSON_LINES))


@dataclass(frozen=True)
class LoadedTable:
    """A table with its columns found."""

    path: Path
    cells: Cells
    columns: Columns


def load_table(path: Path, choices: Choices) -> LoadedTable:
    """Reads a table and finds its columns.

    Raises:
        DataError: The file is no table of pictures, or is ambiguous.
        OSError: The file cannot be read.
    """
    cells = _reader(path)(path, choices)
    if not cells.rows:
        reason = f": line {cells.problems[0][0]}, {cells.problems[0][1]}" if cells.problems else ""
        raise DataError(f"{path} has no rows{reason}.")
    sample = [row for _, row in cells.rows[:SAMPLE]]
    return LoadedTable(path, cells, find_columns(cells.names, sample, choices, str(path)))


def add_table(
    table: LoadedTable, name: str, place: Place, split: Split | None, to: Findings
) -> None:
    """Adds the rows of a table to findings.

    Args:
        table: The table.
        name: The name of the table in keys: "table.csv" gives "table.csv:12" for line 12.
        place: The folder of its paths.
        split: The split of all rows if no column gives one.
        to: The findings.
    """
    to.notes.append(f"{table.cells.note}; columns: {table.columns}.")
    for line, reason in table.cells.problems:
        to.skip(f"{name}:{line}", reason)
    rows = ((f"{name}:{line}", cells) for line, cells in table.cells.rows)
    Table(table.columns, place, split).add(rows, to)


def _reader(path: Path) -> Callable[[Path, Choices], Cells]:
    ending = path.suffix.lower()
    if ending in JSON_LINES:
        return lambda path, _: read_json_lines(path)
    if ending == ".json":
        return lambda path, _: _json_list(path)
    return lambda path, choices: read_delimited(path, choices.delimiter)


def _json_list(path: Path) -> Cells:
    rows = load_json(path)
    if not isinstance(rows, list):
        raise DataError(
            f"{path} holds a JSON {type(rows).__name__}; expected a list of objects, or the "
            "captions of COCO (an object with images and annotations)."
        )
    return read_json_table(path, rows)
