"""Replaces `clip.model`: hfclip's classes, and `build_model` for a state dict.

Assigning to a class of this module replaces it in hfclip's towers. So
`clip.model.LayerNorm = torch.nn.LayerNorm` has the same effect as in `clip`.
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

import hfclip.model
import hfclip.network.clip
import hfclip.network.layers
import hfclip.network.resnet
import hfclip.network.vit
from hfclip.checkpoints.names import NOT_WEIGHTS
from hfclip.checkpoints.read import Checkpoint
from hfclip.checkpoints.shapes import infer_config
from hfclip.model import CLIP
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer

# The names that `from clip.model import *` gives with OpenAI's package.
__all__ = [
    "CLIP",
    "AttentionPool2d",
    "Bottleneck",
    "F",
    "LayerNorm",
    "ModifiedResNet",
    "OrderedDict",
    "QuickGELU",
    "ResidualAttentionBlock",
    "Transformer",
    "VisionTransformer",
    "build_model",
    "convert_weights",
    "nn",
    "np",
    "torch",
]

_REPLACEABLE = frozenset(
    {
        "AttentionPool2d",
        "Bottleneck",
        "LayerNorm",
        "ModifiedResNet",
        "QuickGELU",
        "ResidualAttentionBlock",
        "Transformer",
        "VisionTransformer",
    }
)
_MODULES = (hfclip.network.layers, hfclip.network.resnet, hfclip.network.vit, hfclip.network.clip)


def convert_weights(model: nn.Module) -> None:
    """Casts to float16, in place, the weights that OpenAI's releases store in float16."""
    hfclip.network.clip.convert_weights(model, torch.float16)


def build_model(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Builds a model from a state dict in OpenAI's layout, in mixed float16 and in eval mode.

    The tensors are copied. The configuration is inferred from their shapes.

    Raises:
        WeightsMismatchError: The tensors do not fit any of OpenAI's architectures.
    """
    tensors = {
        key: value.detach().clone() for key, value in state_dict.items() if key not in NOT_WEIGHTS
    }
    source = Path("the given state dict")
    config = infer_config(tensors, source)
    return assemble(Checkpoint(source, "state dict", config, tensors), torch.float16)


def assemble(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Builds a model from the current classes of this module, in eval mode, computing in `dtype`.

    If `convert_weights` was replaced, the replacement chooses the dtypes. With `dtype` float32 (on
    the CPU) the model is cast to float32 afterwards.
    """
    model: Any
    if CLIP is hfclip.model.CLIP:
        model = CLIP.from_checkpoint(checkpoint)
    else:
        numbers = list(checkpoint.config.to_dict().values())[:10]
        model = CLIP(*numbers)
        model.load_state_dict(dict(checkpoint.tensors))
    if convert_weights is _own_convert_weights:
        hfclip.network.clip.convert_weights(model, dtype)
    else:
        model.float()  # models of `clip` are float32 before convert_weights
        convert_weights(model)
        if dtype == torch.float32:
            model.float()
    built: nn.Module = model.eval()
    return built


_own_convert_weights = convert_weights


class _Replaceable(ModuleType):
    """A module in which assigning to a class also replaces it in hfclip's modules."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _REPLACEABLE:
            for module in _MODULES:
                if name in vars(module):
                    setattr(module, name, value)


sys.modules[__name__].__class__ = _Replaceable
