"""The transform from a PIL image to the input tensor of the image tower, exact or fast."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from hfclip.config import OPENAI_MEAN, OPENAI_STD, Triple
from hfclip.config.resizing import Interpolation, ResizeMode, settled_resizing
from hfclip.errors import ArgumentError, ConfigError
from hfclip.images.deferred import DeferredCompose
from hfclip.images.exact import Recipe
from hfclip.images.fast import FastTransform

if TYPE_CHECKING:
    from torchvision.transforms import Compose

PreprocessMode: TypeAlias = Literal["exact", "fast"]


def image_transform(
    resolution: int,
    mean: Triple = OPENAI_MEAN,
    std: Triple = OPENAI_STD,
    mode: PreprocessMode = "exact",
    *,
    resize_mode: ResizeMode = "shortest",
    interpolation: Interpolation = "bicubic",
    resize_resolution: int | None = None,
    fill_color: int = 0,
) -> "Compose":
    """Returns the preprocess of a CLIP: PIL image -> float32 (3, resolution, resolution).

    For an image in RGB or grey, "exact" gives the pixels of transformers' CLIPImageProcessorPil bit
    for bit, except that the crop is one pixel further right or down if the resized side exceeds
    `resolution` by 3, 7, 11, ... pixels: torchvision rounds half of this to the nearest even
    number, transformers rounds it down. transformers' CLIPImageProcessor resizes with torchvision's
    own kernel: pixels differ by at most 1 level of 255, fewer than one in ten thousand by 2, and by
    up to 7 where squashing enlarges one side and reduces the other. Both convert to RGB before
    resizing, and blend transparent images with white.

    Args:
        resolution: Side of the result, in pixels.
        mean: Mean that is subtracted from R, G and B, for values in [0, 1].
        std: Standard deviation by which the three channels are then divided.
        mode: "exact" gives OpenAI's or open_clip's pixels bit for bit. "fast" is faster and differs
            slightly: see `hfclip.images.fast.FastTransform`.
        resize_mode: "shortest" resizes the shorter side and crops the center, as OpenAI does.
            "longest" resizes the longer side and pads the rest. "squash" resizes both sides and
            does not keep the aspect ratio.
        interpolation: The filter of the resizing, "bicubic" or "bilinear", antialiased.
        resize_resolution: Side in pixels to which the image is resized before the center is
            cropped; by default `resolution`. "longest" does not crop, so it takes no other side.
        fill_color: Level from 0 to 255 of the padding, for "longest". It is set in every channel
            of the image's own mode before the conversion to RGB, as in open_clip. For a palette
            image it is an index.

    Returns:
        A picklable callable. In "exact" mode it is a `torchvision.transforms.Compose`; by default
        of five steps: Resize, CenterCrop, to RGB, ToTensor, Normalize. "longest" has other steps in
        place of the first two, "squash" has no CenterCrop without `resize_resolution`. The
        conversion to RGB comes after resizing, as in OpenAI's release; the order changes the result
        for palette, CMYK and transparent images.

    Raises:
        ArgumentError: An argument has an unknown value, `resolution` is not positive or greater
            than `resize_resolution`, `mean` or `std` does not have three numbers, or a number of
            `std` is zero.
    """
    if mode not in ("exact", "fast"):
        raise ArgumentError(f"The preprocess mode is {mode!r}; expected 'exact' or 'fast'.")
    if resolution < 1:
        raise ArgumentError(f"`resolution` is {resolution}; expected at least 1 pixel.")
    try:
        side, fill = settled_resizing(
            resolution, resize_mode, interpolation, resize_resolution, fill_color
        )
    except ConfigError as error:
        raise ArgumentError(str(error)) from None
    means, deviations = _triple("mean", mean), _triple("std", std)
    if not all(deviations):
        raise ArgumentError(f"`std` is {std}; expected three numbers other than zero.")
    recipe = Recipe(resolution, means, deviations, resize_mode, interpolation, side, fill)
    return transform_of(recipe, mode)


def transform_of(recipe: Recipe, mode: PreprocessMode = "exact") -> "Compose":
    """Returns the preprocess with these parameters, as described in `image_transform`."""
    return FastTransform(recipe) if mode == "fast" else DeferredCompose(recipe)


def _triple(name: str, numbers: Triple) -> Triple:
    """Returns three numbers, which may be a list from JSON, as a tuple, which can be hashed."""
    if len(numbers) != len("RGB"):
        raise ArgumentError(f"`{name}` is {numbers}; expected three numbers, for R, G and B.")
    red, green, blue = numbers
    return red, green, blue
