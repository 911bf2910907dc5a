"""The fast preprocess: nearly OpenAI's pixels, in less than half the time."""

import io
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn.functional import interpolate

from hfclip.images.arrow import lent_pixels
from hfclip.images.exact import Recipe, keep_freed_memory

# A decoder's own scaling leaves at least this multiple of the result's side; less blurs.
_KEPT_FOR_RESIZING = 3
# From twice this multiple on, Pillow averages whole blocks before it resizes.
_KEPT_WHILE_REDUCING = 4.0


class FastTransform:
    """Prepares a PIL image for the image tower: -> float32 tensor (3, S, S).

    A JPEG that `Image.open` gave and nobody has loaded is decoded no larger than it is needed,
    so give it as it was opened: `preprocess(Image.open(path))`. It is left as it is.

    Pixels differ from the exact preprocess, in levels of 255: by at most 1 at 640x480, by at
    most 3 where an image is up to 6 times the result's side, and at 4000x3000. Elsewhere, and
    where a side is no multiple of 8, single pixels differ by up to 10, one in a thousand by more
    than 3. The cosine of the features to the exact ones is above 0.999. Images that are smaller
    than the result, and those that are not RGB (grey, palette, alpha, CMYK, 16 bits), are
    prepared exactly. As in OpenAI's release, the EXIF orientation is not applied here;
    `hfclip.images.reading.load_batch` applies it.

    Picklable, and safe to share between threads, which it leaves free to run meanwhile.

    Raises:
        OSError: An image is truncated or damaged, as with Pillow itself.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    @property
    def least_side(self) -> int:
        """Pixels that the shorter side of a picture should keep if a decoder scales it down."""
        return _KEPT_FOR_RESIZING * self._recipe.resolution

    def __call__(self, image: Image.Image) -> Tensor:
        """Prepares one image of any size and mode."""
        keep_freed_memory()
        times = min(image.size) / self._recipe.resolution
        if image.mode != "RGB" or times < 1:
            return self._recipe.exact(image)
        jpeg = _unread_jpeg(image) if times >= 2 * _KEPT_FOR_RESIZING else None
        if jpeg:
            return self._standardised(self._scaled_by_decoder(jpeg))
        if times >= 2 * _KEPT_WHILE_REDUCING:
            return self._standardised(self._cut_and_resized(image, image.size))
        return self._standardised(self._resized(_levels(image)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_recipe": self._recipe}

    def _scaled_by_decoder(self, jpeg: bytes) -> Tensor:
        """Levels (4, S, S) of a JPEG that is decoded at a half, a quarter or an eighth."""
        image = Image.open(io.BytesIO(jpeg))
        width, height = self._recipe.resized(image.size)
        least = width * _KEPT_FOR_RESIZING, height * _KEPT_FOR_RESIZING
        # The box tells how much of the last row and column belongs to the picture.
        _, (_, _, right, bottom) = image.draft("RGB", least) or ("", (0, 0, *image.size))
        return self._cut_and_resized(image, (right, bottom))

    def _cut_and_resized(self, image: Image.Image, size: tuple[float, float]) -> Tensor:
        """Levels (4, S, S), resized from the middle alone; `size` is the picture's in pixels."""
        side = self._recipe.resolution
        resized = self._recipe.resized(image.size)
        left, top = self._recipe.corner(resized)
        across, down = size[0] / resized[0], size[1] / resized[1]
        box = left * across, top * down, (left + side) * across, (top + side) * down
        bicubic = Image.Resampling.BICUBIC
        cut = image.resize((side, side), bicubic, box, reducing_gap=_KEPT_WHILE_REDUCING)
        return _levels(cut)

    def _resized(self, levels: Tensor) -> Tensor:
        """Levels (4, H, W) -> (4, S, S) by torch, which resizes bytes several at a time."""
        side = self._recipe.resolution
        width, height = resized = self._recipe.resized((levels.shape[2], levels.shape[1]))
        left, top = self._recipe.corner(resized)
        if levels.shape[1:] != (height, width):
            levels = interpolate(levels[None], (height, width), mode="bicubic", antialias=True)[0]
        return levels[:, top : top + side, left : left + side]

    def _standardised(self, levels: Tensor) -> Tensor:
        """Levels (4, S, S) -> float32 (3, S, S), less each channel's mean and divided."""
        factor, offset = self._line
        return torch.mul(levels[:3], factor).add_(offset).contiguous()

    @cached_property
    def _line(self) -> tuple[Tensor, Tensor]:
        """What each channel's levels, 0 to 255, are multiplied with, and what is added."""
        mean, std = (
            torch.tensor(numbers, dtype=torch.float32, device="cpu")[:, None, None]
            for numbers in (self._recipe.mean, self._recipe.std)
        )
        return 1 / (255 * std), -mean / std


def _unread_jpeg(image: Image.Image) -> bytes | None:
    """The bytes of a JPEG that was opened and not decoded yet."""
    if type(image) is not JpegImageFile or not image.tile or not image.fp:
        return None
    place = image.fp.tell()
    image.fp.seek(0)
    content: bytes = image.fp.read()
    image.fp.seek(place)
    return content


def _levels(image: Image.Image) -> Tensor:
    """Levels of an RGB image, (4, H, W) with channels last in memory.

    Pillow keeps a fourth byte a pixel. To leave it in spares both Pillow and torch the repacking.
    """
    pixels = lent_pixels(image)
    if pixels is None:
        content = bytearray(image.tobytes("raw", "RGBX"))
        pixels = torch.frombuffer(content, dtype=torch.uint8).view(image.height, image.width, 4)
    return pixels.permute(2, 0, 1)
