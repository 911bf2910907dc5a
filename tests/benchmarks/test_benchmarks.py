import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import child, overview, store, tables, tokenization, weights
from benchmarks.__main__ import FOLDER, SECTIONS, main
from benchmarks.machine import family
from benchmarks.measure import Case, Lap, Result, _least_disturbed, measure
from benchmarks.report import Measure, Others, Record, Run, Section, judge_again
from benchmarks.summary import Summary, judge, judge_bounds, ratios, summarize

SECTION = Section(
    name="load",
    title="Load",
    method="By hand.",
    baseline="ours",
    measures=[
        Measure("Load", "s", lambda sample: sample["load"].seconds, {("tiny", "theirs"): 10}),
        Measure("Peak", "MB", lambda sample: sample["load"].peak / 1e6),
    ],
)
MACHINE: dict[str, str | int | float] = {
    "cpu": "abacus",
    "cores": 2,
    "memory_gb": 4.0,
    "system": "Linux x86_64",
    "python": "3.11.7",
}


def result(engine: str, seconds: list[float], megabytes: int) -> Result:
    samples = [{"load": Lap(second, 1_000_000, megabytes * 1_000_000)} for second in seconds]
    return Result(Case("tiny", engine, "none:at_all"), [*samples])


def run(results: list[Result]) -> Run:
    versions = {"torch": "2.4.0"}
    return Run(SECTION, "python -m benchmarks load", 3, results, MACHINE, versions, "2026-01-02")


@pytest.fixture
def finished() -> Run:
    absent = Result(Case("tiny", "absent", "none:at_all"), not_installed="no absent")
    ours, theirs = result("ours", [0.5, 0.4, 0.8], 100), result("theirs", [6.0, 4.4, 12.0], 1250)
    ours.others = [0.02, 0.05, 0.11]
    return run([ours, theirs, absent])


def test_a_summary_has_the_median_and_the_range() -> None:
    assert summarize([3.0, 1.0, 10.0, 2.0]) == Summary(2.5, 1.0, 10.0)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("times", "goal", "verdict"),
    [
        ([10.0, 11.0, 12.0], 10, "at least 10 x: met"),
        ([9.0, 9.5, 9.9], 10, "at least 10 x: falls short by 5%"),
        ([9.0, 11.0, 12.0], 10, "at least 10 x: the spread is too wide to tell"),
        ([11.0, 12.0], 10, "at least 10 x: too few rounds to tell"),
        ([1.1, 1.2, 1.3], None, ""),
        ([0.7, 0.8, 0.9], None, ""),
        ([0.9, 1.0, 1.2], None, "the spread is too wide to tell"),
        ([1.5, 4.0, 6.0], None, "the spread is too wide to tell how much"),
        ([1.4, 1.5, 1.6], 1.5, "at least 1.5 x: the spread is too wide to tell"),
    ],
)
def test_a_claim_holds_only_if_every_round_confirms_it(
    times: list[float], goal: float | None, verdict: str
) -> None:
    assert judge(times, goal) == verdict


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.03004, "0.0300"), (2.0, "2.00"), (57.54, "57.5"), (748.2, "748"), (1495.0, "1,495")],
)
def test_numbers_keep_three_digits(value: float, shown: str) -> None:
    assert tables.number(value) == shown


def test_the_table_for_a_terminal(finished: Run) -> None:
    assert tables.text(SECTION, finished.record).splitlines() == [
        "Load",
        "model  engine  s      lowest to highest  times ours             claim",
        "tiny   ours    0.500  0.400 to 0.800     -",
        "tiny   theirs  6.00   4.40 to 12.0       12.0 x (11.0 to 15.0)  at least 10 x: met",
        f"tiny   absent  -      -                  {'-':<21}  not installed: no absent",
        "",
        "Peak",
        "model  engine  MB     lowest to highest  times ours             claim",
        "tiny   ours    100    100 to 100         -",
        "tiny   theirs  1,250  1,250 to 1,250     12.5 x (12.5 to 12.5)",
        f"tiny   absent  -      -                  {'-':<21}  not installed: no absent",
    ]


