"""The parameters of a preprocess, and its exact computation without torchvision."""

from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfclip.config import Triple

# Bytes. glibc's limit for this is 32 MB; it then keeps up to twice as much.
_LARGEST_BLOCK_KEPT = 31 * 2**20

_Levels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
_Tables: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Recipe(NamedTuple):
    """The parameters of a preprocess, as described in `hfclip.image_transform`."""

    resolution: int
    mean: Triple
    std: Triple

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the width and height after resizing an image of this width and height."""
        width, height = size
        if width <= height:
            return self.resolution, int(self.resolution * height / width)
        return int(self.resolution * width / height), self.resolution

    def corner(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns left and top of the center crop of a resized image of this width and height."""
        width, height = size
        return round((width - self.resolution) / 2.0), round((height - self.resolution) / 2.0)

    def exact(self, image: Image.Image) -> Tensor:
        """Returns float32 (3, S, S), bit for bit as from torchvision's five steps."""
        keep_freed_memory()
        size = self.resized(image.size)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = self.corner(size)
        image = image.crop((left, top, left + self.resolution, top + self.resolution))
        return self._standardised(np.asarray(to_rgb(image)))

    def _standardised(self, levels: _Levels) -> Tensor:
        """Normalizes levels from 0 to 255 by a table: uint8 (S, S, 3) -> float32 (3, S, S)."""
        pixels = np.empty((3, *levels.shape[:2]), np.float32)
        for channel, table in enumerate(_tables(self.mean, self.std)):
            # mode="clip" skips the bounds check, which uint8 levels do not need.
            np.take(table, levels[..., channel], out=pixels[channel], mode="clip")
        return torch.from_numpy(pixels)


@cache
def keep_freed_memory() -> None:
    """Makes glibc reuse the memory of one image for the next.

    glibc returns a freed block to the system if it is larger than any block freed before. The
    system then clears all pages of the next image, a fifth of the time for 640x480 pixels. One
    large block that is freed raises this threshold; its pages are never touched. With other C
    libraries this has no effect.
    """
    np.empty(_LARGEST_BLOCK_KEPT, np.uint8)


@lru_cache(maxsize=64)
def _tables(mean: Triple, std: Triple) -> _Tables:
    """Returns each level of each channel, computed as by ToTensor and Normalize: (3, 256)."""
    levels = torch.arange(256, dtype=torch.float32, device="cpu").div(255).repeat(3, 1)
    columns = (
        torch.tensor(numbers, dtype=torch.float32, device="cpu")[:, None] for numbers in (mean, std)
    )
    tables: _Tables = levels.sub(next(columns)).div(next(columns)).numpy()
    return tables


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB. A step of the preprocess."""
    return image.convert("RGB")
