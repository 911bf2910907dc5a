"""The transform from a PIL image to the input tensor of the image tower, exact or fast."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from hfclip.config import OPENAI_MEAN, OPENAI_STD, Triple
from hfclip.errors import ArgumentError
from hfclip.images.exact import Recipe, to_rgb
from hfclip.images.fast import FastTransform

if TYPE_CHECKING:
    from torchvision.transforms import Compose

PreprocessMode: TypeAlias = Literal["exact", "fast"]


def image_transform(
    resolution: int,
    mean: Triple = OPENAI_MEAN,
    std: Triple = OPENAI_STD,
    mode: PreprocessMode = "exact",
) -> "Compose":
    """Returns the preprocess of a CLIP: PIL image -> float32 (3, resolution, resolution).

    Args:
        resolution: Side of the result, in pixels. The shorter side of the image is resized to it
            (bicubic), then the center is cropped.
        mean: Mean that is subtracted from R, G and B, for values in [0, 1].
        std: Standard deviation by which the three channels are then divided.
        mode: "exact" gives OpenAI's pixels bit for bit. "fast" is faster and differs slightly: see
            `hfclip.images.fast.FastTransform`.

    Returns:
        A picklable callable. In "exact" mode it is a `torchvision.transforms.Compose` of five
        steps: Resize, CenterCrop, to RGB, ToTensor, Normalize. The conversion to RGB comes after
        resizing, as in OpenAI's release; the order changes the result for palette images.

    Raises:
        ArgumentError: `mode` is unknown, `resolution` is not positive, `mean` or `std` does not
            have three numbers, or a number of `std` is zero.
    """
    if mode not in ("exact", "fast"):
        raise ArgumentError(f"The preprocess mode is {mode!r}; expected 'exact' or 'fast'.")
    if resolution < 1:
        raise ArgumentError(f"`resolution` is {resolution}; expected at least 1 pixel.")
    recipe = Recipe(resolution, _triple("mean", mean), _triple("std", std))
    if not all(recipe.std):
        raise ArgumentError(f"`std` is {std}; expected three numbers other than zero.")
    return FastTransform(recipe) if mode == "fast" else _DeferredCompose(recipe)


def _triple(name: str, numbers: Triple) -> Triple:
    """Returns three numbers, which may be a list from JSON, as a tuple, which can be hashed."""
    if len(numbers) != len("RGB"):
        raise ArgumentError(f"`{name}` is {numbers}; expected three numbers, for R, G and B.")
    red, green, blue = numbers
    return red, green, blue


class _DeferredCompose:
    """A torchvision `Compose` that is built at the first access to an attribute.

    Importing torchvision takes as long as importing torch, and a call of the transform does not
    need it. The class is reported as `Compose`. The first access to any other attribute turns the
    object into the real `Compose`, as `importlib.util.LazyLoader` does with a module.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, image: Image.Image) -> Tensor:
        recipe: Recipe = object.__getattribute__(self, "_recipe")
        # torchvision uses the default dtype; Recipe.exact always returns float32.
        if isinstance(image, Image.Image) and torch.get_default_dtype() is torch.float32:
            return recipe.exact(image)
        pixels: Tensor = _compose(recipe)(image)
        return pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return image_transform, tuple(object.__getattribute__(self, "_recipe"))

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__reduce"):
            return object.__getattribute__(self, name)
        compose = _compose(object.__getattribute__(self, "_recipe"))
        if name == "__class__":  # for isinstance; the object itself stays unchanged
            return type(compose)
        own: dict[str, Any] = object.__getattribute__(self, "__dict__")
        own.setdefault("transforms", compose.transforms)
        object.__setattr__(self, "__class__", type(compose))
        return getattr(self, name)

    def __repr__(self) -> str:
        return repr(_compose(object.__getattribute__(self, "_recipe")))


def _compose(recipe: Recipe) -> "Compose":
    """Builds the five steps with torchvision."""
    from torchvision.transforms import (  # noqa: PLC0415
        CenterCrop,
        Compose,
        InterpolationMode,
        Normalize,
        Resize,
        ToTensor,
    )

    return Compose(
        [
            Resize(recipe.resolution, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(recipe.resolution),
            to_rgb,
            ToTensor(),
            Normalize(recipe.mean, recipe.std),
        ]
    )
