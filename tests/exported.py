"""ONNX exports that tests share."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfclip.config import ClipConfig
from hfclip.model import CLIP
from hfclip.publishing.export import export

# The full vocabulary and context, so that the tokenizer is exported too.
VIT = ClipConfig(32, 64, 2, 128, 16, 77, 49408, 64, 1, 2)
SHALLOW_VIT = replace(VIT, vision_layers=1, transformer_layers=1)
OTHER_MLPS = replace(SHALLOW_VIT, vision_mlp_width=300, transformer_mlp_width=37)
RESNET = ClipConfig(32, 64, (1, 2, 1, 1), 8, None, 77, 49408, 64, 1, 1)
# The fields of the card in the folder that is exported.
ABOUT: dict[str, Any] = {
    "license": "mit",
    "base_model": "timm/base",
    "datasets": ["mnist"],
    "metrics": [("mnist", "accuracy", 0.875)],
    "description": "Mine --> and nobody's.",
}


@dataclass(frozen=True)
class Export:
    """A folder in hfclip's layout and its ONNX export. Tests share both and change neither."""

    source: Path
    folder: Path


def exported(place: Path, model: CLIP) -> Export:
    """Saves a model and exports it as ONNX, both into new folders inside `place`."""
    model.save_pretrained(place / "model", model_card_kwargs=ABOUT)
    return Export(place / "model", export(place / "model", place / "out", "onnx"))


def shared_by_processes(own: Path) -> Path:
    """Returns the folder that contains the temporary folder of each process of pytest-xdist.

    Args:
        own: The temporary folder of this process.
    """
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
