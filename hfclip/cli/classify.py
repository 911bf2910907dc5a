"""`hfclip classify`: ranks labels for pictures, and for the embeddings of collections."""

import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hfclip.cli import collections
from hfclip.cli.completion import complete_models
from hfclip.cli.encoding import Encoders, encode_labels
from hfclip.cli.label_options import (
    TEXT_FILE,
    complete,
    read_labels,
    read_templates,
    template_options,
)
from hfclip.cli.output import echo
from hfclip.cli.part_options import part_options
from hfclip.cli.pictures import empty_folders, report_skipped
from hfclip.cli.results import PRINTERS, Result, progress

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hfclip.embedding.embeddings import Embeddings
    from hfclip.images.reading import FoundImages
    from hfclip.model import CLIP
    from hfclip.probing.probe import LinearProbe
    from hfclip.zeroshot.classifier import ZeroShotClassifier
    from hfclip.zeroshot.labels import Guess

# Pictures per batch.
BATCH = 16

# The options that say where the files of a model are.
_PLACES = ("base", "namespace", "subfolder", "variant")
# The options of which a manifest says everything.
_MADE = (*_PLACES, "auto_orient")
# The options that a probe replaces.
_ZERO_SHOT = ("labels", "labels_file", "template", "templates", "templates_file", "label_cache")


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--labels",
    help='The labels, separated by commas: "a cat,a dog". A '
    "fine-tuned model has labels of its own.",
)
@click.option("--labels-file", type=TEXT_FILE, help="A text file with one label per line.")
@click.option(
    "--probe",
    "probe_folder",
    type=click.Path(path_type=Path),
    help="A folder that `hfclip probe` wrote. It replaces labels, templates and model.",
)
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
@template_options()
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of labels."
)
@click.option("--device", help="cpu, cuda, cuda:1, ... Default: the GPU if there is one.")
@click.option("--json", "form", flag_value="json", help="Print one JSON array.")
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
    probe_folder: Path | None,
    top: int,
    form: Literal["json", "json-lines"] | None,
    **options: Any,
) -> None:
    """Rank labels for pictures.

    IMAGE is a file, a folder, a pattern such as "*.jpg", or - for standard input. A picture that
    cannot be read does not stop the others; the exit status is then 1. In a folder, files without
    the ending of a picture are skipped and listed. Ctrl-C prints the complete results; the exit
    status is then 130.

    IMAGE may also be a folder that `hfclip embed` wrote. Its embeddings are classified with the
    model that made them, and no picture is read.

    A model that `hfclip finetune` trained on labels needs neither --labels nor --template.

    The features of the labels are cached on disk for each model, labels and templates, up to 256
    MB. --no-label-cache turns this off.

    \b
    Examples:
      hfclip classify cat.jpg --labels "a cat,a dog" --template "a photo of {}"
      hfclip classify photos/ --labels-file labels.txt --templates imagenet
      hfclip classify photos/ --labels "indoors,outdoors" --top 1 --json-lines > places.jsonl
      hfclip classify photos-embedded --labels "indoors,outdoors" --json-lines > places.jsonl
      hfclip classify photos/ --probe my-probe
      hfclip classify "**/*.jpg" --labels-file birds.txt --templates-file prompts.txt --json
      hfclip classify cat.jpg --labels "cat,dog" --model ViT-B/16 --namespace me --device cuda
      hfclip classify cat.jpg --model me/my-clip
      cat cat.jpg | hfclip classify - --labels "cat,dog"
    """  # noqa: D301  # \b is click's syntax
    folders = collections.collections_in(images)
    if folders:
        collections.refuse(_MADE, "the manifest of the collection says how it was made.")
    if probe_folder is not None:
        collections.refuse(_ZERO_SHOT, "the probe has labels of its own.")
        collections.refuse(_MADE, "the probe names its model.")
        results, total = _by_probe(probe_folder, images, folders, top, options)
    elif folders:
        results, total = _collections_by_labels(folders, top, options)
    else:
        results, total = _pictures_by_labels(images, top, options)
    sys.exit(1 if _print(results, total, form) else 0)


