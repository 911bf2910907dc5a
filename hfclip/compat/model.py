"""What `import clip.model` gives: hfclip's own classes, and how a model is made of a state dict.

To assign to a class here is to replace it: hfclip's towers are built of what stands in this
module, so `clip.model.LayerNorm = torch.nn.LayerNorm` has the effect that it had in `clip`.
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
import hfclip.network.layers
import hfclip.network.resnet
import hfclip.network.vit
from hfclip.checkpoints.read import Checkpoint, infer_config
from hfclip.model import CLIP
from hfclip.network.layers import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from hfclip.network.resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from hfclip.network.vit import VisionTransformer

# All that `from clip.model import *` used to give.
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

_PARTS = frozenset(
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
_HOMES = (hfclip.network.layers, hfclip.network.resnet, hfclip.network.vit, hfclip.model)
# OpenAI's archives hold these beside the weights.
_NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size"})


def convert_weights(model: nn.Module) -> None:
    """Casts to float16, in place, what OpenAI's releases hold in it; the rest stays as it is."""
    hfclip.model.convert_weights(model, torch.float16)


def build_model(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Makes a model of a state dict in OpenAI's layout, in mixed float16 and in eval mode.

    The tensors are copied. The configuration is read off their shapes.

    Raises:
        WeightsMismatchError: They are not the tensors of one of OpenAI's architectures.
    """
    tensors = {
        key: value.detach().clone() for key, value in state_dict.items() if key not in _NOT_WEIGHTS
    }
    source = Path("the given state dict")
    config = infer_config(tensors, source)
    return assemble(Checkpoint(source, "state dict", config, tensors), torch.float16)


def assemble(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Makes a model of what this module holds at the time, in `dtype` where a CLIP computes.

    A `convert_weights` that someone has put here decides on the types instead, but for float32,
    which is what a model on the CPU is cast to in the end.
    """
    model: Any
    if CLIP is hfclip.model.CLIP:
        model = CLIP.from_checkpoint(checkpoint)
    else:
        numbers = list(checkpoint.config.to_dict().values())[:10]
        model = CLIP(*numbers)
        model.load_state_dict(dict(checkpoint.tensors))
    if convert_weights is _own_convert_weights:
        hfclip.model.convert_weights(model, dtype)
    else:
        model.float()  # as a model of `clip` is before its conversion
        convert_weights(model)
        if dtype == torch.float32:
            model.float()
    built: nn.Module = model.eval()
    return built


_own_convert_weights = convert_weights


class _Replaceable(ModuleType):
    """A module whose classes, when assigned to, are replaced wherever hfclip builds of them."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _PARTS:
            for home in _HOMES:
                if name in vars(home):
                    setattr(home, name, value)


sys.modules[__name__].__class__ = _Replaceable
