"""Formats the rows of a benchmark as tables for a terminal and as its page in Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measure import CALM
from benchmarks.report import Others, Record, Row, Section
from benchmarks.summary import Summary

_READING = """\
The tables show the median of the rounds, then the lowest and the highest round. A ratio is computed
within each round. A ratio above 1 is in favour of the engine in the heading of its column: a cost
is that many times the cost of this engine, or this engine does that many times as much. A target is
met if every round meets it."""


def text(section: Section, record: Record) -> str:
    """Returns the tables of one run for a terminal."""
    return "\n".join(f"{title}\n{_aligned(lines)}" for title, lines in _tables(section, record))


def page(section: Section, records: Mapping[str, Record], summary: str) -> str:
    """Returns the page of a benchmark in Markdown.

    Args:
        section: The benchmark.
        records: Its newest run by processor family.
        summary: Address of the summary, relative to the page.
    """
    parts = [
        f"# {section.title}",
        f"Written by `python -m benchmarks {section.name}`. [Summary of all benchmarks]({summary})",
        section.method,
        _READING,
    ]
    for family, record in sorted(records.items()):
        parts += [f"## {family}", _circumstances(record)]
        for title, lines in _tables(section, record):
            parts += [f"### {title}", piped(lines, "ll" + "r" * (len(lines[0]) - 3) + "l")]
    parts += ["## Notes", section.notes] if section.notes else []
    return "\n\n".join(parts) + "\n"


def _circumstances(record: Record) -> str:
    facts = record.machine
    return (
        f"`{record.command}`, {record.date}, {record.rounds} rounds, on {facts['cpu']}, "
        f"{facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, "
        f"Python {facts['python']}; {_neighbours(record.others)}; "
        + ", ".join(f"{name} {version}" for name, version in record.packages.items())
        + "."
    )


def _neighbours(others: Others | None) -> str:
    if others is None:
        return "the load by other programs is not known"
    return (
        f"other programs had {others.share:.0%} of the cores' time, "
        f"and more than {CALM:.0%} in {others.disturbed} of {others.runs} runs"
    )


def _tables(section: Section, record: Record) -> Iterator[tuple[str, list[list[str]]]]:
    """Yields the title of each measure and the cells of its table, the heading first."""
    for title in dict.fromkeys(row.measure for row in record.rows):
        own = [row for row in record.rows if row.measure == title]
        ratio = [_ratio_head(own[0])] if own[0].baseline else []
        heads = [section.groups, "engine", own[0].unit, "lowest to highest", *ratio, "claim"]
        yield title, [heads, *(_cells(row) for row in own)]


def _ratio_head(row: Row) -> str:
    """Says what a ratio counts: the cost of a peer, or the rate of the baseline."""
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
    """Formats a number with three significant digits, or all digits of 100 and more."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = (
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded) + "\n"


def piped(lines: Sequence[Sequence[str]], sides: str) -> str:
    """Formats cells as a Markdown table.

    Args:
        lines: The cells of each line, the heading first.
        sides: One letter for each column: "l" aligns it left, "r" right.
    """
    heads, *rest = lines
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *rest])
