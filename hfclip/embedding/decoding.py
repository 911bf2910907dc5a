"""Reads single pictures for the pipeline: the stated treatment of each kind of file."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageColor

from hfclip.errors import ArgumentError, ImageError
from hfclip.images.display import blended
from hfclip.images.fast import FastTransform
from hfclip.images.formats import RAW_ENDINGS
from hfclip.images.reading import Picture, open_picture

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.embedding.workers import Budget

# Twice Pillow's own limit for a warning: the size from which Pillow rejects a picture.
MAX_PIXELS = 178_956_970

# Bytes for each pixel while a picture is decoded: usually, and with more than 8 bits per channel.
_NARROW, _WIDE = 4, 16
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class Prepared(NamedTuple):
    """A picture that is ready for the model.

    Attributes:
        pixels: The input of the image tower, float32 (3, S, S).
        width: Width of the picture as displayed, in pixels.
        height: Height of the picture as displayed, in pixels.
    """

    pixels: "Tensor"
    width: int
    height: int


@dataclass(frozen=True)
class Reader:
    """Opens and preprocesses pictures. Several threads may call it at once.

    Attributes:
        preprocess: The transform that `load` or `image_transform` returned.
        auto_orient: Whether to apply the EXIF orientation.
        max_pixels: The largest number of pixels of a picture that is decoded, and of one that is
            enlarged for the model.
        background: A colour that is blended below transparent pixels, such as (255, 255, 255).
            None drops the alpha channel, as OpenAI's release does.
        resized: Returns the size to which the preprocess resizes a picture of a size, or None.
        budget: Limits the bytes of pictures that are decoded at once, or None.
    """

    preprocess: "Callable[[Image.Image], Tensor]"
    auto_orient: bool = True
    max_pixels: int = MAX_PIXELS
    background: tuple[int, int, int] | None = None
    resized: "Callable[[tuple[int, int]], tuple[int, int]] | None" = None
    budget: "Budget | None" = None

    def __call__(self, picture: Picture, name: str) -> Prepared:
        """Returns the pixels and the size of a picture: a path, the bytes of a file, or an image.

        Raises:
            ImageError: The picture cannot be read, is too large, or is a camera's RAW file.
            Exception: The preprocess fails, for this picture and for others.
        """
        if PurePath(name).suffix.lower() in RAW_ENDINGS:
            raise ImageError(f"{name}: a camera's RAW file, which is not read. Export it as JPEG.")
        if picture == b"":
            raise ImageError(f"{name}: the file is empty.")
        try:
            with ExitStack() as stack:
                return self._prepared(picture, name, stack)
        except MemoryError as error:
            raise ImageError(f"{name}: too large for the memory of this machine.") from error
        except ImageError as error:
            if isinstance(error.__cause__, Image.DecompressionBombError):
                raise ImageError(f"{name}: {self._too_large(str(error.__cause__))}") from error
            raise

    def within(self, budget: "Budget") -> "Reader":
        """Returns a reader that decodes at most this many bytes at once, together with others."""
        return replace(self, budget=budget)

    def _prepared(self, picture: Picture, name: str, stack: ExitStack) -> Prepared:
        stored: list[tuple[int, int]] = []

        def examine(image: Image.Image) -> None:
            self._check_size(image.size, name)
            stored.append(image.size)
            if self.budget is not None:
                stack.enter_context(self.budget.held(self._bytes_of(image)))

        with open_picture(
            picture,
            auto_orient=self.auto_orient,
            least_side=self._least_side,
            name=name,
            on_open=examine,
        ) as image:
            (width, height), shown = stored[0], image.size
            if (width > height) != (shown[0] > shown[1]):  # the orientation was applied
                width, height = height, width
            opaque = image if self.background is None else blended(image, self.background)
            return Prepared(self._preprocessed(opaque, name), width, height)

    @property
    def _least_side(self) -> int | None:
        # Not isinstance: it would make the exact transform import torchvision.
        return self.preprocess.least_side if type(self.preprocess) is FastTransform else None

    def _check_size(self, size: tuple[int, int], name: str) -> None:
        found = f"{size[0]:,} x {size[1]:,} pixels"
        if size[0] * size[1] > self.max_pixels:
            raise ImageError(f"{name}: {self._too_large(f'{found} are {size[0] * size[1]:,}')}")
        if self.resized is None:
            return
        width, height = self.resized(size)
        if width * height > self.max_pixels:
            raise ImageError(
                f"{name}: {found} are too narrow: resized for the model they are {width:,} x "
                f"{height:,}, over the limit of {self.max_pixels:,}."
            )

    def _too_large(self, found: str) -> str:
        return (
            f"{found.rstrip('.')}; the limit is {self.max_pixels:,} pixels. Scale it down, or "
            "increase --max-pixels."
        )

    def _bytes_of(self, image: Image.Image) -> int:
        """Returns about how many bytes the decoded picture takes."""
        pixels = image.width * image.height
        coefficients = 3 * pixels if image.info.get("progressive") else 0
        if image.format == "JPEG" and image.mode == "RGB" and self._least_side is not None:
            # The decoder scales by a power of 2, at most 8.
            times = min(8, max(1, min(image.size) // self._least_side))
            pixels //= (1 << (times.bit_length() - 1)) ** 2
        if self.resized is not None:
            width, height = self.resized(image.size)
            pixels += width * height
        return coefficients + pixels * (_WIDE if image.mode in _WIDE_MODES else _NARROW)

    def _preprocessed(self, image: Image.Image, name: str) -> "Tensor":
        try:
            return self.preprocess(image)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            # Raises the same error if the preprocess is broken and the picture is not.
            self.preprocess(Image.new("RGB", (64, 48)))
            raise ImageError(
                f"{name}: the preprocess fails for a picture of mode {image.mode!r} and size "
                f"{image.size} ({type(error).__name__}: {error})."
            ) from error


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
