"""The numbers of a preprocess, and its exact pixels without torchvision."""

from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfclip.config import Triple

# glibc's limit for this is 32 MB; it then keeps up to twice as much.
_LARGEST_BLOCK_KEPT = 31 * 2**20

_Levels: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
_Tables: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Recipe(NamedTuple):
    """The numbers of a preprocess; what they mean stands in `hfclip.image_transform`."""

    resolution: int
    mean: Triple
    std: Triple

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height to which an image of this width and height is resized."""
        width, height = size
        if width <= height:
            return self.resolution, int(self.resolution * height / width)
        return int(self.resolution * width / height), self.resolution

    def corner(self, size: tuple[int, int]) -> tuple[int, int]:
        """Left and top of the middle that is kept of a resized image of this size."""
        width, height = size
        return round((width - self.resolution) / 2.0), round((height - self.resolution) / 2.0)

    def exact(self, image: Image.Image) -> Tensor:
        """What the five steps of torchvision give, to the bit, without torchvision."""
        keep_freed_memory()
        size = self.resized(image.size)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = self.corner(size)
        image = image.crop((left, top, left + self.resolution, top + self.resolution))
        return self._standardised(np.asarray(to_rgb(image)))

    def _standardised(self, levels: _Levels) -> Tensor:
        """Levels (S, S, 3) -> (3, S, S): there are but 256 of them, so a table has the results."""
        pixels = np.empty((3, *levels.shape[:2]), np.float32)
        for channel, table in enumerate(_tables(self.mean, self.std)):
            # The mode spares a check; no level is out of bounds.
            np.take(table, levels[..., channel], out=pixels[channel], mode="clip")
        return torch.from_numpy(pixels)


@cache
def keep_freed_memory() -> None:
    """Has glibc keep what one image frees for the next, once and for all.

    It hands blocks back to the system that are larger than the largest that it has seen freed, and
    the system clears each page of the next image anew: a fifth of the time for one of 640x480. So
    it is shown a large one, of which no page is touched. Elsewhere this does nothing.
    """
    np.empty(_LARGEST_BLOCK_KEPT, np.uint8)


@lru_cache(maxsize=64)
def _tables(mean: Triple, std: Triple) -> _Tables:
    """(3, 256) float32: each level of a channel, by the arithmetic of ToTensor and Normalize."""
    levels = torch.arange(256, dtype=torch.float32, device="cpu").div(255).repeat(3, 1)
    columns = (
        torch.tensor(numbers, dtype=torch.float32, device="cpu")[:, None] for numbers in (mean, std)
    )
    tables: _Tables = levels.sub(next(columns)).div(next(columns)).numpy()
    return tables


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts to RGB, if it is not: a step of the preprocess."""
    return image.convert("RGB")
