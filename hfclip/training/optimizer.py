"""The parameters to train, and the optimizer."""

import math

import torch
from torch import nn

from hfclip.model import CLIP
from hfclip.training.settings import Settings, Towers

# The CLIP paper, table 5: the values of Adam for ViTs and for ResNets.
_VIT = {"betas": (0.9, 0.98), "eps": 1e-6}
_RESNET = {"betas": (0.9, 0.999), "eps": 1e-8}
# The CLIP paper, section 2.5: a larger scale makes training unstable.
LARGEST_LOGIT_SCALE = math.log(100)


def choose_parameters(model: CLIP, towers: Towers) -> dict[str, nn.Parameter]:
    """Returns the parameters to train by name. The others no longer require a gradient."""
    chosen = {}
    for name, parameter in model.named_parameters():
        tower = "image" if name.startswith("visual.") else "text"
        parameter.requires_grad_(name == "logit_scale" or towers in ("both", tower))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def make_optimizer(
    model: CLIP, parameters: dict[str, nn.Parameter], settings: Settings
) -> torch.optim.AdamW:
    """Returns AdamW that decays tensors with two or more dimensions."""
    matrices = [each for each in parameters.values() if each.ndim >= 2]
    others = [each for each in parameters.values() if each.ndim < 2]
    is_resnet = isinstance(model.config.vision_layers, tuple)
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        fused=others[0].device.type in ("cpu", "cuda"),
        **(_RESNET if is_resnet else _VIT),  # type: ignore[arg-type]  # betas are two floats
    )


@torch.no_grad()
def clamp_logit_scale(model: CLIP) -> None:
    """Limits logit_scale to the logarithm of 100."""
    model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
