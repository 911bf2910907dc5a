"""Estimates the seconds to an answer with NumPy and with torch.

NumPy starts sooner and torch computes faster, so NumPy is sooner for few pictures, torch for many.
The estimate only decides which of the two computes: the answers are equal but for rounding.
"""

from dataclasses import dataclass
from typing import Literal

from hfclip.config import ClipConfig

Backend = Literal["numpy", "torch"]

# Tokens of a caption with its start and end tokens: the mean of labels in "a photo of a {}".
_TOKENS = 8


@dataclass(frozen=True)
class Costs:
    """The seconds that a process takes.

    Attributes:
        start: For imports, besides those that both backends need.
        picture: For each GFLOP of the image tower.
        resnet: The same, if the tower is a ResNet.
        caption: For each GFLOP of the text tower.
    """

    start: float
    picture: float
    resnet: float
    caption: float


COSTS: dict[Backend, Costs] = {
    "numpy": Costs(start=0.0, picture=0.0, resnet=0.0, caption=0.0),
    "torch": Costs(start=0.0, picture=0.0, resnet=0.0, caption=0.0),
}


def quickest(config: ClipConfig, pictures: int, captions: int) -> Backend:
    """Returns the backend that probably answers sooner.

    Args:
        config: The model.
        pictures: The number of pictures to encode.
        captions: The number of captions to encode.
    """
    return min(COSTS, key=lambda backend: seconds(COSTS[backend], config, pictures, captions))


def seconds(costs: Costs, config: ClipConfig, pictures: int, captions: int) -> float:
    """Estimates the seconds for pictures and captions, without what both backends need."""
    rate = costs.resnet if config.is_resnet else costs.picture
    image, text = pictures * image_gflop(config), captions * caption_gflop(config)
    return costs.start + rate * image + costs.caption * text


def image_gflop(config: ClipConfig) -> float:
    """Counts the multiplications and additions for one image, in 1e9."""
    if isinstance(config.vision_layers, tuple):
        return 2e-9 * _resnet_products(config, config.vision_layers)
    positions, width = config.image_positions, config.vision_width
    patch = config.vision_patch_size or 0
    block = 4 * width + 2 * config.vision_mlp_units + 2 * positions
    embedding = (positions - 1) * 3 * patch * patch * width
    return 2e-9 * (config.vision_layers * positions * width * block + embedding)


def caption_gflop(config: ClipConfig) -> float:
    """Counts the multiplications and additions for one caption of usual length, in 1e9."""
    width = config.transformer_width
    block = 4 * width + 2 * config.transformer_mlp_units + 2 * _TOKENS
    return 2e-9 * config.transformer_layers * _TOKENS * width * block


def _resnet_products(config: ClipConfig, stages: tuple[int, ...]) -> int:
    """Counts the products of the convolutions for one image. Their pixels halve at each stage."""
    width, side = config.vision_width, config.image_resolution // 2
    half = width // 2
    products = side**2 * 9 * (3 * half + half * half + half * width)
    side, fan_in = side // 2, width
    for stage, blocks in enumerate(stages):
        planes, before = width * 2**stage, side
        side = side // 2 if stage else side
        fan_out = 4 * planes
        for block in range(blocks):
            inner = before if block == 0 else side  # the first block halves after its 3x3
            products += inner**2 * (fan_in * planes + 9 * planes**2) + side**2 * planes * fan_out
            products += side**2 * fan_in * fan_out if block == 0 else 0
            fan_in = fan_out
    return products + config.image_positions * 2 * fan_in**2