def test_the_page_of_a_benchmark_names_machine_command_and_versions(finished: Run) -> None:
    lines = tables.page(SECTION, {"abacus": finished.record}, "../RESULTS.md").splitlines()
    assert lines[0] == "# Load"
    assert lines[2] == (
        "Written by `python -m benchmarks load`. [Summary of all benchmarks](../RESULTS.md)"
    )
    assert lines[4] == "By hand."
    start = lines.index("## abacus")
    assert lines[start + 2] == (
        "`python -m benchmarks load`, 2026-01-02, 3 rounds, on abacus, 2 cores, 4.0 GB, "
        "Linux x86_64, Python 3.11.7; other programs had 6% of the cores' time, "
        "and more than 10% in 1 of 3 runs; torch 2.4.0."
    )
    assert lines[start + 4 : start + 10] == [
        "### Load",
        "",
        "| model | engine | s | lowest to highest | times ours | claim |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        "| tiny | ours | 0.500 | 0.400 to 0.800 | - |  |",
        "| tiny | theirs | 6.00 | 4.40 to 12.0 | 12.0 x (11.0 to 15.0) | at least 10 x: met |",
    ]


def test_a_page_has_the_runs_of_every_processor_family_and_the_notes(finished: Run) -> None:
    section = replace(SECTION, notes="Why.")
    page = tables.page(section, {"b": finished.record, "a": finished.record}, "../RESULTS.md")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## a",
        "## b",
        "## Notes",
    ]
    assert page.endswith("|\n\n## Notes\n\nWhy.\n")


def test_without_the_baseline_there_are_medians_and_no_ratios() -> None:
    rows = run([Result(Case("tiny", "ours", ""), failure="oops"), result("theirs", [1.0], 1)]).rows
    assert [(row.engine, row.ratio, row.claim) for row in rows[:2]] == [
        ("ours", None, "failed: oops"),
        ("theirs", None, ""),
    ]


def on(cpu: str, run: Run) -> Record:
    return replace(run, machine={**MACHINE, "cpu": cpu}).record


def test_json_keeps_the_rows_by_section_and_processor_family(finished: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    store.write(path, store.add({}, "load", on("Abacus (family 3, model 1)", finished)))
    written = json.loads(path.read_text())
    record = written["load"]["Abacus family 3"]
    assert record["rows"][1] == {
        "measure": "Load",
        "unit": "s",
        "group": "tiny",
        "engine": "theirs",
        "baseline": "ours",
        "more_is_better": False,
        "value": {"median": 6.0, "low": 4.4, "high": 12.0},
        "ratio": {"median": 12.0, "low": 11.0, "high": 15.0},
        "goal": 10,
        "claim": "at least 10 x: met",
    }
    assert record["others"] == {"share": 0.06, "disturbed": 1, "runs": 3}
    assert "results" not in record
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_json_is_read_as_it_was_written_and_has_a_line_for_each_row(
    finished: Run, tmp_path: Path
) -> None:
    records = store.add({}, "load", finished.record)
    store.write(tmp_path / "one.json", records)
    read = store.read(tmp_path / "one.json")
    assert read["load"]["abacus"].rows == finished.rows
    store.write(tmp_path / "two.json", read)
    text = (tmp_path / "two.json").read_text()
    assert text == (tmp_path / "one.json").read_text()
    assert sum('"engine"' in line for line in text.splitlines()) == len(finished.rows)


def test_a_run_replaces_the_one_of_the_same_processor_family_and_no_other(finished: Run) -> None:
    older, newer = replace(finished, date="2026-01-01"), replace(finished, date="2026-02-01")
    records = store.add({}, "load", on("AMD EPYC (family 25, model 17)", older))
    records = store.add(records, "load", on("AMD EPYC (family 23, model 1)", older))
    records = store.add(records, "rates", on("AMD EPYC (family 25, model 17)", older))
    records = store.add(records, "load", on("AMD EPYC (family 25, model 1)", newer))
    assert {
        (section, name): record.date
        for section, families in records.items()
        for name, record in families.items()
    } == {
        ("load", "AMD EPYC family 25"): "2026-02-01",
        ("load", "AMD EPYC family 23"): "2026-01-01",
        ("rates", "AMD EPYC family 25"): "2026-01-01",
    }


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC (family 25, model 17)", "AMD EPYC family 25"),
        ("AMD EPYC 9554 64-Core Processor (family 25, model 17)", "AMD EPYC family 25"),
        (
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz (family 6, model 143)",
            "Intel Xeon Platinum family 6 model 143",
        ),
        (
            "Intel(R) Xeon(R) CPU @ 2.20GHz (family 6, model 85)",
            "Intel Xeon family 6 model 85",
        ),
        ("arm", "arm"),
    ],
)
def test_a_processor_family_is_the_brand_with_the_number(cpu: str, name: str) -> None:
    assert family(cpu) == name


