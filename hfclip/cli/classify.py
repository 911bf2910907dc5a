"""`hfclip classify`: ranks labels for pictures."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from hfclip.errors import ImageError, OptimizationError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hfclip.model import CLIP
    from hfclip.zeroshot import Encoder, Guess, ZeroShotClassifier

BATCH = 16
# Pictures from which on `optimize`, which takes as long as some dozens of them, saves time.
MANY = 64


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--labels", required=True, help='What to choose from, as in "a cat,a dog".')
@click.option("--model", default="ViT-B/32", show_default=True, help="A name, folder or file.")
@click.option(
    "--base", help="What a weight file was fine-tuned from: a name, folder or repository."
)
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
    base: str | None,
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
    network, preprocess = load(model, device, base=base)
    choices = [label.strip() for label in labels.split(",")]
    classifier = ZeroShotClassifier(_encoder(network, len(names)), choices, templates)
    results = _progress(_classify(names, classifier, preprocess, top), len(names))
    broken = _print_json(results) if as_json else _print_text(results)
    sys.exit(1 if broken else 0)


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
