"""The image tower of the ViT models in NumPy."""

import numpy as np

from hfclip.config import ClipConfig
from hfclip.light.layers import layer_norm, linear, transformer
from hfclip.light.weights import Floats, Weights


def encode_vit(pixels: Floats, weights: Weights, config: ClipConfig) -> Floats:
    """Encodes images with a vision transformer and projects the class token.

    Shapes: (B, 3, S, S) -> (B, D), where S is the side of an image in pixels, G the number of
    patches per side, P the side of a patch, W the width of the tower and D that of the embedding.
    """
    assert isinstance(config.vision_layers, int)  # noqa: S101  # the tower is a ViT
    x = patches(pixels, config.vision_patch_size or 0)  # (B, G*G, 3*P*P)
    kernel = weights["conv1.weight"]  # (W, 3, P, P)
    x = linear(x, kernel.reshape(len(kernel), -1))  # (B, G*G, W)
    class_token = np.broadcast_to(weights["class_embedding"], (len(x), 1, x.shape[-1]))
    x = np.concatenate([class_token, x], axis=1)  # (B, 1 + G*G, W)
    x = layer_norm(x + weights["positional_embedding"], weights.part("ln_pre"))
    x = transformer(
        x,
        weights.part("transformer"),
        config,
        config.vision_heads,
        config.vision_layers,
        causal=False,
    )
    x = layer_norm(x[:, 0], weights.part("ln_post"))  # (B, W)
    return x @ weights["proj"]


def patches(pixels: Floats, side: int) -> Floats:
    """Cuts images into squares and drops a smaller rest: (B, C, S, S) -> (B, G*G, C*side*side)."""
    batch, channels, size, _ = pixels.shape
    grid = size // side
    whole = pixels[:, :, : grid * side, : grid * side]
    split = whole.reshape(batch, channels, grid, side, grid, side)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, -1)
