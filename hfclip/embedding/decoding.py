"""Reads single pictures for the pipeline: the stated treatment of each kind of file."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageColor

from hfclip.errors import ArgumentError, ImageError
from hfclip.images.fast import FastTransform
from hfclip.images.formats import RAW_ENDINGS
from hfclip.images.reading import Picture, open_picture

if TYPE_CHECKING:
    from torch import Tensor

# Twice Pillow's own limit for a warning: the size from which Pillow rejects a picture.
MAX_PIXELS = 178_956_970


class Prepared(NamedTuple):
    """A picture that is ready for the model.

    Attributes:
        pixels: The input of the image tower, float32 (3, S, S).
        width: Width of the picture as displayed, in pixels.
        height: Height of the picture as displayed, in pixels.
        digest: The sha256 of the file in hexadecimal, if it was computed.
        size: The size of the file in bytes, if it is known.
    """

    pixels: "Tensor"
    width: int
    height: int
    digest: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Reader:
    """Opens and preprocesses pictures. Several threads may call it at once.

    Attributes:
        preprocess: The transform that `load` or `image_transform` returned.
        auto_orient: Whether to apply the EXIF orientation.
        max_pixels: The largest number of pixels that is decoded. None leaves it to Pillow.
        background: A colour that is blended below transparent pixels, such as (255, 255, 255).
            None drops the alpha channel, as OpenAI's release does.
    """

    preprocess: "Callable[[Image.Image], Tensor]"
    auto_orient: bool = True
    max_pixels: int | None = None
    background: tuple[int, int, int] | None = None

    def __call__(self, picture: Picture, name: str) -> Prepared:
        """Returns the pixels and the size of a picture: a path, the bytes of a file, or an image.

        Raises:
            ImageError: The picture cannot be read, is too large, or is a camera's RAW file.
        """
        if PurePath(name).suffix.lower() in RAW_ENDINGS:
            raise ImageError(f"{name}: a camera's RAW file, which is not read. Export it as JPEG.")
        if picture == b"":
            raise ImageError(f"{name}: the file is empty.")
        try:
            return self._prepared(picture, name)
        except MemoryError as error:
            raise ImageError(f"{name}: too large for the memory of this machine.") from error

    def _prepared(self, picture: Picture, name: str) -> Prepared:
        stored: list[tuple[int, int]] = []

        def examine(image: Image.Image) -> None:
            self._check_size(image, name)
            stored.append(image.size)

        # Not isinstance: it would make the exact transform import torchvision.
        fast = self.preprocess if type(self.preprocess) is FastTransform else None
        with open_picture(
            picture,
            auto_orient=self.auto_orient,
            least_side=fast.least_side if fast else None,
            name=name,
            on_open=examine,
        ) as image:
            (width, height), shown = stored[0], image.size
            if (width > height) != (shown[0] > shown[1]):  # the orientation was applied
                width, height = height, width
            opaque = image if self.background is None else blended(image, self.background)
            return Prepared(self._preprocessed(opaque, name), width, height)

    def _check_size(self, image: Image.Image, name: str) -> None:
        pixels = image.width * image.height
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise ImageError(
                f"{name}: {image.width:,} x {image.height:,} pixels are {pixels:,}; the limit is "
                f"{self.max_pixels:,}. Scale it down, or increase --max-pixels."
            )

    def _preprocessed(self, image: Image.Image, name: str) -> "Tensor":
        try:
            return self.preprocess(image)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ImageError(
                f"{name}: the preprocess fails for a picture of mode {image.mode!r} and size "
                f"{image.size} ({type(error).__name__}: {error})."
            ) from error


def blended(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Returns the picture over a colour, in RGB. Returns a picture without alpha as it is."""
    if not {"A", "a"} & set(image.getbands()) and "transparency" not in image.info:
        return image
    foreground = image.convert("RGBA")
    below = Image.new("RGBA", foreground.size, (*background, 255))
    return Image.alpha_composite(below, foreground).convert("RGB")


def parse_colour(text: str) -> tuple[int, int, int]:
    """Returns the red, green and blue of a colour such as "white" or "#ffffff".

    Raises:
        ArgumentError: Pillow does not know the colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise ArgumentError(
            f'The background is {text!r}; expected a colour such as "white" or "#808080".'
        ) from error


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Leaves the limit of pixels to `Reader`: Pillow's own is set to it, without its warning."""
    earlier = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = earlier
