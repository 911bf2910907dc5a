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
    """The seconds that a way to compute takes.

    Attributes:
        start: For the imports and the preparation that only this way needs.
        picture: For each GFLOP of an image tower that is a ViT.
        resnet: For each GFLOP of an image tower that is a ResNet.
        caption: For each GFLOP of the text tower.
    """

    start: float
    picture: float
    resnet: float
    caption: float


# In float32. torch and the optimized towers were measured on 2 cores of an AMD Zen 5 (2026-11-23):
# import, load and first picture 1.6 s, 18 and 45 pictures a second for ViT-B/32, 16 and 28 for
# RN50, 19 and 48 captions of 77 tokens. NumPy takes 1.12 times the processor time of torch for
# ViT-B/32, 1.32 times for RN50 and 1.05 times for captions, with one thread of an Intel Xeon
# (2026-11-27). benchmarks/first_answer.py measures the whole.
COSTS = {
    "numpy": Costs(start=0.0, picture=0.0071, resnet=0.0071, caption=0.0095),
    "torch": Costs(start=1.5, picture=0.0063, resnet=0.0054, caption=0.0090),
    "torch, optimized": Costs(start=2.8, picture=0.0025, resnet=0.0031, caption=0.0036),
}
# The numbers from which `hfclip classify` optimizes the towers: those of `hfclip.cli.encoding`.
MANY_PICTURES, MANY_CAPTIONS = 64, 256
# Of the start of torch, what remains if the process has imported it before.
LOADING = 0.1


def quickest(
    config: ClipConfig, pictures: int, captions: int, *, has_imported_torch: bool = False
) -> Backend:
    """Returns the backend that probably answers sooner.

    Args:
        config: The model.
        pictures: The number of pictures to encode.
        captions: The number of captions to encode.
        has_imported_torch: Whether the process has imported torch already.
    """
    saved = COSTS["torch"].start - LOADING if has_imported_torch else 0.0
    is_optimized = pictures >= MANY_PICTURES or captions >= MANY_CAPTIONS
    ways = ("torch", "torch, optimized") if is_optimized else ("torch",)
    numpy = seconds(COSTS["numpy"], config, pictures, captions)
    torch = min(seconds(COSTS[way], config, pictures, captions) for way in ways)
    return "numpy" if numpy <= torch - saved else "torch"


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
