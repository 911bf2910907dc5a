"""Generates the model cards: one for each of the nine releases, and one for `digits`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from conversion.digits import ACCURACY_FILE
from hfclip.cards import marks as card_marks
from hfclip.cards.card import TASK, file_row
from hfclip.cards.card import facts as facts_of
from hfclip.cards.renewal import LOCAL_HINT, RELEASE
from hfclip.layouts.files import WEIGHTS_FILE
from hfclip.releases import RELEASES, repository_name

HERE = Path(__file__).parent
FOLDER = HERE.parent / "model_cards"
PAPER = "https://arxiv.org/abs/2103.00020"

RELEASED = {
    "RN50": "January 2021",
    "ViT-B/32": "January 2021",
    "RN101": "March 2021",
    "RN50x4": "March 2021",
    "RN50x16": "July 2021",
    "ViT-B/16": "July 2021",
    "RN50x64": "January 2022",
    "ViT-L/14": "January 2022",
    "ViT-L/14@336px": "April 2022",
}
# Accuracy in percent, from table 11 of the paper. Only values that another source confirms.
IMAGENET = {"ViT-B/32": 63.2, "ViT-B/16": 68.6, "ViT-L/14@336px": 76.2}
TRANSFORMERS = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}


def release_card(
    name: str, folder: Path | None = None, provenance: Mapping[str, str] | None = None
) -> str:
    """Returns the card of one of the nine releases.

    Args:
        name: The name of the release.
        folder: A converted folder. The card lists its weight file and carries a seal. None for the
            card in model_cards/.
        provenance: Facts about the source of the weight file, by name.
    """
    release = RELEASES[name]
    weights = [folder / WEIGHTS_FILE] if folder else []
    card = ModelCard.from_template(
        _release_data(name),
        template_path=str(HERE / "release_card.md.jinja"),
        title=f"CLIP {name}",
        name=name,
        is_local=folder is not None,
        local_hint=LOCAL_HINT,
        release=release,
        released=RELEASED[name],
        transformers_id=TRANSFORMERS.get(name),
        facts=facts_of(release.config),
        accuracy=IMAGENET.get(name),
        files=[file_row(path) for path in weights],
        provenance=provenance or {},
    )
    text = f"{str(card).rstrip()}\n"
    if folder is None:
        return text
    about = {
        RELEASE: name,
        "license": "mit",
        "base_model": release.hub.repo_id,
        "relation": "derived",  # used only after the weights have changed
    }
    return card_marks.seal(text, about)


def _release_data(name: str) -> ModelCardData:
    results = (
        [
            EvalResult(
                TASK,
                "imagenet-1k",
                "ImageNet",
                "accuracy",
                IMAGENET[name],
                source_name="the CLIP paper, table 11",
                source_url=PAPER,
            )
        ]
        if name in IMAGENET
        else []
    )
    return ModelCardData(
        license="mit",
        library_name="hfclip",
        pipeline_tag=TASK,
        tags=["clip", "hfclip"],
        model_name=repository_name(name) if results else None,
        eval_results=results or None,
        language="en",
        ignore_metadata_errors=False,
    )


def digits_card() -> str:
    """Returns the card of the bundled model, with the accuracies in digits_accuracy.json."""
    accuracy = json.loads(ACCURACY_FILE.read_text(encoding="utf-8"))
    data = ModelCardData(
        license="mit",
        library_name="hfclip",
        pipeline_tag=TASK,
        tags=["clip", "hfclip"],
        language="en",
        model_name="digits",
        eval_results=[
            EvalResult(
                TASK,
                "optical-recognition-of-handwritten-digits",
                "Optical Recognition of Handwritten Digits, every fifth held out",
                "accuracy",
                round(100 * accuracy["trained wordings, words, mean"], 2),
            )
        ],
        ignore_metadata_errors=False,
    )
    card = ModelCard.from_template(
        data, template_path=str(HERE / "digits_card.md.jinja"), accuracy=accuracy
    )
    return f"{str(card).rstrip()}\n"


def all_cards() -> dict[str, str]:
    """Returns all cards by their file names in model_cards/."""
    cards = {f"{repository_name(name)}.md": release_card(name) for name in RELEASES}
    return {**cards, "digits.md": digits_card()}


@click.command(epilog="Example: python -m conversion cards --check")
@click.option("--check", is_flag=True, help="Write nothing. Exit with 1 if a file differs.")
def main(check: bool) -> None:
    """Write the model cards in model_cards/."""
    stale = []
    for name, text in all_cards().items():
        path = FOLDER / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    verb = "differs" if check else "written"
    for name in stale:
        click.echo(f"{name} {verb}")
    sys.exit(1 if check and stale else 0)
