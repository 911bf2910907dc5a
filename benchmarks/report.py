"""Turns what was measured into tables, a section of RESULTS.md, and JSON."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import CALM, Result, Sample
from benchmarks.summary import Summary, judge, judge_bounds, ratios, summarize

HEADER = """# Measured side by side

Every section is written by the command that it names, from one run on one machine. Trust the
ratios before the seconds. After each median stand the lowest and the highest of the rounds; a
ratio is taken within each round, between the engine and the one that its column names, so that more
than 1 is in hfclip's favour: a cost is so many times that of hfclip, or hfclip does so many times
as much. A claim is met if every round bears it out; one that falls short says by how much, and one
that the spread leaves open says so.

![The ratios that have a target](results.svg)
"""


@dataclass(frozen=True)
class Measure:
    """A number that samples have.

    Attributes:
        title: What it is.
        unit: What it is counted in.
        value: Computes it from a sample; None leaves the engine out of this table.
        goals: By group and engine, the least multiple of hfclip's that is aimed for; where more
            is better, the least multiple of the engine's that hfclip's is to be.
        baseline: The engine to compare with, if it is not the section's.
        more_is_better: Whether it is a rate and not a cost.
        least: By group and engine, what the number itself is to reach.
        most: By group and engine, what the number itself is not to exceed.
        compared: Whether ratios mean anything; they do not for a difference.
    """

    title: str
    unit: str
    value: Callable[[Sample], float | None]
    goals: Mapping[tuple[str, str], float] = field(default_factory=dict)
    baseline: str | None = None
    more_is_better: bool = False
    least: Mapping[tuple[str, str], float] = field(default_factory=dict)
    most: Mapping[tuple[str, str], float] = field(default_factory=dict)
    compared: bool = True

    def values(self, result: Result) -> list[float]:
        """One number a round; none if the engine has no such number."""
        values = [self.value(sample) for sample in result.samples]
        return [value for value in values if value is not None]


@dataclass(frozen=True)
class Section:
    """What one command measures and how it is to be read.

    Attributes:
        name: The command's.
        title: The heading in RESULTS.md.
        method: How it was measured, in words.
        baseline: The engine that the others are compared with.
        measures: The tables.
        groups: What the groups are, as the head of their column.
        notes: What stands below the tables: why a claim falls short, and what was tried.
    """

    name: str
    title: str
    method: str
    baseline: str
    measures: Sequence[Measure]
    groups: str = "model"
    notes: str = ""


@dataclass(frozen=True)
class Row:
    """One engine's line in one table; without numbers if the engine gave none."""

    measure: str
    unit: str
    group: str
    engine: str
    baseline: str
    more_is_better: bool
    value: Summary | None
    ratio: Summary | None
    goal: float | None
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
    baseline = measure.baseline or run.section.baseline
    bases = {
        result.case.group: measure.values(result)
        for result in run.results
        if result.case.engine == baseline
    }
    for result in run.results:
        values = measure.values(result)
        if result.samples and not values:
            continue  # it has other numbers, but not this one
        base = bases.get(result.case.group, []) if result.case.engine != baseline else []
        yield _row(measure, result, baseline, base if measure.compared else [])


def _row(measure: Measure, result: Result, baseline: str, base: Sequence[float]) -> Row:
    key = result.case.group, result.case.engine
    values, goal = measure.values(result), measure.goals.get(key)
    times = _times(values, base, measure.more_is_better)
    claims = [
        judge(times, goal) if times else result.absence,
        judge_bounds(values, measure.least.get(key), measure.most.get(key)) if values else "",
    ]
    return Row(
        measure.title,
        measure.unit,
        *key,
        baseline if measure.compared else "",
        measure.more_is_better,
        summarize(values) if values else None,
        summarize(times) if times else None,
        goal,
        "; ".join(filter(None, claims)),
    )


def _times(values: Sequence[float], base: Sequence[float], more_is_better: bool) -> list[float]:
    """How many times as good the base is, round by round."""
    if not values or not base or min(*values, *base) <= 0:
        return []
    return ratios(base, values) if more_is_better else ratios(values, base)


def text(run: Run) -> str:
    """The tables for a terminal."""
    return "\n".join(f"{title}\n{_aligned(lines)}" for title, lines in _tables(run))


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
    for title, lines in _tables(run):
        parts += [f"### {title}", _piped(lines)]
    parts += [run.section.notes] if run.section.notes else []
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


def _tables(run: Run) -> Iterator[tuple[str, list[list[str]]]]:
    """Each measure's title and the cells of its table, the heads first."""
    rows = run.rows
    for title in dict.fromkeys(row.measure for row in rows):
        own = [row for row in rows if row.measure == title]
        ratio = [_ratio_head(own[0])] if own[0].baseline else []
        heads = [run.section.groups, "engine", own[0].unit, "lowest to highest", *ratio, "claim"]
        yield title, [heads, *(_cells(row) for row in own)]


def _ratio_head(row: Row) -> str:
    """What a ratio counts: an engine takes so many times hfclip's, or hfclip does so many."""
    return f"{row.baseline} does" if row.more_is_better else f"times {row.baseline}"


def _cells(row: Row) -> list[str]:
    value, ratio = row.value, row.ratio
    times = f"{number(ratio.median)} x ({_span(ratio)})" if ratio else "-"
    return [
        row.group,
        row.engine,
        number(value.median) if value else "-",
        _span(value) if value else "-",
        *([times] if row.baseline else []),
        row.claim,
    ]


def _span(summary: Summary) -> str:
    return f"{number(summary.low)} to {number(summary.high)}"


def number(value: float) -> str:
    """Three digits that count, or all of a whole number's, thousands marked."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded) + "\n"


def _piped(lines: list[list[str]]) -> str:
    heads, *rest = lines
    rule = ["---", "---", *["---:"] * (len(heads) - 3), "---"]
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
    write_whole(path, insert(_read(path), run.section.name, markdown(run)))


def write_json(path: Path, run: Run) -> None:
    """Puts the run among those of other sections in a file: one JSON object, by section."""
    write_whole(
        path, json.dumps({**read_json(path), run.section.name: to_json(run)}, indent=1) + "\n"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The last run of each section; none if there is no such file.

    Raises:
        ValueError: The file is not what `write_json` writes.
    """
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not isinstance(found, dict) or not all(
        isinstance(entry, dict) and entry.get("section") == name for name, entry in found.items()
    ):
        raise ValueError(f"{path} holds no runs by section; move it away, or give another file.")
    return found


def _read(path: Path) -> str:
    """The document under this header, whatever stood above its first section."""
    before, mark, sections = (
        path.read_text(encoding="utf-8").partition("<!-- ") if path.exists() else ("", "", "")
    )
    return f"{HEADER}\n{mark}{sections}" if mark or not before.strip() else before


def write_whole(path: Path, content: str) -> None:
    """Writes all or nothing: a broken-off write leaves what was there before."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
