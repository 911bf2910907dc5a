"""Writes the folder of a finished fine-tune, which `hfclip publish` sends as it is."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from hfclip.atomic import written_whole
from hfclip.cards.card import About, file_row, model_card
from hfclip.cards.renewal import is_generated, read_card, renewed, write_card
from hfclip.checkpoints.finite import check_finite
from hfclip.config import ClipConfig
from hfclip.environment import processor_name
from hfclip.layouts.files import CARD_FILE
from hfclip.layouts.labels import LABELS_FILE, LabelSet
from hfclip.layouts.write import write_layout
from hfclip.publishing.companions import CURVES_FILE, FINETUNE_FILE, LOG_FILE
from hfclip.training.card import about_of
from hfclip.training.curves import draw, read_losses
from hfclip.training.results import Results
from hfclip.version import __version__

# The version of the form of finetune.json.
_FORM = 1
_PACKAGES = ("torch", "accelerate")


@dataclass(frozen=True)
class Outcome:
    """A finished fine-tune.

    Attributes:
        config: The configuration of the model.
        tensors: The weights to publish, by OpenAI's names.
        results: The numbers.
    """

    config: ClipConfig
    tensors: Mapping[str, Tensor]
    results: Results


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes the files of a finished fine-tune into its folder.

    The folder gets the model in hfclip's layout, README.md, finetune.json, curves.png if matplotlib
    is installed, and labels.json if the data has labels. No file holds a path of this machine.
    log.jsonl, which the training wrote there, gives the curve of the loss. Other files stay. A
    README.md that a person wrote stays too; only the marked parts of it are updated.

    Raises:
        PublishError: A weight is NaN or infinite. Nothing is written.
        ConfigError: The labels are not valid, or the README.md cannot be read.
    """
    check_finite(outcome.tensors)
    results = outcome.results
    labels = None
    if results.labels is not None:
        labels = LabelSet(results.labels, (str(results.settings["template"]),))
    earlier = read_card(folder / CARD_FILE)
    if earlier is not None and is_generated(earlier):
        earlier = None  # of an earlier fine-tune in this folder
    with written_whole(folder, replaces=[LABELS_FILE, CURVES_FILE]) as part:
        weights = write_layout(part, outcome.config, outcome.tensors, labels=labels)
        draw(results, read_losses(folder / LOG_FILE), part / CURVES_FILE)
        _write_results(part / FINETUNE_FILE, results, weights)

        def generate(about: About) -> str:
            return str(model_card(part, outcome.config, about))

        about = about_of(results)
        text = generate(about) if earlier is None else renewed(earlier, {}, generate, weights)
        write_card(part / CARD_FILE, text)


def _write_results(path: Path, results: Results, weights: Path) -> None:
    """Writes finetune.json, which names the weights that it describes."""
    row = file_row(weights)
    values = {
        "form": _FORM,
        "weights": {"file": row["name"], "sha256": row["sha256"]},
        **results.to_dict(),
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def versions() -> dict[str, str]:
    """Returns the versions of hfclip, Python and the packages that train."""
    found = {"hfclip": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_device(device: torch.device) -> str:
    """Returns a device in words: the name of the GPU, or of the processor with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{processor_name()}, {torch.get_num_threads()} threads"
    return f"{device.type} of {processor_name()}"
