"""ONNX exports that tests share, because each export takes several seconds."""

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from hfclip.config import ClipConfig
from hfclip.model import CLIP
from hfclip.publishing.export import export

# The full vocabulary and context, so that the tokenizer is exported too.
VIT = ClipConfig(32, 64, 2, 128, 16, 77, 49408, 64, 1, 2)
# One layer a tower, because the time of an export grows with the depth. VIT covers more layers.
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


def exported_once(
    shared: Path, config: ClipConfig, dtype: torch.dtype, draw: Callable[..., CLIP]
) -> Export:
    """Returns the export of a drawn model from a folder that all test processes share.

    The first process that asks for a configuration and dtype writes the export. The others wait.
    """
    key = hashlib.sha256(f"{config} {dtype}".encode()).hexdigest()
    place = shared / f"onnx-{key[:16]}"
    made = Export(place / "model", place / "out")
    with FileLock(f"{place}.lock"):
        if not made.folder.exists():
            draw(config, dtype).save_pretrained(made.source, model_card_kwargs=ABOUT)
            export(made.source, made.folder, "onnx")
    return made


def share_operators() -> None:
    """Lets torch fill its table of ONNX operators once a process, not in 0.7 s for each graph."""
    from torch.onnx._internal.exporter import _registration  # it takes 0.6 s

    registry: Any = _registration.ONNXRegistry
    fill = functools.cache(registry.from_torchlib)
    registry.from_torchlib = staticmethod(fill)


def shared_by_processes(own: Path) -> Path:
    """Returns the folder that contains the temporary folder of each process of pytest-xdist.

    Args:
        own: The temporary folder of this process.
    """
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
