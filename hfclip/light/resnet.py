"""The image tower of the RN models in NumPy: a ResNet with a deeper stem and attention pooling.

Images have the shape (B, H, W, C) here, so that a convolution is a product of matrices.
"""

import numpy as np

from hfclip.config import ClipConfig
from hfclip.light.layers import attend, linear
from hfclip.light.weights import Floats, Weights

_EPSILON = np.float32(1e-5)  # of BatchNorm


def encode_resnet(pixels: Floats, weights: Weights, config: ClipConfig) -> Floats:
    """Encodes images with a stem of three convolutions, four stages and attention pooling.

    Shapes: (B, 3, S, S) -> (B, D), where S is the side of an image in pixels, W the width of the
    first stage and D that of the embedding.
    """
    assert isinstance(config.vision_layers, tuple)  # noqa: S101  # the tower is a ResNet
    x = pixels.transpose(0, 2, 3, 1)  # (B, S, S, 3)
    x = relu(convolution(x, weights, 1, stride=2))  # (B, S/2, S/2, W/2)
    x = relu(convolution(x, weights, 2))  # (B, S/2, S/2, W/2)
    x = relu(convolution(x, weights, 3))  # (B, S/2, S/2, W)
    x = average_pool(x)  # (B, S/4, S/4, W)
    for stage, blocks in enumerate(config.vision_layers):
        for block in range(blocks):
            halves = stage > 0 and block == 0
            x = bottleneck(x, weights.part(f"layer{stage + 1}.{block}"), halves=halves)
    return attention_pool(
        x, weights.part("attnpool"), config.vision_heads
    )  # of (B, S/32, S/32, 32 W)


def bottleneck(x: Floats, weights: Weights, *, halves: bool) -> Floats:
    """Adds 1x1, 3x3 and 1x1 convolutions to a shortcut: (B, H, H, C) -> (B, H', H', C')."""
    shortcut = average_pool(x) if halves else x
    if "downsample.0.weight" in weights:
        norm = weights.part("downsample.1")
        shortcut = _normalised_product(shortcut, weights["downsample.0.weight"], norm)
    x = relu(convolution(x, weights, 1))
    x = relu(convolution(x, weights, 2))
    x = convolution(average_pool(x) if halves else x, weights, 3)
    x += shortcut
    return relu(x)


def convolution(x: Floats, weights: Weights, number: int, stride: int = 1) -> Floats:
    """Computes a numbered convolution of 1x1 or 3x3 and its BatchNorm: (B, H, H, C) -> (.., C')."""
    kernel = weights[f"conv{number}.weight"]  # (C', C, K, K)
    if kernel.shape[-1] > 1:
        x = _neighbourhoods(x, kernel.shape[-1], stride)  # (B, H', H', C*K*K)
    return _normalised_product(x, kernel, weights.part(f"bn{number}"))


def _neighbourhoods(x: Floats, side: int, stride: int) -> Floats:
    """Puts the pixels around each pixel beside each other: (B, H, H, C) -> (B, H', H', C*K*K)."""
    border = side // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    windows = windows[:, ::stride, ::stride]  # (B, H', H', C, K, K)
    return windows.reshape(*windows.shape[:3], -1)


def _normalised_product(x: Floats, kernel: Floats, norm: Weights) -> Floats:
    """Multiplies by a kernel (C', ...) and applies the statistics of training: (..., C')."""
    scale = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
    matrix = kernel.reshape(len(kernel), -1) * scale[:, None]
    return linear(x, matrix, norm["bias"] - norm["running_mean"] * scale)


def average_pool(x: Floats) -> Floats:
    """Averages squares of 2x2 pixels: (B, H, H, C) -> (B, H/2, H/2, C)."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    means: Floats = squares.mean(axis=(2, 4))
    return means


def attention_pool(x: Floats, weights: Weights, heads: int) -> Floats:
    """Pools a grid by attention with one query, the mean of the grid: (B, G, G, W) -> (B, D)."""
    batch, _, _, width = x.shape
    x = x.reshape(batch, -1, width)  # (B, G*G, W)
    x = np.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)  # (B, 1 + G*G, W)
    x = x + weights["positional_embedding"]
    queries, keys, values = (
        linear(part, weights[f"{name}_proj.weight"], weights[f"{name}_proj.bias"])
        .reshape(batch, -1, heads, width // heads)
        .transpose(0, 2, 1, 3)
        for name, part in (("q", x[:, :1]), ("k", x), ("v", x))
    )  # (B, H, 1 or 1 + G*G, W/H)
    pooled = attend(queries, keys, values)[:, 0]  # (B, W)
    return linear(pooled, weights["c_proj.weight"], weights["c_proj.bias"])


def relu(x: Floats) -> Floats:
    """Replaces negative numbers by 0, in place."""
    return np.maximum(x, 0, out=x)