def _by_probe(
    folder: Path, images: tuple[str, ...], folders: list[str], top: int, options: dict[str, Any]
) -> tuple[Iterator[Result], int]:
    """Returns the results by a linear probe, and their number."""
    from hfclip.probing.probe import LinearProbe  # noqa: PLC0415

    probe = LinearProbe.load(folder, device=options["device"])
    if collections.is_given("model"):
        collections.check_model(options["model"], probe.manifest, folder)
    if folders:
        opened = collections.opened(folders)
        for one in opened:
            probe.check(one.manifest)
        ranked = collections.ranked(opened, lambda rows: probe.rank(rows, top), len(probe.labels))
        return ranked, collections.count_of(opened)
    found = _found(images)
    pictures = _probed(found.names, probe, top) if found.names else iter(())
    return chain(empty_folders(found), pictures), len(found) + len(found.empty_folders)


def _probed(names: list[str], probe: "LinearProbe", top: int) -> Iterator[Result]:
    """Yields the labels that a probe gives to each picture, or its error if it cannot be read."""
    from hfclip.probing.pictures import MANY, encode_pictures  # noqa: PLC0415

    loaded = probe.loaded.optimized() if len(names) >= MANY else probe.loaded
    for batch in encode_pictures(loaded, names):
        ranked = iter(probe.rank(batch.vectors, top))
        for place, name in enumerate(batch.names):
            yield name, batch.errors[place] if place in batch.errors else next(ranked)


def _collections_by_labels(
    folders: list[str], top: int, options: dict[str, Any]
) -> tuple[Iterator[Result], int]:
    """Returns the zero-shot results of collections, and their number."""
    opened = collections.opened(folders)
    manifest = opened[0].manifest
    if collections.is_given("model"):
        collections.check_model(options["model"], manifest, folders[0])
    given, captions = _given(options, manifest.name)
    import torch  # noqa: PLC0415

    from hfclip.embedding.options import load_model_of  # noqa: PLC0415

    model = load_model_of(manifest, device=options["device"]).model
    classifier = _classifier(model, given, captions, manifest.name, options, 0)

    def rank(rows: "Embeddings") -> "list[list[Guess]]":
        return classifier.rank_features(torch.from_numpy(rows.to_numpy()), top)

    ranked = collections.ranked(opened, rank, len(classifier.labels))
    return ranked, collections.count_of(opened)


def _pictures_by_labels(
    images: tuple[str, ...], top: int, options: dict[str, Any]
) -> tuple[Iterator[Result], int]:
    """Returns the zero-shot results of pictures, and their number."""
    name = options["model"]
    given, captions = _given(options, name)
    found = _found(images)
    results: Iterator[Result] = iter(empty_folders(found))
    if found.names:  # otherwise no model is needed
        from hfclip.loading import load  # noqa: PLC0415

        places = {
            option: options[option] for option in ("base", "namespace", "subfolder", "variant")
        }
        network, preprocess = load(name, options["device"], **places)
        classifier = _classifier(network, given, captions, name, options, len(found))
        ranked = _classify(found.names, classifier, preprocess, top, options["auto_orient"])
        results = chain(results, ranked)
    return results, len(found) + len(found.empty_folders)


def _found(images: tuple[str, ...]) -> "FoundImages":
    from hfclip.images.reading import find_images  # noqa: PLC0415

    found = find_images(images)
    report_skipped(found)
    return found


def _given(
    options: dict[str, Any], model: str
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Returns the labels and templates of the options, or None where the model must have them."""
    labels = read_labels(options["labels"], options["labels_file"], model)
    return labels, read_templates(
        options["template"], options["templates"], options["templates_file"]
    )


def _classifier(
    network: "CLIP",
    labels: tuple[str, ...] | None,
    captions: tuple[str, ...] | None,
    name: str,
    options: dict[str, Any],
    count: int,
) -> "ZeroShotClassifier":
    """Returns the classifier for a number of pictures."""
    from hfclip.zeroshot.classifier import ZeroShotClassifier  # noqa: PLC0415

    choices, templates = complete(labels, captions, network, name)
    encoders = Encoders(network)
    features = encode_labels(encoders, choices, templates, remember=options["label_cache"])
    return ZeroShotClassifier(encoders.for_pictures(count), choices, features=features)


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
