"""Draws the weights of large models quickly.

The initialisers of torch and of other packages draw each weight up to three times. For a model of
full size that takes longer than the rest of its test.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from hfclip.network.initialization import NoInitialization

Model = TypeVar("Model", bound=nn.Module)
# A prime: no row of a matrix equals another, although all come from one block of numbers.
_NUMBERS = 1_048_583


@functools.cache
def _block() -> Tensor:
    """Returns the numbers twice, so that a slice of up to all of them may begin anywhere."""
    return torch.randn(_NUMBERS, generator=torch.Generator().manual_seed(0)).repeat(2)


@torch.no_grad()
def quickly_drawn(build: Callable[[], Model]) -> Model:
    """Builds a model in eval mode and fills its parameters from one block of random numbers.

    Matrices have a scale that keeps activations bounded, and vectors such as biases are small. The
    weights of norms and single numbers stay as they were built.
    """
    with NoInitialization():
        model = build().eval()
    start = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0 or (parameter.ndim == 1 and name.endswith("weight")):
            continue
        scale = 0.02 if parameter.ndim == 1 else (3 * parameter[0].numel()) ** -0.5
        for part in torch.split(parameter.view(-1), _NUMBERS):
            torch.mul(_block()[start : start + len(part)], scale, out=part)
        start = (start + parameter.numel()) % _NUMBERS
    return model


def undrawn(build: Callable[[], Model]) -> Model:
    """Builds a model in eval mode without drawing weights. The caller must load all of them."""
    with NoInitialization():
        return build().eval()


def without_memory(build: Callable[[], Model]) -> Model:
    """Builds a model whose tensors have shapes but no values.

    Initialisers take longer on the meta device than on the CPU, so they are skipped.
    """
    with torch.device("meta"), NoInitialization():
        return build()
