"""The command `hfclip probe`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip.cli.label_options import TEXT_FILE, read_templates, template_options
from hfclip.cli.output import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hfclip.probing.run import ProbeReport
    from hfclip.probing.scores import Scores

# The classes and the confusions that are printed.
_CLASSES, _CONFUSIONS = 30, 5


@click.command()
@click.argument("out", type=click.Path())
@click.option(
    "--labels-from",
    metavar="folder|caption",
    help="folder: the name of the folder that a picture is in. caption: the caption beside it, "
    "which `hfclip embed --caption-column` chose.",
)
@click.option(
    "--labels-file",
    type=TEXT_FILE,
    help="A CSV file with the columns key and label, and an optional column split.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to write, for `hfclip classify --probe`.",
)
@click.option("--force", is_flag=True, help="Replace the files of a probe in the folder.")
@click.option(
    "--split",
    type=click.Choice(["auto", "random"]),
    default="auto",
    show_default=True,
    help="auto: folders named train, val and test are used. random: they are ignored.",
)
@click.option("--test", type=float, default=0.2, show_default=True, help="Share for the test.")
@click.option(
    "--validation", type=float, default=0.1, show_default=True, help="Share for validation."
)
@click.option("--shots", type=click.IntRange(min=1), help="Train with this many of each class.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="With --shots, how often they are drawn.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the division.")
@template_options(", for zero-shot")
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def probe(
    out: str,
    folder: Path | None,
    force: bool,
    as_json: bool,
    template: tuple[str, ...],
    templates: str | None,
    templates_file: Path | None,
    **options: Any,
) -> None:
    """Train a linear probe on a collection that `hfclip embed` has written.

    OUT is the folder of the collection. The probe is a logistic regression on the embeddings. Its
    accuracy is printed beside that of zero-shot classification on the same test pictures.

    Pictures with the same content are never both in training and in the test.

    \b
    Examples:
      hfclip probe photos-embedded --labels-from folder -o my-probe
      hfclip classify new/ --probe my-probe
      hfclip probe photos-embedded --labels-from folder --shots 16 --seeds 5
      hfclip probe table-embedded --labels-from caption --template "a photo of a {}, a bird"
      hfclip probe photos-embedded --labels-file labels.csv --json
    """  # noqa: D301  # \b is click's syntax
    if (options["labels_from"] is None) == (options["labels_file"] is None):
        raise click.UsageError("Give exactly one of --labels-from and --labels-file.")
    captions = read_templates(template, templates, templates_file)
    from hfclip.atomic import check_free  # noqa: PLC0415
    from hfclip.embedding.embeddings import Embeddings  # noqa: PLC0415
    from hfclip.probing.run import ProbeOptions, probe_collection  # noqa: PLC0415

    chosen = ProbeOptions(templates=captions, **options)
    chosen.check()
    if folder is not None:
        check_free(folder, force=force)
    report = probe_collection(Embeddings(out, progress=True), chosen, progress=True)
    if folder is not None:
        report.probe.save(folder, force=force)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    for line in _lines(report):
        echo(line)
    if folder is not None:
        echo(f"\n{folder} is ready: hfclip classify PICTURES --probe {folder}")


def _lines(report: "ProbeReport") -> "Iterator[str]":
    counts, facts = report.counts, report.probe.facts
    origin = f"{' and '.join(report.given)} as given" if report.given else "divided at random"
    yield (
        f"{counts['train']:,} pictures for training, {counts['validation']:,} for validation, "
        f"{counts['test']:,} for the test ({origin}); {len(report.probe.labels):,} classes."
    )
    if counts["unlabelled"] or counts["errors"]:
        yield f"{counts['unlabelled']:,} pictures have no label, {counts['errors']:,} no embedding."
    if counts["unknown_keys"]:
        yield f"{counts['unknown_keys']:,} keys of the file are not in the collection."
    yield from report.notes
    validation = facts["validation_accuracy"]
    reached = "" if validation is None else f", accuracy on validation {validation:.2%}"
    yield f"C = {facts['c']:.4g}{reached}."
    if report.few_shot is not None:
        few = report.few_shot
        spread = "" if few.deviation is None else f", standard deviation {few.deviation:.2%}"
        yield (
            f"{few.shots:,} of each class, {len(few.seeds):,} draws: mean accuracy "
            f"{few.mean:.2%}{spread}."
        )
    yield ""
    yield from _table(report.scores, report.zero_shot)
    if report.scores.confusions:
        yield "\nMost frequent confusions of the probe:"
    for confusion in report.scores.confusions[:_CONFUSIONS]:
        yield f"  {confusion.label} taken for {confusion.guess}: {confusion.pictures:,}"


def _table(probe: "Scores", zero_shot: "Scores") -> "Iterator[str]":
    """Yields the accuracies. Of many classes, those where the probe is worst."""
    worst = sorted(probe.per_class, key=lambda label: _share(probe, label))[:_CLASSES]
    labels = [label for label in probe.per_class if label in worst]
    width = max(len("accuracy"), *map(len, labels))
    yield f"{'':<{width}}  {'pictures':>8}  {'probe':>8}  {'zero-shot':>9}"
    total = sum(count.total for count in probe.per_class.values())
    yield f"{'accuracy':<{width}}  {total:>8,}  {probe.accuracy:>8.2%}  {zero_shot.accuracy:>9.2%}"
    for label in labels:
        yield (
            f"{label:<{width}}  {probe.per_class[label].total:>8,}  {_share(probe, label):>8.2%}  "
            f"{_share(zero_shot, label):>9.2%}"
        )
    if len(probe.per_class) > _CLASSES:
        yield f"({_CLASSES} of {len(probe.per_class):,} classes, the worst of the probe.)"


def _share(scores: "Scores", label: str) -> float:
    count = scores.per_class[label]
    return count.right / count.total
