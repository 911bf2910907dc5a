"""The files of a model in each layout: their names, and where those of one model are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hfclip.config import ClipConfig
from hfclip.layouts.labels import LabelSet

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
OPENAI_WEIGHTS_FILE = "model.pt"
PREPROCESSOR_FILE = "preprocessor_config.json"
PREPROCESSOR_FILES = (PREPROCESSOR_FILE, "processor_config.json")
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Source:
    """The files of one model, verified where a hash is known.

    Attributes:
        weights: The weight file, of any kind that `hfclip.checkpoints.read` reads.
        config: The configuration, or None if it must be inferred from the shapes.
        origin: A description of the model's origin.
        config_origin: A description of the configuration's origin.
        is_base: Whether the configuration belongs to the model from which the weights were
            fine-tuned. The weights then give the sizes that fine-tuning may change.
        mapped: Whether a safetensors file may be mapped into memory. This is safe only for files
            that nobody writes in place: those in the Hub client's cache or in hfclip's package.
        labels: The labels and templates of a fine-tuned model, or None.
    """

    weights: Path
    config: ClipConfig | None
    origin: str
    config_origin: str = "its configuration"
    is_base: bool = False
    mapped: bool = False
    labels: LabelSet | None = None


class Files(NamedTuple):
    """The files of a model's folder: one weight file, and the text files by file name."""

    weights_file: str
    weights: "Mapping[str, Tensor]"
    texts: Mapping[str, str]


def json_text(values: Mapping[str, Any]) -> str:
    """Returns a JSON file: sorted, indented, the same text for the same values."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
