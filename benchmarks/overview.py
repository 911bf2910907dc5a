"""Writes RESULTS.md: one summary table for all benchmarks and processor families."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report import Highlight, Record, Row, Section
from benchmarks.summary import judge
from benchmarks.tables import number, piped

HEADER = """# Benchmarks

hfclip and its peers, measured side by side in one run on one machine. Numbers are medians. The
ratio compares hfclip with the best peer: above 1, hfclip is faster or needs less memory. The share
is the speed of hfclip divided by the machine's limit, the speed of a matrix product in oneDNN. A
target is met on a processor if every round meets it. It is open if the rounds disagree, or if a
peer was not measured. Speeds differ more between machines than ratios do. `python -m benchmarks`
measures yours.
"""

_HEADS = ("work", "hfclip", "best peer", "ratio", "share of the limit", "target")
_MET, _SHORT = ": met", "falls short"


@dataclass(frozen=True)
class Line:
    """One row of the summary: hfclip and the best peer at one task on one processor family."""

    work: str
    own: Row
    peer: Row | None
    share: Row | None
    goal: float | None
    target: str


def lines(sections: Sequence[Section], records: Mapping[str, Record]) -> list[Line]:
    """Returns the summary of one processor family.

    Args:
        sections: The benchmarks, in order.
        records: The newest run of each section on this family.
    """
    return [
        line
        for section in sections
        if section.name in records
        for highlight in section.highlights
        for line in _line(section, highlight, records[section.name])
    ]


def by_family(
    sections: Sequence[Section], records: Mapping[str, Mapping[str, Record]]
) -> dict[str, list[Line]]:
    """Returns the summary of each processor family, in alphabetical order."""
    families = sorted({family for own in records.values() for family in own})
    found = {
        family: lines(
            sections, {name: own[family] for name, own in records.items() if family in own}
        )
        for family in families
    }
    return {family: own for family, own in found.items() if own}


def document(
    sections: Sequence[Section],
    records: Mapping[str, Mapping[str, Record]],
    folder: str = "results",
    plot: str = "results.svg",
) -> str:
    """Returns RESULTS.md.

    Args:
        sections: The benchmarks, in order.
        records: Their newest runs by section and processor family.
        folder: Address of the folder that holds a page for each benchmark.
        plot: Address of the plot.
    """
    cells = [list(_HEADS)]
    for family, found in by_family(sections, records).items():
        cells.append([f"**{family}**, {_dates(records, family)}", *[""] * (len(_HEADS) - 1)])
        cells += [_cells(line) for line in found]
    pages = [
        f"- [{section.title}]({folder}/{section.name}.md)"
        for section in sections
        if records.get(section.name)
    ]
    parts = [
        HEADER,
        piped(cells, "lrlrrl"),
        f"\n![Ratios to the best peer]({plot})\n",
        "## Details\n\nMethod, all engines, the spread of the rounds and findings:\n",
        *pages,
    ]
    return "\n".join(parts) + "\n"


def _dates(records: Mapping[str, Mapping[str, Record]], family: str) -> str:
    dates = sorted({own[family].date for own in records.values() if family in own})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _line(section: Section, highlight: Highlight, record: Record) -> Iterator[Line]:
    """Yields one line, or none if the run has no row of hfclip for it."""
    rows = [
        row
        for row in record.rows
        if row.measure == highlight.measure and row.group == highlight.group
    ]
    own = next((row for row in rows if row.engine == row.baseline), None)
    if own is None:
        return
    peers = [row for row in rows if _is_peer(row, highlight)]
    share = next(
        (
            row
            for row in record.rows
            if row.measure == highlight.share
            and (row.group, row.engine) == (highlight.group, own.engine)
        ),
        None,
    )
    peer = best(peers)
    goal = (peer.goal or highlight.least) if peer else None
    claims = [
        judge(peer.ratio[: record.rounds], goal) if peer and peer.ratio and goal else "",
        *(f"{row.engine} {row.claim}" for row in peers if row is not peer and _is_missed(row)),
        *_not_measured(section, highlight, {row.engine for row in rows}),
        f"share {share.claim}" if share and share.claim else "",
    ]
    yield Line(highlight.work, own, peer, share, goal, _target(own, peer, [*filter(None, claims)]))


def _is_missed(row: Row) -> bool:
    return row.goal is not None and not row.claim.endswith(_MET)


def _not_measured(section: Section, highlight: Highlight, engines: Container[str]) -> Iterator[str]:
    """Yields the targets for peers that are missing in an older run."""
    for measure in section.measures:
        for (group, engine), goal in measure.goals.items():
            wanted = (measure.title, group) == (highlight.measure, highlight.group)
            if wanted and engine not in engines:
                yield f"{engine} at least {goal:g} x: not measured"


def _target(own: Row, peer: Row | None, claims: Sequence[str]) -> str:
    """Says whether all claims are met, which they are, and whether hfclip is behind the peer."""
    if own.value is None:
        return own.claim
    if peer and peer.ratio and peer.ratio.high < 1:
        behind = "needs more memory" if own.unit == "MB" else "is slower"
        claims = [f"hfclip {behind} than {peer.engine}", *claims]
    if claims and all(claim.endswith(_MET) for claim in claims):
        return f"met: {'; '.join(claim.removesuffix(_MET) for claim in claims)}"
    state = "**not met**" if any(_SHORT in claim for claim in claims) else "open"
    # What is not met comes first.
    ordered = sorted(claims, key=lambda claim: claim.endswith(_MET))
    return f"{state}: {'; '.join(ordered)}" if claims else "none"


def _is_peer(row: Row, highlight: Highlight) -> bool:
    if highlight.peers is not None:
        return row.engine in highlight.peers
    return row.engine != row.baseline and not row.engine.startswith("hfclip")


def best(peers: Sequence[Row]) -> Row | None:
    """Returns the peer with the highest rate or the lowest cost; None if none gave numbers."""
    found = [(row.value.median, row) for row in peers if row.value]
    if not found:
        return None
    pick = max if found[0][1].more_is_better else min
    return pick(found, key=lambda pair: pair[0])[1]


def _cells(line: Line) -> list[str]:
    own, peer, share = line.own, line.peer, line.share
    return [
        line.work,
        f"{number(own.value.median)} {own.unit}" if own.value else "-",
        f"{peer.engine}: {number(peer.value.median)}" if peer and peer.value else "-",
        f"{number(peer.ratio.median)} x" if peer and peer.ratio else "-",
        number(share.value.median) if share and share.value else "-",
        line.target,
    ]