def older_json(run: Run) -> dict[str, object]:
    """A run as results.json held it when it kept the laps of each round."""
    record = json.loads(json.dumps({"rows": [vars(row) for row in run.rows]}, default=str))
    for row, written in zip(run.rows, record["rows"], strict=True):
        written["value"] = row.value._asdict() if row.value else None
        written["ratio"] = row.ratio._asdict() if row.ratio else None
    return {
        "section": run.section.name,
        "command": run.command,
        "date": run.date,
        "rounds": run.rounds,
        "machine": {**MACHINE, "cpu": "AMD EPYC (family 25, model 17)"},
        "packages": {"torch": "2.4.0"},
        "rows": record["rows"],
        "results": [{"samples": [{"load": {}}], "others": [0.0625, 0.1875]}, {"others": []}],
    }


def test_the_older_json_is_read_without_its_laps(finished: Run, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"load": older_json(finished)}))
    record = store.read(path)["load"]["AMD EPYC family 25"]
    assert record.rows == finished.rows
    assert record.date == "2026-01-02"
    assert record.others == Others(share=0.125, disturbed=1, runs=2)
    store.write(path, {"load": {"AMD EPYC family 25": record}})
    written = json.loads(path.read_text())["load"]["AMD EPYC family 25"]
    assert "results" not in written
    assert "section" not in written
    assert store.read(path)["load"]["AMD EPYC family 25"].rows == finished.rows


def test_the_present_targets_judge_a_run_that_was_recorded_earlier(finished: Run) -> None:
    load, peak = SECTION.measures
    stricter = replace(
        SECTION,
        measures=[
            replace(load, goals={("tiny", "theirs"): 20}),
            replace(peak, goals={("tiny", "absent"): 3}, most={("tiny", "ours"): 90}),
        ],
    )
    rows = judge_again(stricter, finished.record).rows
    assert [(row.measure, row.engine, row.goal, row.claim) for row in rows] == [
        ("Load", "ours", None, ""),
        ("Load", "theirs", 20, "at least 20 x: falls short by 40%"),
        ("Load", "absent", None, "not installed: no absent"),
        ("Peak", "ours", None, "at most 90: falls short with 100"),
        ("Peak", "theirs", None, ""),
        ("Peak", "absent", 3, "not installed: no absent"),
    ]
    two = replace(finished.record, rounds=2)
    assert judge_again(stricter, two).rows[1].claim == "at least 20 x: too few rounds to tell"


def two_laps() -> Iterator[str]:
    yield "import"
    yield "load"


def test_a_task_reports_seconds_and_memory_of_each_lap() -> None:
    laps = child.run(f"{__name__}:two_laps")
    assert list(laps) == ["import", "load"]
    for lap in laps.values():
        assert lap["seconds"] is not None
        assert lap["seconds"] >= 0
        assert lap["peak"] is not None
        assert lap["peak"] > 1_000_000
        assert lap["figure"] is None


def one_figure() -> Iterator[str | tuple[str, float]]:
    yield "difference", 0.25


def test_a_task_reports_its_own_figures() -> None:
    lap = child.run(f"{__name__}:one_figure")["difference"]
    assert Lap(**lap).found == 0.25  # type: ignore[arg-type]


