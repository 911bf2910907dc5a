"""Reads and writes results.json: the newest run of each section for each processor family."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import family
from benchmarks.report import Others, Record, Row, count_others
from benchmarks.summary import Summary

# By section, then by processor family.
Records = dict[str, dict[str, Record]]
_DIGITS = 6
# Sections, families, records and the lists in them have a line for each entry; a row has one line.
_NESTED = 4


def read(path: Path) -> Records:
    """Reads the newest runs. Converts the older format, which had one run for each section.

    Returns:
        The runs by section and processor family; empty if there is no such file.

    Raises:
        ValueError: The file has another format.
    """
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    try:
        return {name: _families(entry) for name, entry in found.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no runs by section and processor family; move it away, or give another "
            "file."
        ) from error


def add(records: Records, section: str, record: Record) -> Records:
    """Returns the records with one more. It replaces the run of the same processor family."""
    own = {**records.get(section, {}), family(str(record.machine["cpu"])): record}
    return {**records, section: own}


def write(path: Path, records: Records) -> None:
    """Writes the runs as JSON, one line for each row."""
    content = {
        section: {name: _to_json(record) for name, record in families.items()}
        for section, families in records.items()
    }
    write_whole(path, _indented(content, _NESTED) + "\n")


def _families(entry: Mapping[str, Any]) -> dict[str, Record]:
    if "section" in entry:
        return {family(entry["machine"]["cpu"]): _migrated(entry)}
    return {name: _from_json(record) for name, record in entry.items()}


def _migrated(entry: Mapping[str, Any]) -> Record:
    """Converts a run of the older format, which held the laps of each round."""
    shares = [share for result in entry["results"] for share in result["others"]]
    others = count_others(shares)
    return _from_json({**entry, "others": others._asdict() if others else None})


def _from_json(record: Mapping[str, Any]) -> Record:
    return Record(
        record["command"],
        record["date"],
        record["rounds"],
        record["machine"],
        record["packages"],
        Others(**record["others"]) if record["others"] else None,
        [_row(row) for row in record["rows"]],
    )


def _row(row: Mapping[str, Any]) -> Row:
    value, ratio = (Summary(**row[key]) if row[key] else None for key in ("value", "ratio"))
    return Row(**{**row, "value": value, "ratio": ratio})


def _to_json(record: Record) -> dict[str, Any]:
    rows = [
        {**asdict(row), "value": _rounded(row.value), "ratio": _rounded(row.ratio)}
        for row in record.rows
    ]
    return {**asdict(record), "others": _rounded(record.others), "rows": rows}


def _rounded(numbers: Summary | Others | None) -> dict[str, float] | None:
    if numbers is None:
        return None
    return {name: _round(value) for name, value in numbers._asdict().items()}


def _round(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _indented(value: Any, nested: int, indent: str = "") -> str:
    """Formats JSON with a line for each entry of the outer `nested` levels."""
    if not nested or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    inner = f"{indent} "
    if isinstance(value, dict):
        ends = "{}"
        lines = [f"{json.dumps(k)}: {_indented(v, nested - 1, inner)}" for k, v in value.items()]
    else:
        ends = "[]"
        lines = [_indented(entry, nested - 1, inner) for entry in value]
    return f"{ends[0]}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{ends[1]}"


def write_whole(path: Path, content: str) -> None:
    """Writes a file completely or leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
