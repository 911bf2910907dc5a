from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import overview, plot, store
from benchmarks.report import Highlight, Measure, Record, Row, Section
from benchmarks.summary import Summary

MACHINE = {"cpu": "abacus"}


def row(engine: str, median: float, ratio: float | None = None, **fields: Any) -> Row:
    """A row of the measure Speed, whose rounds are 1% apart, compared with ours."""
    given = {"measure": "Speed", "unit": "images/s", "group": "tiny", "baseline": "ours"}
    kept = {"more_is_better": True, "goal": None, "claim": ""}
    numbers = {
        "value": Summary(median, 0.99 * median, 1.01 * median),
        "ratio": Summary(ratio, 0.99 * ratio, 1.01 * ratio) if ratio else None,
    }
    return Row(engine=engine, **{**given, **kept, **numbers, **fields})


SUMMARIZED = (
    Section(
        name="load",
        title="Load",
        method="By hand.",
        baseline="ours",
        measures=(),
        highlights=(Highlight("Load a model", "Seconds", "tiny"),),
    ),
    Section(
        name="rates",
        title="Rates",
        method="By hand.",
        baseline="ours",
        measures=(),
        highlights=(
            Highlight("Encode images", "Speed", "tiny", share="Share"),
            Highlight("Encode the same", "Speed", "tiny", peers=("slow",), least=None),
            Highlight("Encode others", "Speed", "of a model that did not run"),
        ),
    ),
)
COST: dict[str, Any] = {"measure": "Seconds", "unit": "s", "more_is_better": False}


def summarized() -> store.Records:
    """Made runs on two processor families; on the second one, only the rates were measured."""

    def record(rows: list[Row], date: str) -> Record:
        return Record("a command", date, 3, MACHINE, {}, None, rows)

    loads = [
        row("ours", 0.5, **COST),
        row("slow", 3.0, 6.0, **COST, goal=8.0, claim="at least 8 x: falls short by 25%"),
        row("quick", 2.0, 4.0, **COST, goal=3.0, claim="at least 3 x: met"),
    ]
    share = row("ours", 0.9, measure="Share", baseline="", claim="at least 0.85: met")
    fast = [row("ours", 40), row("slow", 10, 4.0), row("quick", 20, 2.0), share]
    behind = [row("ours", 40), row("slow", 10, 4.0), row("quick", 50, 0.8)]
    return {
        "load": {"Abacus family 1": record(loads, "2026-01-01")},
        "rates": {
            "Slide rule family 2": record(behind, "2026-01-03"),
            "Abacus family 1": record(fast, "2026-01-02"),
        },
    }


def test_the_summary_has_a_group_of_rows_for_each_processor_family() -> None:
    document = overview.document(SUMMARIZED, summarized())
    assert document.startswith(overview.HEADER)
    lines = document.removeprefix(overview.HEADER).splitlines()
    assert lines == [
        "",
        "| work | hfclip | best peer | ratio | share of the limit | target |",
        "| --- | ---: | --- | ---: | ---: | --- |",
        "| **Abacus family 1**, 2026-01-01 to 2026-01-02 |  |  |  |  |  |",
        (
            "| Load a model | 0.500 s | quick: 2.00 | 4.00 x | - | "
            "**not met**: slow at least 8 x: falls short by 25%; at least 3 x: met |"
        ),
        (
            "| Encode images | 40.0 images/s | quick: 20.0 | 2.00 x | 0.900 | "
            "met: at least 1 x; share at least 0.85 |"
        ),
        "| Encode the same | 40.0 images/s | slow: 10.0 | 4.00 x | - | none |",
        "| **Slide rule family 2**, 2026-01-03 |  |  |  |  |  |",
        (
            "| Encode images | 40.0 images/s | quick: 50.0 | 0.800 x | - | "
            "**not met**: hfclip is slower than quick; at least 1 x: falls short by 20% |"
        ),
        "| Encode the same | 40.0 images/s | slow: 10.0 | 4.00 x | - | none |",
        "",
        "![Ratios to the best peer](results.svg)",
        "",
        "## Details",
        "",
        "Method, all engines, the spread of the rounds and findings:",
        "",
        "- [Load](results/load.md)",
        "- [Rates](results/rates.md)",
    ]


def test_the_best_peer_has_the_highest_rate_or_the_lowest_cost() -> None:
    rates = [row("slow", 10), row("absent", 0, value=None), row("quick", 20)]
    assert overview.best(rates) is rates[2]
    costs = [row("slow", 3, **COST), row("quick", 2, **COST), row("absent", 0, **COST, value=None)]
    assert overview.best(costs) is costs[1]
    assert overview.best([costs[2]]) is None


def test_other_engines_of_hfclip_are_no_peers_and_an_open_target_is_not_met() -> None:
    rows = [
        row("ours", 40),
        row("hfclip, otherwise", 90, 0.4),
        replace(row("theirs", 40), ratio=Summary(1.0, 0.9, 1.2)),
    ]
    record = Record("a command", "2026-01-01", 3, MACHINE, {}, None, rows)
    first = overview.lines(SUMMARIZED, {"rates": record})[0]
    assert first.peer is rows[2]
    assert first.target == "open: at least 1 x: the spread is too wide to tell"


def test_a_peer_that_has_a_target_and_no_numbers_leaves_the_target_open() -> None:
    goals = {("tiny", "new"): 1.0, ("tiny", "absent"): 1.0, ("large", "other"): 1.0}
    measure = Measure("Speed", "images/s", lambda _: None, goals)
    section = replace(SUMMARIZED[1], measures=(measure,))
    absent = row("absent", 0, value=None, goal=1.0, claim="not installed: no absent")
    rows = [row("ours", 40), row("theirs", 20, 2.0), absent]
    record = Record("a command", "2026-01-01", 3, MACHINE, {}, None, rows)
    assert overview.lines([section], {"rates": record})[0].target == (
        "open: absent not installed: no absent; new at least 1 x: not measured; at least 1 x: met"
    )


def test_the_plot_shows_the_ratios_of_the_summary(tmp_path: Path) -> None:
    families = overview.by_family(SUMMARIZED, summarized())
    assert plot.draw(families, tmp_path / "one.svg")
    assert plot.draw(families, tmp_path / "two.svg")
    drawing = (tmp_path / "one.svg").read_text()
    for text in ("Load a model (quick)", "Encode the same (slow)", "Slide rule family 2"):
        assert text in drawing
    assert "Load a model (slow)" not in drawing
    assert drawing == (tmp_path / "two.svg").read_text()
    assert not plot.draw({}, tmp_path / "none.svg")
