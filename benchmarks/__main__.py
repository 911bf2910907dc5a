"""The command line of the benchmarks."""

import subprocess
from pathlib import Path

import click

from benchmarks import (
    captions,
    encode,
    imports,
    limits,
    machine,
    plot,
    preprocessing,
    report,
    tokenization,
    weights,
)
from benchmarks import load as loading
from benchmarks.measure import measure
from benchmarks.suite import Benchmark, Options
from hfclip.releases import RELEASES

FOLDER = Path(__file__).parent
# In the order in which they run and stand in the report.
BENCHMARKS: tuple[Benchmark, ...] = (
    limits.BENCHMARK,
    imports.BENCHMARK,
    loading.BENCHMARK,
    tokenization.BENCHMARK,
    preprocessing.BENCHMARK,
    encode.BENCHMARK,
    captions.BENCHMARK,
)
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
    help="Releases, with commas between, in place of those that each benchmark chooses.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="How often each engine runs; as often as each benchmark chooses if not given.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="Seconds for which a run waits, or is repeated, while other programs take a tenth of "
    "the cores.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FOLDER / "RESULTS.md",
    help="Markdown file whose sections are renewed; the runs go into results.json beside it, and "
    "their plot into results.svg. benchmarks/RESULTS.md if not given.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=weights.default_cache,
    help="Where random weights are kept (9 GB with ViT-L/14); a temporary folder if not given.",
)
def main(
    names: tuple[str, ...],
    models: tuple[str, ...] | None,
    rounds: int | None,
    patience: float,
    results: Path,
    cache: Path,
) -> None:
    """Measure hfclip side by side with its peers: everything, or what is named.

    A peer that is not installed gets a row that says so. What was measured before and is not
    named stays in the report.

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks load tokenize
      python -m benchmarks load --models ViT-L/14 --rounds 9
      python -m benchmarks preprocess --results /tmp/try.md
    """  # noqa: D301  # \b is click's own mark
    chosen = [benchmark for name, benchmark in BY_NAME.items() if name in names or not names]
    _check(results, chosen)
    failed = []
    for benchmark in chosen:
        run = _run(benchmark, Options(cache.resolve(), models), rounds, patience)
        failed += _publish(run, results)
    # Last, for what it imports would count as the children's memory.
    plot.draw(report.read_json(_beside(results, "json")), _beside(results, "svg"))
    if failed:
        raise click.ClickException("; ".join(failed))


def _check(results: Path, benchmarks: list[Benchmark]) -> None:
    """Sees to it that all will find their places, before minutes are spent."""
    try:
        report.read_json(_beside(results, "json"))
        for benchmark in benchmarks:
            report.check(results, benchmark.section)
    except ValueError as error:
        raise click.ClickException(f"{results}: {error}") from error


def _beside(results: Path, ending: str) -> Path:
    """The file of another kind that belongs to a report."""
    return results.with_name(f"{results.stem.lower()}.{ending}")


def _run(benchmark: Benchmark, options: Options, rounds: int | None, patience: float) -> report.Run:
    section, rounds = benchmark.section, rounds or benchmark.rounds
    click.echo(f"{section.title}. What it reads is kept in {options.cache}.", err=True)
    try:
        cases = benchmark.cases(options)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"what is read could not be written: {error}") from error
    models = ["--models", ",".join(options.models)] if options.models else []
    command = " ".join(["python -m benchmarks", section.name, *models, f"--rounds {rounds}"])
    found = measure(cases, rounds, patience, warms_up=benchmark.warms_up)
    return report.Run(section, command, rounds, found, machine.describe(), machine.packages())


def _publish(run: report.Run, results: Path) -> list[str]:
    """Prints and writes; gives the engines that failed, with the reason."""
    click.echo(report.text(run))
    report.write_markdown(results, run)
    report.write_json(_beside(results, "json"), run)
    return [f"{result.case.engine}: {result.failure}" for result in run.results if result.failure]


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