def test_a_lap_without_a_figure_raises_an_error() -> None:
    with pytest.raises(ValueError, match="this lap has no figure"):
        _ = Lap(1.0, 2, 3).found


RATES = Section(
    name="rates",
    title="Rates",
    method="By hand.",
    baseline="ours",
    measures=[
        Measure(
            "Speed",
            "images/s",
            lambda sample: 10 / sample["load"].seconds,
            {("tiny", "theirs"): 2},
            baseline="fast",
            more_is_better=True,
        ),
        Measure(
            "Difference",
            "levels",
            lambda sample: sample["difference"].figure if "difference" in sample else None,
            least={("tiny", "ours"): 1},
            most={("tiny", "ours"): 2},
            compared=False,
        ),
    ],
    groups="of",
    notes="What is short and why.",
)


def test_rates_are_compared_inversely_and_differences_are_not_compared() -> None:
    ours, theirs = result("fast", [0.5, 0.5, 0.4], 1), result("theirs", [2.0, 1.5, 1.0], 1)
    ours.samples = [{**sample, "difference": Lap(0, 0, 0, 3.0)} for sample in ours.samples]
    ours.case = Case("tiny", "fast", "")
    exact = Result(Case("tiny", "ours", ""), [{**s, "load": Lap(1, 1, 1)} for s in ours.samples])
    found = Run(RATES, "", 3, [exact, ours, theirs], MACHINE, {}, "2026-01-02")
    assert tables.text(RATES, found.record).splitlines() == [
        "Speed",
        "of    engine  images/s  lowest to highest  fast does              claim",
        "tiny  ours    10.0      10.0 to 10.0       2.00 x (2.00 to 2.50)",
        "tiny  fast    20.0      20.0 to 25.0       -",
        "tiny  theirs  6.67      5.00 to 10.0       3.00 x (2.50 to 4.00)  at least 2 x: met",
        "",
        "Difference",
        "of    engine  levels  lowest to highest  claim",
        "tiny  ours    3.00    3.00 to 3.00       at least 1: met; at most 2: falls short with 3",
        "tiny  fast    3.00    3.00 to 3.00",
    ]
    page = tables.page(RATES, {"abacus": found.record}, "../RESULTS.md")
    assert page.endswith("|\n\n## Notes\n\nWhat is short and why.\n")


@pytest.mark.parametrize(
    ("values", "least", "most", "verdict"),
    [
        ([1.0, 2.0], 1, None, "at least 1: met"),
        ([0.5, 2.0, 3.0], 1, None, "at least 1: falls short with 2"),
        ([0.0], None, 0, "at most 0: met"),
        ([0.0, 0.1], None, 0, "at most 0: falls short with 0.05"),
        ([5.0], None, None, ""),
    ],
)
def test_a_bound_is_met_if_every_round_meets_it(
    values: list[float], least: float | None, most: float | None, verdict: str
) -> None:
    assert judge_bounds(values, least, most) == verdict


def test_a_run_of_one_section_leaves_those_of_others(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = replace(finished, section=replace(SECTION, name="encode"), command="a command")
    records = store.add({}, "encode", rates.record)
    store.write(tmp_path / "results.json", records)
    monkeypatch.setattr("benchmarks.__main__._run", lambda *_: replace(finished, section=IMPORTS))
    answer = CliRunner().invoke(main, ["imports", "--results", str(tmp_path / "RESULTS.md")])
    assert answer.exit_code == 0, answer.output
    found = store.read(tmp_path / "results.json")
    assert {name: own["abacus"].command for name, own in found.items()} == {
        "encode": "a command",
        "imports": "python -m benchmarks load",
    }
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "encode.md",
        "imports.md",
    ]
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith(overview.HEADER)
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- [Imports and the command line](results/imports.md)",
        "- [Encode images](results/encode.md)",
    ]


IMPORTS = next(section for section in SECTIONS if section.name == "imports")


def test_every_highlight_has_its_measures() -> None:
    for section in SECTIONS:
        titles = {measure.title for measure in section.measures}
        for highlight in section.highlights:
            assert highlight.measure in titles
            assert not highlight.share or highlight.share in titles


