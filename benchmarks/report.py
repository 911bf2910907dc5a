"""Turns what was measured into tables, a section of RESULTS.md, and JSON."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import CALM, Result, Sample
from benchmarks.summary import Summary, judge, ratios, summarize

HEADER = """# Measured side by side

Every section is written by the command that it names, from one run on one machine. Trust the
ratios before the seconds. After each median stand the lowest and the highest of the rounds; a
ratio is taken within each round, as the peer's number over that of hfclip in the first row, so
more than 1 is in hfclip's favour. A claim that the spread does not bear out says so.
"""


@dataclass(frozen=True)
class Measure:
    """A number that every sample has, of which less is better.

    Attributes:
        title: What it is.
        unit: What it is counted in.
        value: Computes it from a sample.
        goals: By group and engine, the least multiple of hfclip's that is aimed for.
    """

    title: str
    unit: str
    value: Callable[[Sample], float]
    goals: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """What one command measures and how it is to be read.

    Attributes:
        name: The command's.
        title: The heading in RESULTS.md.
        method: How it was measured, in words.
        baseline: The engine that the others are compared with.
        measures: The tables.
    """

    name: str
    title: str
    method: str
    baseline: str
    measures: Sequence[Measure]


@dataclass(frozen=True)
class Row:
    """One engine's line in one table; without numbers if the engine gave none."""

    measure: str
    unit: str
    group: str
    engine: str
    value: Summary | None
    ratio: Summary | None
    claim: str


@dataclass(frozen=True)
class Run:
    """All that a report needs: what was asked, on what machine, and what came out."""

    section: Section
    command: str
    rounds: int
    results: Sequence[Result]
    machine: Mapping[str, str | int | float]
    packages: Mapping[str, str]
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @property
    def rows(self) -> list[Row]:
        """The lines of all tables, in order."""
        return [row for measure in self.section.measures for row in _rows(self, measure)]


def _rows(run: Run, measure: Measure) -> Iterator[Row]:
    bases = {
        result.case.group: [measure.value(sample) for sample in result.samples]
        for result in run.results
        if result.case.engine == run.section.baseline
    }
    for result in run.results:
        group, engine = result.case.group, result.case.engine
        values = [measure.value(sample) for sample in result.samples]
        base = bases.get(group, []) if engine != run.section.baseline else []
        times = ratios(values, base) if values and base and min(base) > 0 else []
        yield Row(
            measure.title,
            measure.unit,
            group,
            engine,
            summarize(values) if values else None,
            summarize(times) if times else None,
            judge(times, measure.goals.get((group, engine))) if times else result.absence,
        )


def text(run: Run) -> str:
    """The tables for a terminal."""
    return "\n".join(
        f"{title}\n{_aligned(lines)}" for title, lines in _tables(run.rows, run.section.baseline)
    )


def markdown(run: Run) -> str:
    """The section of RESULTS.md."""
    facts = run.machine
    parts = [
        f"## {run.section.title}",
        f"`{run.command}`, {run.date}, {run.rounds} rounds, on {facts['cpu']}, "
        f"{facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, "
        f"Python {facts['python']}; {_neighbours(run.results)}; "
        + ", ".join(f"{name} {version}" for name, version in run.packages.items())
        + ".",
        run.section.method,
    ]
    for title, lines in _tables(run.rows, run.section.baseline):
        parts += [f"### {title}", _piped(lines)]
    return "\n\n".join(parts)


def _neighbours(results: Sequence[Result]) -> str:
    shares = [share for result in results for share in result.others]
    if not shares:
        return "what other programs took of the cores is not known"
    disturbed = sum(share > CALM for share in shares)
    return (
        f"other programs had {statistics.fmean(shares):.0%} of the cores' time, "
        f"and more than {CALM:.0%} in {disturbed} of {len(shares)} runs"
    )


def to_json(run: Run) -> dict[str, Any]:
    """Everything, each round's laps included."""
    return {
        "section": run.section.name,
        "command": run.command,
        "date": run.date,
        "rounds": run.rounds,
        "machine": dict(run.machine),
        "packages": dict(run.packages),
        "rows": [_row_json(row) for row in run.rows],
        "results": [asdict(result) for result in run.results],
    }


def _row_json(row: Row) -> dict[str, Any]:
    numbers = {
        "value": row.value._asdict() if row.value else None,
        "ratio": row.ratio._asdict() if row.ratio else None,
    }
    return {**asdict(row), **numbers}


def _tables(rows: Sequence[Row], baseline: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Each measure's title and the cells of its table, the heads first."""
    for title in dict.fromkeys(row.measure for row in rows):
        own = [row for row in rows if row.measure == title]
        heads = ["model", "engine", own[0].unit, "lowest to highest", f"times {baseline}", "claim"]
        yield title, [heads, *(_cells(row) for row in own)]


def _cells(row: Row) -> list[str]:
    value, ratio = row.value, row.ratio
    return [
        row.group,
        row.engine,
        number(value.median) if value else "-",
        _span(value) if value else "-",
        f"{number(ratio.median)} x ({_span(ratio)})" if ratio else "-",
        row.claim,
    ]


def _span(summary: Summary) -> str:
    return f"{number(summary.low)} to {number(summary.high)}"


def number(value: float) -> str:
    """Three digits that count, or all of a whole number's, thousands marked."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded) + "\n"


def _piped(lines: list[list[str]]) -> str:
    heads, *rest = lines
    rule = ["---", "---", "---:", "---:", "---:", "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *rest])


def insert(document: str, name: str, body: str) -> str:
    """Puts a section between its markers, at the end if the document has none of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{body}\n{end}"
    before, found, rest = document.partition(begin)
    if not found:
        return f"{document.rstrip()}\n\n{section}\n"
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"{begin} has no {end}; restore it or remove the section.")
    return f"{before}{section}{after}"


def check(path: Path, section: Section) -> None:
    """Sees to it that a section will find its place, before minutes are spent on it.

    Raises:
        ValueError: The file's markers are damaged.
    """
    insert(_read(path), section.name, "")


def write_markdown(path: Path, run: Run) -> None:
    """Renews this run's section of a file and leaves the others as they are."""
    _write(path, insert(_read(path), run.section.name, markdown(run)))


def write_json(path: Path, run: Run) -> None:
    """Writes the run as one JSON object."""
    _write(path, json.dumps(to_json(run), indent=2) + "\n")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else HEADER


def _write(path: Path, content: str) -> None:
    """All or nothing: a broken-off write leaves what was there before."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
