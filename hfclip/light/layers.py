"""The layers of a CLIP in NumPy. Each function computes what the name says, and nothing else.

Shapes: B is the number of images or texts, L the number of positions, W the width of a tower, H the
number of heads. All arrays are float32.
"""

import math
from collections.abc import Callable

import numpy as np

from hfclip.config import ClipConfig
from hfclip.light.weights import Floats, Weights

_EPSILON = 1e-5  # of LayerNorm and BatchNorm


def linear(x: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
    """Multiplies the last dimension by a matrix (O, I) and adds a bias: (..., I) -> (..., O)."""
    # One large product: NumPy would multiply a stack of matrices one by one. This order of the two
    # factors is 1.3 times as fast for the positions of one image, 1.6 times for those of a text.
    y = (weight @ x.reshape(-1, x.shape[-1]).T).T
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], -1)


def layer_norm(x: Floats, weights: Weights) -> Floats:
    """Gives each vector mean 0 and variance 1, then scales and shifts it: (..., W) -> (..., W)."""
    y: Floats = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(y).mean(axis=-1, keepdims=True)
    y /= np.sqrt(variance + np.float32(_EPSILON))
    y *= weights["weight"]
    y += weights["bias"]
    return y


def quick_gelu(x: Floats) -> Floats:
    """Computes x * sigmoid(1.702 x), the approximation of GELU in OpenAI's models."""
    with np.errstate(over="ignore"):  # exp gives inf for x < -52, and x / inf is 0
        gated: Floats = x / (1 + np.exp(np.float32(-1.702) * x))
    return gated


def gelu(x: Floats) -> Floats:
    """Computes the exact GELU, x * P(a standard normal variable is below x)."""
    probability = np.float32(0.5) + np.float32(0.5) * _erf(x * np.float32(math.sqrt(0.5)))
    weighted: Floats = x * probability
    return weighted


# Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26: erf(x) is
# 1 - (a1 t + ... + a5 t^5) exp(-x^2) with t = 1 / (1 + p x), for x >= 0. Its error is below 1.5e-7.
_P = np.float32(0.3275911)
_A = np.array([0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429], np.float32)


def _erf(x: Floats) -> Floats:
    """Computes the error function. NumPy has none."""
    t = 1 / (1 + _P * np.abs(x))
    polynomial = np.zeros_like(t)
    for coefficient in _A[::-1]:
        polynomial += coefficient
        polynomial *= t
    erf: Floats = np.copysign(1 - polynomial * np.exp(-x * x), x)
    return erf


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"quick_gelu": quick_gelu, "gelu": gelu}


def softmax(x: Floats) -> Floats:
    """Turns the scores in the last dimension into weights that sum to 1, in place."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def attend(queries: Floats, keys: Floats, values: Floats, mask: Floats | None = None) -> Floats:
    """Mixes the values by the similarity of queries and keys.

    Shapes: (B, H, Q, W/H), (B, H, L, W/H), (B, H, L, W/H) -> (B, Q, W). The mask, (Q, L), is added
    to the scores.
    """
    scores = queries @ keys.swapaxes(-1, -2)  # (B, H, Q, L)
    scores *= np.float32(queries.shape[-1] ** -0.5)
    if mask is not None:
        scores += mask
    mixed = softmax(scores) @ values  # (B, H, Q, W/H)
    batch, heads, length, width = mixed.shape
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)


def attention(x: Floats, weights: Weights, heads: int, mask: Floats | None) -> Floats:
    """Lets each position collect information from the others: (B, L, W) -> (B, L, W)."""
    batch, length, _ = x.shape
    projected = linear(x, weights["in_proj_weight"], weights["in_proj_bias"])  # (B, L, 3 W)
    split = projected.reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    queries, keys, values = split  # (B, H, L, W/H) each
    mixed = attend(queries, keys, values, mask)  # (B, L, W)
    return linear(mixed, weights["out_proj.weight"], weights["out_proj.bias"])


def mlp(x: Floats, weights: Weights, activation: Callable[[Floats], Floats]) -> Floats:
    """Computes two linear layers with the activation between them: (B, L, W) -> (B, L, W)."""
    hidden = activation(linear(x, weights["c_fc.weight"], weights["c_fc.bias"]))  # (B, L, 4 W)
    return linear(hidden, weights["c_proj.weight"], weights["c_proj.bias"])


def transformer(
    x: Floats, weights: Weights, config: ClipConfig, heads: int, layers: int, *, causal: bool
) -> Floats:
    """Runs the residual blocks of a tower: (B, L, W) -> (B, L, W).

    Args:
        x: The embeddings of the positions.
        weights: The weights of the tower's transformer.
        config: The configuration, for the activation.
        heads: The number of attention heads.
        layers: The number of blocks.
        causal: Whether a position sees only those before it and itself, as in the text tower.
    """
    activation = ACTIVATIONS[config.activation]
    length = x.shape[1]
    mask = np.triu(np.full((length, length), -np.inf, np.float32), 1) if causal else None
    for layer in range(layers):
        block = weights.part(f"resblocks.{layer}")
        x = x + attention(layer_norm(x, block.part("ln_1")), block.part("attn"), heads, mask)
        x = x + mlp(layer_norm(x, block.part("ln_2")), block.part("mlp"), activation)
    return x
