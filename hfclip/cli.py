"""The command line. torch is imported by the commands that need it, not by `--help`."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hfclip import __version__
from hfclip.errors import HfclipError, ImageError, OptimizationError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hfclip.model import CLIP
    from hfclip.pushing import CardRule
    from hfclip.zeroshot import Encoder, Guess, ZeroShotClassifier

BATCH = 16
# Pictures from which on `optimize`, which takes as long as some dozens of them, saves time.
MANY = 64


class _Commands(click.Group):
    """Turns the errors that hfclip raises on purpose into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HfclipError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hfclip")
def main() -> None:
    """CLIP from the Hugging Face Hub: classify pictures; fetch, export and publish models.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog,a car"
      hfclip classify photos/ --labels "indoors,outdoors" --top 1 --json
      hfclip download ViT-B/32
      hfclip models
      hfclip inspect model.safetensors
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip publish last.pt me/my-clip --base ViT-B/16
    """  # noqa: D301  # \b is click's own mark


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--labels", required=True, help='What to choose from, as in "a cat,a dog".')
@click.option("--model", default="ViT-B/32", show_default=True, help="A name, folder or file.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    default=("a photo of a {}",),
    show_default=True,
    help="The caption, {} for the label. Repeat it to average several.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels.")
@click.option("--device", help="cpu, cuda, ...; the GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def classify(
    images: tuple[str, ...],
    labels: str,
    model: str,
    templates: tuple[str, ...],
    top: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Rank labels for pictures.

    IMAGE is a file, a folder, a pattern such as "*.jpg", or - for standard input. A picture that
    cannot be read is reported and the others go on; the exit status is then 1.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog" --template "a photo of {}"
      cat cat.jpg | hfclip classify - --labels "cat,dog"
    """  # noqa: D301  # \b is click's own mark
    from hfclip.images import find_images  # noqa: PLC0415
    from hfclip.loading import load  # noqa: PLC0415
    from hfclip.zeroshot import ZeroShotClassifier  # noqa: PLC0415

    names = list(find_images(images))
    network, preprocess = load(model, device)
    choices = [label.strip() for label in labels.split(",")]
    classifier = ZeroShotClassifier(_encoder(network, len(names)), choices, templates)
    results = _progress(_classify(names, classifier, preprocess, top), len(names))
    broken = _print_json(results) if as_json else _print_text(results)
    sys.exit(1 if broken else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def models(as_json: bool) -> None:
    """List the models that have a name."""
    from hfclip.inspection import list_models  # noqa: PLC0415

    rows = list_models()
    click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--revision", help="A branch, tag or commit, in place of the pinned one.")
@click.option("--namespace", help="Whose copies of the nine releases to fetch.")
@click.option("--force", is_flag=True, help="Fetch again what is cached.")
def download(
    names: tuple[str, ...], revision: str | None, namespace: str | None, force: bool
) -> None:
    """Fetch models ahead, for use without a network.

    NAME is one of `hfclip models`, or a repository on the Hub such as org/name.

    \b
    Examples:
      hfclip download ViT-B/32 RN50
      hfclip download laion/CLIP-ViT-B-32-laion2B-s34B-b79K
    """  # noqa: D301  # \b is click's own mark
    from hfclip.hub import Access  # noqa: PLC0415
    from hfclip.sources import find  # noqa: PLC0415

    for name in names:
        access = Access(force_download=force)
        source = find(name, access, revision=revision, namespace=namespace)
        click.echo(f"{name}  {source.origin}\n  {source.weights}")


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--repair", is_flag=True, help="Fetch anew what is damaged.")
@click.option("--namespace", help="Whose copies of the nine releases are meant.")
def verify(names: tuple[str, ...], repair: bool, namespace: str | None) -> None:
    """Hash cached models again, whatever is remembered of them.

    Without --repair no request is made. The exit status is 1 where a file is damaged or not cached.

    \b
    Examples:
      hfclip verify ViT-B/32
      hfclip verify me/my-clip --repair
    """  # noqa: D301  # \b is click's own mark
    from hfclip.inspection import verify as verify_model  # noqa: PLC0415

    for name in names:
        path, digest = verify_model(name, repair=repair, namespace=namespace)
        click.echo(f"{name}  {digest.kind} {digest.value}\n  {path}")


@main.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(model: str, as_json: bool) -> None:
    """Show what a model is: its numbers, dtypes, hash and origin.

    MODEL is a name, a folder or a weight file; no part of it is run.

    \b
    Examples:
      hfclip inspect digits
      hfclip inspect ViT-B-32.pt --json
    """  # noqa: D301  # \b is click's own mark
    from hfclip import inspection  # noqa: PLC0415

    facts = inspection.inspect(model)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    _print_facts(facts)


@main.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["hfclip", "open_clip", "transformers", "openai", "onnx"]),
    required=True,
    help="Whose layout to write.",
)
@click.option("--revision", help="A branch, tag or commit, of a repository.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export(model: str, folder: Path, layout: str, revision: str | None, force: bool) -> None:
    """Write MODEL into FOLDER as another package reads it, bit for bit.

    open_clip and transformers (ViTs only) load the folder by its path; openai is a state dict that
    `clip.load` takes; onnx adds a graph of each tower to hfclip's own layout. What was exported can
    be exported again, back to hfclip's layout with the same bytes of weights.

    \b
    Examples:
      hfclip export ViT-B/32 clip-b32 --layout transformers
      hfclip export clip-b32 back --layout hfclip
    """  # noqa: D301  # \b is click's own mark
    from hfclip.exporting import export as export_model  # noqa: PLC0415

    export_model(model, folder, layout, force=force, revision=revision)
    for path in sorted(folder.iterdir()):
        click.echo(f"{path.stat().st_size:>15,}  {path}")


@main.command()
@click.argument("source")
@click.argument("repository")
@click.option("--base", help="What it was fine-tuned from: a name, folder or repository.")
@click.option(
    "--layout",
    type=click.Choice(["hfclip", "open_clip", "transformers"]),
    default="hfclip",
    show_default=True,
    help="Whose layout to send; hfclip loads each of them.",
)
@click.option("--license", "license_name", help="As the Hub names it: mit, apache-2.0, ...")
@click.option("--dataset", "datasets", multiple=True, help="What it was trained on. Repeatable.")
@click.option(
    "--metrics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A JSON file, {"accuracy": 0.9} or {"dataset": {"accuracy": 0.9}}.',
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--replace-card", "card", flag_value="replace", help="Overwrite its README.md.")
@click.option("--keep-card", "card", flag_value="keep", help="Leave its README.md as it is.")
@click.option("--dry-run", is_flag=True, help="Check everything, show it, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    source: str,
    repository: str,
    private: bool,
    create_pr: bool,
    dry_run: bool,
    as_json: bool,
    card: "CardRule | None",
    **about: Any,
) -> None:
    """Publish a fine-tuned CLIP on the Hub.

    SOURCE is a weight file that a trainer left (with --base), or a folder. It is checked, sent in
    one commit, loaded back and compared. Log in first with `hf auth login`, or set HF_TOKEN.

    \b
    Examples:
      hfclip publish last.pt me/my-clip --base ViT-B/16 --license mit --dry-run
      hfclip publish folder/ me/my-clip --layout transformers --metrics results.json
    """  # noqa: D301  # \b is click's own mark
    from hfclip import publishing  # noqa: PLC0415

    about["license"] = about.pop("license_name")
    with publishing.prepared(
        source, repository, card=card or "refuse", create_pr=create_pr, **about
    ) as publication:
        plan = publication.describe()
        if not as_json:
            _print_facts(plan)
        done: dict[str, Any]
        if dry_run:
            done = {"commit": None, "url": None, "sent": []}
        else:
            pushed = publishing.send(publication, private=private or None, create_pr=create_pr)
            done = {"commit": pushed.commit, "url": pushed.url, "sent": pushed.sent}
    if as_json:
        click.echo(json.dumps(plan | done, indent=2))
    else:
        click.echo("nothing was sent" if dry_run else f"{'published':<14} {done['url']}")


def _print_facts(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):<14} {_sentence(value)}")


def _encoder(model: "CLIP", pictures: int) -> "Encoder":
    """The model, or what `optimize` makes of it where there is enough to do to pay for that."""
    if pictures < MANY or model.logit_scale.device.type != "cpu":
        return model
    from hfclip.inference import optimize  # noqa: PLC0415

    try:
        return optimize(model)
    except OptimizationError:  # rare weights that lose precision; the model itself does not
        return model


def _classify(
    names: list[str],
    classifier: "ZeroShotClassifier",
    preprocess: "Callable[[Image], Tensor]",
    top: int,
) -> "Iterator[tuple[str, list[Guess] | ImageError]]":
    """Ranks labels for each image in turn; an image that cannot be read gives its error."""
    from hfclip.images import load_batch  # noqa: PLC0415

    remaining = iter(names)
    while batch := list(islice(remaining, BATCH)):
        pixels, errors = load_batch(batch, preprocess)
        ranked = iter(classifier.rank(pixels, top) if len(pixels) else [])
        for index, name in enumerate(batch):
            yield name, errors[index] if index in errors else next(ranked)


def _progress(results: Iterator[Any], total: int) -> Iterable[Any]:
    """Shows a bar on a terminal, where there is more than one batch to wait for."""
    if total <= BATCH:
        return results
    from tqdm import tqdm  # noqa: PLC0415

    return tqdm(results, total=total, unit="image", disable=None)


def _print_text(results: "Iterable[tuple[str, list[Guess] | ImageError]]") -> int:
    broken = 0
    for name, outcome in results:
        if isinstance(outcome, ImageError):
            click.echo(f"Error: {outcome}", err=True)
            broken += 1
            continue
        click.echo(name)
        width = max(len(guess.label) for guess in outcome)
        for label, probability in outcome:
            click.echo(f"  {label:<{width}}  {probability:7.2%}")
    return broken


def _print_json(results: "Iterable[tuple[str, list[Guess] | ImageError]]") -> int:
    rows: list[dict[str, Any]] = []
    for name, outcome in results:
        if isinstance(outcome, ImageError):
            rows.append({"image": name, "error": str(outcome)})
        else:
            rows.append({"image": name, "labels": [guess._asdict() for guess in outcome]})
    click.echo(json.dumps(rows, indent=2))
    return sum("error" in row for row in rows)


def _table(rows: list[dict[str, Any]]) -> str:
    """Left-aligned columns under their names; numbers with thousands marked."""
    lines = [list(rows[0]), *([_sentence(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _sentence(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_sentence(count)} {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