def test_the_report_of_the_repository_is_what_its_results_give(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text((FOLDER / "results.json").read_text())
    answer = CliRunner().invoke(main, ["--render", "--results", str(tmp_path / "RESULTS.md")])
    assert answer.exit_code == 0, answer.output
    written = [path for path in tmp_path.rglob("*.*") if path.suffix in {".md", ".json"}]
    measured = json.loads((FOLDER / "results.json").read_text())
    assert {path.stem for path in written} == {*measured, "RESULTS", "results"}
    for path in written:
        assert path.read_text() == (FOLDER / path.relative_to(tmp_path)).read_text(), path.name


def test_a_json_file_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"section": "load"}')
    with pytest.raises(ValueError, match="holds no runs by section"):
        store.read(tmp_path / "results.json")
    answer = CliRunner().invoke(main, ["load", "--results", str(tmp_path / "RESULTS.md")])
    assert answer.exit_code == 1
    assert "holds no runs by section" in answer.output


def test_the_captions_are_always_the_same_and_mostly_plain() -> None:
    texts = tokenization.captions()
    assert len(texts) == 20_000
    assert texts == tokenization.captions()
    plain = sum(text.isascii() and "&" not in text for text in texts)
    assert plain / len(texts) == pytest.approx(0.857, abs=0.02)
    assert not any("\n" in text for text in texts)
    from hfclip.text.bpe import Tokenizer

    tokenizer = Tokenizer()
    tokens = sum(len(tokenizer.encode(text)) + 2 for text in texts) / len(texts)
    assert 15 < tokens < 19


def test_an_engine_that_is_not_installed_gets_a_row_and_no_numbers() -> None:
    (found,) = measure([Case("tiny", "absent", "no_such_engine:load")], rounds=2)
    assert found.samples == []
    assert found.absence == "not installed: No module named 'no_such_engine'"


def test_the_run_with_the_least_other_load_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, seconds = iter([0.3, 0.2, 0.05]), iter([1.0, 9.0, 4.0])
    monkeypatch.setattr("benchmarks.machine.wait_for_calm", lambda *_: None)
    monkeypatch.setattr("benchmarks.machine.Neighbours.share", lambda _: next(shares))
    laps = ({"laps": {"load": {"seconds": s, "resident": 1, "peak": 2}}} for s in seconds)
    monkeypatch.setattr("benchmarks.measure._start", lambda _: next(laps))
    answer, others = _least_disturbed(Case("tiny", "ours", ""), patience=60)
    assert answer["laps"]["load"]["seconds"] == 4.0
    assert others == 0.05


def test_a_run_is_not_repeated_without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.Neighbours.share", lambda _: 0.9)
    monkeypatch.setattr("benchmarks.measure._start", lambda _: {"laps": {}})
    assert _least_disturbed(Case("tiny", "ours", ""), patience=0) == ({"laps": {}}, 0.9)


def test_an_engine_that_fails_gets_a_row_and_no_numbers() -> None:
    (found,) = measure([Case("tiny", "broken", "json:loads", ("{",))], rounds=1)
    assert found.samples == []
    assert found.absence.startswith("failed: json.decoder.JSONDecodeError")


def test_existing_weights_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    (tmp_path / "ViT-L-14-336px.pt").touch()
    assert weights.provide("archive", "ViT-L/14@336px", tmp_path).name == "ViT-L-14-336px.pt"


def test_weights_that_cannot_be_written_leave_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        weights.provide("archive", "RN50", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_benchmark_is_refused_and_the_known_are_named() -> None:
    answer = CliRunner().invoke(main, ["weather"])
    assert answer.exit_code == 2
    for name in ("machine", "imports", "load", "tokenize", "preprocess"):
        assert f"'{name}'" in answer.output


def test_an_unknown_model_is_refused_before_anything_runs() -> None:
    answer = CliRunner().invoke(main, ["load", "--models", "ViT-B/33"])
    assert answer.exit_code == 2
    assert "'ViT-B/33' is none of RN50, RN101" in answer.output
