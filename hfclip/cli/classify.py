"""`hfclip classify`: ranks labels for pictures."""

import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hfclip.cli.completion import complete_models
from hfclip.cli.encoding import Encoders, encode_labels
from hfclip.cli.label_options import complete, read_labels, read_templates
from hfclip.cli.output import echo
from hfclip.cli.part_options import part_options
from hfclip.cli.pictures import empty_folders, report_skipped
from hfclip.cli.results import PRINTERS, Result, progress
from hfclip.zeroshot.templates import TEMPLATES

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hfclip.zeroshot.classifier import ZeroShotClassifier

# Pictures per batch.
BATCH = 16

_TEXT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--labels",
    help='The labels, separated by commas: "a cat,a dog". A '
    "fine-tuned model has labels of its own.",
)
@click.option("--labels-file", type=_TEXT_FILE, help="A text file with one label per line.")
@click.option(
    "--model",
    default="ViT-B/32",
    show_default=True,
    shell_complete=complete_models,
    help="A name, folder, file or repository.",
)
@click.option(
    "--namespace",
    help="The account whose copies of the nine releases are used. Default: HFCLIP_NAMESPACE.",
)
@click.option(
    "--base",
    shell_complete=complete_models,
    help="The model that a weight file was fine-tuned from: a name, folder or repository.",
)
@part_options
@click.option(
    "--template",
    "template",
    multiple=True,
    help="A caption with {} for the label. Repeat to average several. Default: the templates of a "
    'fine-tuned model, else "a photo of a {}".',
)
@click.option(
    "--templates",
    type=click.Choice(list(TEMPLATES)),
    help="Average the 80 templates of OpenAI's evaluation on ImageNet.",
)
@click.option("--templates-file", type=_TEXT_FILE, help="A text file with one template per line.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of labels."
)
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option("--json", "form", flag_value="json", help="Print one JSON array at the end.")
@click.option(
    "--json-lines",
    "form",
    flag_value="json-lines",
    help="Print one JSON object per line, batch by batch.",
)
@click.option(
    "--auto-orient/--no-auto-orient",
    default=True,
    show_default=True,
    help="Apply the EXIF orientation of photographs.",
)
@click.option(
    "--label-cache/--no-label-cache",
    default=True,
    show_default=True,
    help="Cache label features under HF_HOME/hfclip/labels.",
)
def classify(
    images: tuple[str, ...],
    labels: str | None,
    labels_file: Path | None,
    model: str,
    namespace: str | None,
    base: str | None,
    subfolder: str | None,
    variant: str | None,
    template: tuple[str, ...],
    templates: str | None,
    templates_file: Path | None,
    top: int,
    device: str | None,
    form: Literal["json", "json-lines"] | None,
    auto_orient: bool,
    label_cache: bool,
) -> None:
    """Rank labels for pictures.

    IMAGE is a file, a folder, a pattern such as "*.jpg", or - for standard input. A picture that
    cannot be read does not stop the others; the exit status is then 1. In a folder, files without
    the ending of a picture are skipped and listed. Ctrl-C prints the complete results; the exit
    status is then 130.

    A model that `hfclip finetune` trained on labels needs neither --labels nor --template.

    The features of the labels are cached on disk for each model, labels and templates, up to 256
    MB. --no-label-cache turns this off.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog" --template "a photo of {}"
      hfclip classify photos/ --labels-file labels.txt --templates imagenet
      hfclip classify photos/ --labels "indoors,outdoors" --top 1 --json-lines > places.jsonl
      hfclip classify "**/*.jpg" --labels-file birds.txt --templates-file prompts.txt --json
      hfclip classify cat.jpg --labels "cat,dog" --model ViT-B/16 --namespace me --device cuda
      hfclip classify cat.jpg --model me/my-clip
      cat cat.jpg | hfclip classify - --labels "cat,dog"
    """  # noqa: D301  # \b is click's syntax
    given = read_labels(labels, labels_file, model)
    given_captions = read_templates(template, templates, templates_file)
    from hfclip.images.reading import find_images  # noqa: PLC0415

    found = find_images(images)
    report_skipped(found)
    results: Iterator[Result] = iter(empty_folders(found))
    if found.names:  # otherwise no model is needed
        from hfclip.loading import load  # noqa: PLC0415
        from hfclip.zeroshot.classifier import ZeroShotClassifier  # noqa: PLC0415

        network, preprocess = load(
            model,
            device,
            base=base,
            namespace=namespace,
            subfolder=subfolder,
            variant=variant,
        )
        choices, captions = complete(given, given_captions, network, model)
        encoders = Encoders(network)
        features = encode_labels(encoders, choices, captions, remember=label_cache)
        encoder = encoders.for_pictures(len(found))
        classifier = ZeroShotClassifier(encoder, choices, features=features)
        ranked = _classify(found.names, classifier, preprocess, top, auto_orient)
        results = chain(results, ranked)
    sys.exit(1 if _print(results, len(found) + len(found.empty_folders), form) else 0)


def _classify(
    names: list[str],
    classifier: "ZeroShotClassifier",
    preprocess: "Callable[[Image], Tensor]",
    top: int,
    auto_orient: bool,
) -> Iterator[Result]:
    """Yields the ranked labels of each picture, or its error if it cannot be read."""
    from hfclip.images.reading import load_batch  # noqa: PLC0415

    remaining = iter(names)
    while batch := list(islice(remaining, BATCH)):
        pixels, errors = load_batch(batch, preprocess, auto_orient=auto_orient)
        ranked = iter(classifier.rank(pixels, top) if len(pixels) else [])
        for index, name in enumerate(batch):
            yield name, errors[index] if index in errors else next(ranked)


def _print(results: Iterator[Result], total: int, form: str | None) -> int:
    """Prints results with a progress bar and returns the number of failures."""
    many = total > BATCH
    with progress(results, total, shown=many) as watched:
        broken = PRINTERS[form or "text"](watched)
    if broken and many:
        echo(f"{broken:,} of {total:,} could not be read.", err=True)
    return broken
