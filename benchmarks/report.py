"""Defines what a benchmark reports: its measures, its targets, and the rows of one run."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from benchmarks.measure import CALM, Result, Sample
from benchmarks.summary import Summary, judge, judge_bounds, ratios, summarize

Key = tuple[str, str]


@dataclass(frozen=True)
class Measure:
    """One number that is computed from each sample, and its targets.

    Targets are given by (group, engine).

    Attributes:
        title: Heading of the table.
        unit: Unit of the number.
        value: Computes the number from a sample. Returns None if the engine has no such number,
            which leaves the engine out of the table.
        goals: Smallest ratio to reach against each peer. A ratio above 1 is in favour of hfclip.
        baseline: Engine that the others are compared with, if it is not that of the section.
        more_is_better: True for a rate, False for a cost.
        least: Lower bound of the number itself.
        most: Upper bound of the number itself.
        compared: False if a ratio has no meaning, as for a difference.
    """

    title: str
    unit: str
    value: Callable[[Sample], float | None]
    goals: Mapping[Key, float] = field(default_factory=dict)
    baseline: str | None = None
    more_is_better: bool = False
    least: Mapping[Key, float] = field(default_factory=dict)
    most: Mapping[Key, float] = field(default_factory=dict)
    compared: bool = True

    def values(self, result: Result) -> list[float]:
        """Returns one number for each round, or none if the engine has no such number."""
        values = [self.value(sample) for sample in result.samples]
        return [value for value in values if value is not None]

    def claim(self, key: Key, values: Sequence[float], times: Sequence[float]) -> str:
        """Judges the ratios and the values of one row against the targets of this measure."""
        claims = [
            judge(times, self.goals.get(key)) if times else "",
            judge_bounds(values, self.least.get(key), self.most.get(key)) if values else "",
        ]
        return "; ".join(filter(None, claims))


@dataclass(frozen=True)
class Highlight:
    """One row of the summary table in RESULTS.md.

    Attributes:
        work: What the user waits for or pays for.
        measure: Title of the measure. Its baseline is the engine of hfclip that is shown.
        group: Group of the rows that are compared.
        peers: Engines to choose the best peer from. None stands for all that are not hfclip's.
        least: Smallest ratio to the best peer, where its row has no target of its own. None if
            there is no target.
        share: Title of the measure that has the share of the machine's limit; empty if there is
            none.
    """

    work: str
    measure: str
    group: str
    peers: tuple[str, ...] | None = None
    least: float | None = 1.0
    share: str = ""


@dataclass(frozen=True)
class Section:
    """Describes one benchmark and how to read its results.

    Attributes:
        name: Name of the benchmark on the command line.
        title: Heading of its page.
        method: How it measures, in Markdown.
        baseline: Engine that the others are compared with.
        measures: The tables of its page.
        groups: Heading of the column of groups.
        notes: Findings, in Markdown: why a target is missed, and what was tried.
        highlights: Its rows of the summary table.
    """

    name: str
    title: str
    method: str
    baseline: str
    measures: Sequence[Measure]
    groups: str = "model"
    notes: str = ""
    highlights: Sequence[Highlight] = ()


@dataclass(frozen=True)
class Row:
    """One engine in one table. It has no numbers if the engine gave none."""

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


class Others(NamedTuple):
    """Load by other programs during a run.

    `share` is their mean share of the cores' time. `disturbed` of `runs` runs had more than
    `measure.CALM` of it taken by others.
    """

    share: float
    disturbed: int
    runs: int


@dataclass(frozen=True)
class Record:
    """One run of a section as results.json holds it: the rows without the laps of each round."""

    command: str
    date: str
    rounds: int
    machine: Mapping[str, str | int | float]
    packages: Mapping[str, str]
    others: Others | None
    rows: Sequence[Row]


@dataclass(frozen=True)
class Run:
    """One run of a section with the samples of every round."""

    section: Section
    command: str
    rounds: int
    results: Sequence[Result]
    machine: Mapping[str, str | int | float]
    packages: Mapping[str, str]
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @property
    def rows(self) -> list[Row]:
        """Returns the rows of all tables, in order."""
        return [row for measure in self.section.measures for row in _rows(self, measure)]

    @property
    def record(self) -> Record:
        """Returns what is kept of this run."""
        shares = [share for result in self.results for share in result.others]
        return Record(
            self.command,
            self.date,
            self.rounds,
            self.machine,
            self.packages,
            count_others(shares),
            self.rows,
        )


def count_others(shares: Sequence[float]) -> Others | None:
    """Summarizes the load by other programs; None if the system does not report it."""
    if not shares:
        return None
    return Others(statistics.fmean(shares), sum(share > CALM for share in shares), len(shares))


def judge_again(section: Section, record: Record) -> Record:
    """Applies the present targets of a section to a run that was recorded earlier."""
    measures = {measure.title: measure for measure in section.measures}
    rows = [
        _judged(measures[row.measure], row, record.rounds) if row.measure in measures else row
        for row in record.rows
    ]
    return replace(record, rows=rows)


def _judged(measure: Measure, row: Row, rounds: int) -> Row:
    key = row.group, row.engine
    if row.value is None:
        return replace(row, goal=measure.goals.get(key))  # its claim says why it has no numbers
    # Median, lowest and highest decide as all rounds do. Fewer rounds give fewer numbers.
    times = row.ratio[:rounds] if row.ratio else ()
    return replace(row, goal=measure.goals.get(key), claim=measure.claim(key, row.value, times))


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
            continue  # the engine has other numbers, but not this one
        base = bases.get(result.case.group, []) if result.case.engine != baseline else []
        yield _row(measure, result, baseline, base if measure.compared else [])


def _row(measure: Measure, result: Result, baseline: str, base: Sequence[float]) -> Row:
    key = result.case.group, result.case.engine
    values = measure.values(result)
    times = _times(values, base, measure.more_is_better)
    return Row(
        measure.title,
        measure.unit,
        *key,
        baseline if measure.compared else "",
        measure.more_is_better,
        summarize(values) if values else None,
        summarize(times) if times else None,
        measure.goals.get(key),
        measure.claim(key, values, times) if values else result.absence,
    )


def _times(values: Sequence[float], base: Sequence[float], more_is_better: bool) -> list[float]:
    """Returns how many times better the baseline is in each round."""
    if not values or not base or min(*values, *base) <= 0:
        return []
    return ratios(base, values) if more_is_better else ratios(values, base)
