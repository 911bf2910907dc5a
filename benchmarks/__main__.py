"""The command line of the benchmarks."""

import subprocess
from pathlib import Path

import click

from benchmarks import load as loading
from benchmarks import machine, report, weights
from benchmarks.measure import measure
from hfclip.releases import RELEASES

RESULTS = Path(__file__).with_name("RESULTS.md")


def _model_names(_ctx: click.Context, _param: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in RELEASES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(RELEASES)}.")
    return names


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure hfclip side by side with its peers, all in one run.

    A peer that is not installed gets a row that says so.

    \b
    Examples:
      python -m benchmarks load
      python -m benchmarks load --models ViT-L/14 --rounds 9 --json load.json
      python -m benchmarks load --rounds 3 --results try.md
    """  # noqa: D301  # \b is click's own mark


@main.command()
@click.option(
    "--models",
    callback=_model_names,
    default="ViT-B/32,RN50",
    show_default=True,
    metavar="NAMES",
    help="Releases, with commas between.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Seconds for which a run waits, or is repeated, while other programs take a tenth of "
    "the cores.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    help="Markdown file whose section is renewed; benchmarks/RESULTS.md if not given.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write every round here.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=weights.default_cache,
    help="Where random weights are kept (1.6 GB for ViT-B/32); a temporary folder if not given.",
)
def load(
    models: list[str],
    rounds: int,
    patience: float,
    results: Path,
    json_path: Path | None,
    cache: Path,
) -> None:
    """Measure seconds and memory from a weight file to the first encoded image."""
    _check(results, loading.SECTION)
    click.echo(f"Weights in {cache}; those that are not there yet are written now.", err=True)
    try:
        cases = loading.cases(models, cache.resolve())
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"weights could not be written: {error}") from error
    command = f"python -m benchmarks load --models {','.join(models)} --rounds {rounds}"
    found = measure(cases, rounds, patience)
    facts, versions = machine.describe(), machine.packages()
    run = report.Run(loading.SECTION, command, rounds, found, facts, versions)
    _publish(run, results, json_path)


def _check(results: Path, section: report.Section) -> None:
    try:
        report.check(results, section)
    except ValueError as error:
        raise click.ClickException(f"{results}: {error}") from error


def _publish(run: report.Run, results: Path, json_path: Path | None) -> None:
    """Prints and writes; the exit status is 1 if an engine failed."""
    click.echo(report.text(run))
    report.write_markdown(results, run)
    if json_path is not None:
        report.write_json(json_path, run)
    failed = [f"{result.case.engine}: {result.failure}" for result in run.results if result.failure]
    if failed:
        raise click.ClickException("; ".join(failed))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
