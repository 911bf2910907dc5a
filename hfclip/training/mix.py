"""Mixes the trained weights with those of the base, so that less is forgotten (WiSE-FT).

https://arxiv.org/abs/2109.01903
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hfclip.errors import ArgumentError, WeightsMismatchError
from hfclip.model import CLIP
from hfclip.training.metrics import Metrics

_S = TypeVar("_S")  # what a model scores

# The shares of the trained weights that are tried: 0 is the base, 1 the fine-tune alone.
ALPHAS = tuple(tenths / 10 for tenths in range(11))


def mixed(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Returns new tensors between two state dicts: (1 - alpha) * base + alpha * tuned.

    Args:
        base: The state dict before training, in any floating-point dtype.
        tuned: The state dict after training. Its dtypes are those of the result. Tensors of
            integers are taken from it.
        alpha: The share of `tuned`, from 0 to 1. 0 and 1 give the values of one side exactly.

    Raises:
        ArgumentError: `alpha` is out of range.
        WeightsMismatchError: The two have different names or shapes.
    """
    if not 0 <= alpha <= 1:
        raise ArgumentError(f"alpha is {alpha}; expected a share from 0 to 1.")
    differing = base.keys() ^ tuned.keys() or {
        name for name in tuned if base[name].shape != tuned[name].shape
    }
    if differing:
        raise WeightsMismatchError(
            f"{min(differing)} differs between the base and the trained weights; expected the same "
            "names and shapes."
        )
    return {name: _between(base[name], tensor, alpha) for name, tensor in tuned.items()}


def _between(base: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    start, end = base.detach().to(tuned), tuned.detach()
    if not end.is_floating_point() or alpha == 1:
        return end.clone()
    return start.clone() if alpha == 0 else torch.lerp(start, end, alpha)


def score_alphas(
    model: CLIP,
    base: Mapping[str, Tensor],
    measure: Callable[[CLIP], _S],
    known: Mapping[float, _S] | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> dict[float, _S]:
    """Measures the mixtures of a trained model and its base. The model keeps its weights.

    Args:
        model: The trained model.
        base: The state dict before training.
        measure: Measures a model, for example on the validation split.
        known: What is already measured, by alpha: it is not measured again.
        alphas: The shares of the trained weights.
    """
    tuned = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scores, known = {}, known or {}
    try:
        for alpha in alphas:
            if alpha in known:
                scores[alpha] = known[alpha]
                continue
            model.load_state_dict(mixed(base, tuned, alpha))
            scores[alpha] = measure(model)
    finally:
        model.load_state_dict(tuned)
    return scores


def choose_alpha(scores: Mapping[float, Metrics]) -> float:
    """Returns the smallest alpha that is within one standard error of the best on validation.

    The smaller alpha is, the less of the base is forgotten. A difference below one standard error,
    sqrt(p (1 - p) / n) for the best share p of n pictures, may be chance.

    Raises:
        ArgumentError: There is no score.
    """
    if not scores:
        raise ArgumentError("There is no score to choose alpha by.")
    best = max(scores.values(), key=lambda metrics: metrics.headline.value)
    share = best.headline.value
    error = math.sqrt(share * (1 - share) / best.count)
    return min(
        alpha for alpha, metrics in scores.items() if metrics.headline.value >= share - error
    )
