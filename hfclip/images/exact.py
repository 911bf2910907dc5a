"""The parameters of a preprocess, and its exact computation without torchvision."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from hfclip.config import ClipConfig, Triple
from hfclip.config.resizing import Interpolation, ResizeMode
from hfclip.images.memory import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_Levels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
Pixels: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Recipe(NamedTuple):
    """The parameters of a preprocess, as described in `hfclip.image_transform`."""

    resolution: int
    mean: Triple
    std: Triple
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    resize_resolution: int | None = None
    fill_color: int = 0

    @classmethod
    def of(cls, config: ClipConfig) -> Self:
        """Returns the parameters of a model's preprocess."""
        return cls(
            config.image_resolution,
            config.image_mean,
            config.image_std,
            config.resize_mode,
            config.interpolation,
            config.resize_resolution,
            config.fill_color,
        )

    @property
    def resize_side(self) -> int:
        """Returns the side, in pixels, to which an image is resized."""
        return self.resize_resolution or self.resolution

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the width and height after resizing an image of this width and height."""
        width, height = size
        side = self.resize_side
        if self.resize_mode == "squash":
            return side, side
        if self.resize_mode == "longest":
            return longest_resized(size, side)
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def corner(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns left and top of the center crop of a resized image of this width and height.

        They are negative, or zero, if the image is padded instead.
        """
        if self.resize_mode == "longest":
            left, top, _, _ = padding(size, self.resolution)
            return -left, -top
        width, height = size
        return round((width - self.resolution) / 2.0), round((height - self.resolution) / 2.0)

    def exact(self, image: Image.Image) -> "Tensor":
        """Returns `pixels` as a tensor: float32 (3, S, S)."""
        import torch  # noqa: PLC0415  # `pixels` needs no torch

        return torch.from_numpy(self.pixels(image))

    def pixels(self, image: Image.Image) -> Pixels:
        """Returns float32 (3, S, S), bit for bit as from the steps of torchvision."""
        keep_freed_memory()
        size = self.resized(image.size)
        if image.size != size:
            image = image.resize(size, RESAMPLING[self.interpolation])
        if self.resize_mode == "longest":
            image = padded(image, self.resolution, self.fill_color)
        else:
            left, top = self.corner(size)
            image = image.crop((left, top, left + self.resolution, top + self.resolution))
        return self._standardised(np.asarray(to_rgb(image)))

    def _standardised(self, levels: _Levels) -> Pixels:
        """Normalizes levels from 0 to 255 by a table: uint8 (S, S, 3) -> float32 (3, S, S)."""
        pixels = np.empty((3, *levels.shape[:2]), np.float32)
        for channel, table in enumerate(_tables(self.mean, self.std)):
            # mode="clip" skips the bounds check, which uint8 levels do not need.
            np.take(table, levels[..., channel], out=pixels[channel], mode="clip")
        return pixels


@lru_cache(maxsize=64)
def _tables(mean: Triple, std: Triple) -> Pixels:
    """Returns each level of each channel, computed as by ToTensor and Normalize: (3, 256)."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    means, deviations = (np.array(numbers, np.float32)[:, None] for numbers in (mean, std))
    tables: Pixels = (levels - means) / deviations
    return tables


def longest_resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns the width and height after resizing the longer side to `side`, at least 1 pixel.

    open_clip rounds the shorter side too, and fails where that gives 0.
    """
    ratio = max(length / side for length in size)
    width, height = (max(round(length / ratio), 1) for length in size)
    return width, height


def padding(size: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Returns the left, top, right and bottom padding that makes an image a square."""
    left, top = ((side - length) // 2 for length in size)
    return left, top, side - size[0] - left, side - size[1] - top


def padded(image: Image.Image, side: int, level: int) -> Image.Image:
    """Pads an image to a square with this level in each of its channels, alpha included."""
    if image.size == (side, side):
        return image
    channels = len(image.getbands())
    fill = level if channels == 1 else (level,) * channels
    return ImageOps.expand(image, padding(image.size, side), fill)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB. A step of the preprocess."""
    return image.convert("RGB")
