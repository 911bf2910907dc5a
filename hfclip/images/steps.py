"""The preprocess as steps of torchvision, for code that reads or replaces single steps."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)
from torchvision.transforms.functional import resize

from hfclip.images.exact import Recipe, longest_resized, padded, to_rgb


class ResizeLongest:
    """Resizes an image so that its longer side has `size` pixels. A step of the preprocess."""

    def __init__(self, size: int, interpolation: InterpolationMode) -> None:
        self.size = size
        self.interpolation = interpolation

    def __call__(self, image: Image.Image) -> Any:
        """Returns the resized image."""
        width, height = longest_resized(image.size, self.size)
        return resize(image, [height, width], self.interpolation)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, interpolation={self.interpolation.value})"


class PadToSquare:
    """Pads an image to `size` pixels on both sides with level `fill`. A step of the preprocess."""

    def __init__(self, size: int, fill: int) -> None:
        self.size = size
        self.fill = fill

    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the padded image."""
        return padded(image, self.size, self.fill)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, fill={self.fill})"


def compose(
    recipe: Recipe,
    bicubic: InterpolationMode = InterpolationMode.BICUBIC,
    convert: Callable[[Image.Image], Image.Image] = to_rgb,
) -> Compose:
    """Returns the steps of a preprocess: resize, crop or pad, to RGB, ToTensor, Normalize.

    Args:
        recipe: The parameters.
        bicubic: The filter to use if the recipe's interpolation is "bicubic".
        convert: The conversion to RGB.
    """
    is_bilinear = recipe.interpolation == "bilinear"
    interpolation = InterpolationMode.BILINEAR if is_bilinear else bicubic
    return Compose(
        [
            *_square(recipe, interpolation),
            convert,
            ToTensor(),
            Normalize(recipe.mean, recipe.std),
        ]
    )


def _square(recipe: Recipe, interpolation: InterpolationMode) -> list[Callable[[Any], Any]]:
    """Returns the steps that give an image its size."""
    side = recipe.resize_side
    if recipe.resize_mode == "longest":
        return [ResizeLongest(side, interpolation), PadToSquare(side, recipe.fill_color)]
    if recipe.resize_mode == "shortest":
        return [Resize(side, interpolation=interpolation), CenterCrop(recipe.resolution)]
    squash = Resize((side, side), interpolation=interpolation)
    return [squash] if side == recipe.resolution else [squash, CenterCrop(recipe.resolution)]
