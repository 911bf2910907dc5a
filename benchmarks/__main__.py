"""Command line of the benchmarks."""

import subprocess
from pathlib import Path

import click

from benchmarks import (
    captions,
    embedding,
    encode,
    first_answer,
    gains,
    imports,
    limits,
    machine,
    overview,
    plot,
    preprocessing,
    search,
    store,
    tables,
    tokenization,
    training,
    weights,
)
from benchmarks import load as loading
from benchmarks.measure import measure
from benchmarks.report import Run, judge_again
from benchmarks.suite import Benchmark, Options
from hfclip.releases import RELEASES

FOLDER = Path(__file__).parent
# In the order of their runs and of the report.
BENCHMARKS: tuple[Benchmark, ...] = (
    limits.BENCHMARK,
    imports.BENCHMARK,
    first_answer.BENCHMARK,
    loading.BENCHMARK,
    tokenization.BENCHMARK,
    preprocessing.BENCHMARK,
    encode.BENCHMARK,
    captions.BENCHMARK,
    training.BENCHMARK,
    embedding.BENCHMARK,
    search.BENCHMARK,
    gains.BENCHMARK,
)
SECTIONS = tuple(benchmark.section for benchmark in BENCHMARKS)
BY_NAME = {benchmark.section.name: benchmark for benchmark in BENCHMARKS}


def _model_names(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in RELEASES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(RELEASES)}.")
    return tuple(names)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(BY_NAME)))
@click.option(
    "--models",
    callback=_model_names,
    metavar="NAMES",
    help="Releases, separated by commas, instead of the choice of each benchmark.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="Number of runs of each engine; the choice of each benchmark if not given.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="Seconds for which a run waits, or is repeated, while other programs take more than a "
    "tenth of the cores.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FOLDER / "RESULTS.md",
    help="Markdown file for the summary; benchmarks/RESULTS.md if not given. The runs are kept in "
    "results.json beside it, the plot in results.svg, and a page of each benchmark in results/.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=weights.default_cache,
    help="Folder for random weights (9 GB with ViT-L/14); a temporary folder if not given.",
)
@click.option(
    "--render",
    is_flag=True,
    help="Only write the report again from results.json, with the present targets and texts.",
)
def main(
    names: tuple[str, ...],
    models: tuple[str, ...] | None,
    rounds: int | None,
    patience: float,
    results: Path,
    cache: Path,
    render: bool,
) -> None:
    """Measure hfclip side by side with its peers: all benchmarks, or those that are named.

    A peer that is not installed gets a row that says so. A run replaces the earlier run of the
    same benchmark on the same processor family; all other results stay in the report.

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks load tokenize
      python -m benchmarks load --models ViT-L/14 --rounds 9
      python -m benchmarks preprocess --results /tmp/try.md
    """  # noqa: D301  # \b is click's own mark
    chosen = [benchmark for name, benchmark in BY_NAME.items() if name in names or not names]
    records = _read(results)
    failed = []
    for benchmark in chosen if not render else []:
        run = _run(benchmark, Options(cache.resolve(), models), rounds, patience)
        click.echo(tables.text(run.section, run.record))
        records = store.add(records, run.section.name, run.record)
        _write(records, results)
        failed += [
            f"{result.case.engine}: {result.failure}" for result in run.results if result.failure
        ]
    _write(records, results)
    # Comes last: a child process would count the imports of the plot as its own memory.
    plot.draw(overview.by_family(SECTIONS, records), _beside(results, "svg"))
    if failed:
        raise click.ClickException("; ".join(failed))


def _read(results: Path) -> store.Records:
    """Reads the earlier runs and judges them by the present targets, before minutes are spent."""
    try:
        records = store.read(_beside(results, "json"))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    sections = {section.name: section for section in SECTIONS}
    return {
        name: {
            family: judge_again(sections[name], record) if name in sections else record
            for family, record in families.items()
        }
        for name, families in records.items()
    }


def _beside(results: Path, ending: str) -> Path:
    """Returns the path of another file that belongs to a report."""
    return results.with_name(f"{results.stem.lower()}.{ending}")


def _run(benchmark: Benchmark, options: Options, rounds: int | None, patience: float) -> Run:
    section, rounds = benchmark.section, rounds or benchmark.rounds
    click.echo(f"{section.title}. Weights and inputs are in {options.cache}.", err=True)
    try:
        cases = benchmark.cases(options)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"an input file could not be written: {error}") from error
    models = ["--models", ",".join(options.models)] if options.models else []
    command = " ".join(["python -m benchmarks", section.name, *models, f"--rounds {rounds}"])
    found = measure(cases, rounds, patience, warms_up=benchmark.warms_up)
    return Run(section, command, rounds, found, machine.describe(), machine.packages())


def _write(records: store.Records, results: Path) -> None:
    """Writes the runs, the page of each benchmark and the summary."""
    pages = results.with_name(results.stem.lower())
    store.write(_beside(results, "json"), records)
    for section in SECTIONS:
        if own := records.get(section.name):
            page = tables.page(section, own, f"../{results.name}")
            store.write_whole(pages / f"{section.name}.md", page)
    drawing = _beside(results, "svg").name
    store.write_whole(results, overview.document(SECTIONS, records, pages.name, drawing))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
