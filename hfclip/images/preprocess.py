"""From a picture to the tensor that the image tower takes: exactly, or fast."""

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
    """The preprocess of a CLIP: PIL image -> float32 tensor (3, resolution, resolution).

    Args:
        resolution: Side of the result, in pixels; the image's shorter side is resized to it
            (bicubic) and the middle is kept.
        mean: Subtracted from each channel, R, G and B, of values in [0, 1].
        std: Divides each channel after that.
        mode: "exact" gives OpenAI's pixels to the bit, "fast" nearly the same ones sooner: see
            `hfclip.images.fast.FastTransform`.

    Returns:
        A picklable callable. The exact one is a `torchvision.transforms.Compose` of five steps:
        Resize, CenterCrop, to RGB, ToTensor, Normalize. The conversion to RGB comes after
        resizing, as in OpenAI's release: a palette image would differ otherwise.

    Raises:
        ArgumentError: `mode` is neither of the two, `resolution` is not positive, `mean` or `std`
            has not three numbers, or a number of `std` is zero.
    """
    if mode not in ("exact", "fast"):
        raise ArgumentError(f"the preprocess is {mode!r}, expected 'exact' or 'fast'")
    if resolution < 1:
        raise ArgumentError(f"resolution is {resolution}; expected 1 or more pixels")
    recipe = Recipe(resolution, _triple("mean", mean), _triple("std", std))
    if not all(recipe.std):
        raise ArgumentError(f"std is {std}; no channel can be divided by zero")
    return FastTransform(recipe) if mode == "fast" else _DeferredCompose(recipe)


def _triple(name: str, numbers: Triple) -> Triple:
    """Returns a tuple also of a list, as JSON has them: the tables are kept by their numbers."""
    if len(numbers) != len("RGB"):
        raise ArgumentError(f"{name} is {numbers}; expected three numbers, for R, G and B")
    red, green, blue = numbers
    return red, green, blue


class _DeferredCompose:
    """A torchvision `Compose` that is not built before someone looks into it.

    Importing torchvision doubles the time that torch takes, and to call the transform it is not
    needed. It says that it is a `Compose`; at the first look at any other attribute it becomes
    the one that it stands for, as a module of `importlib.util.LazyLoader` becomes the module.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, image: Image.Image) -> Tensor:
        recipe: Recipe = object.__getattribute__(self, "_recipe")
        # torchvision gives tensors in the default type; the tables are in the usual one.
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
        if name == "__class__":  # isinstance asks, and must not find another type than before
            return type(compose)
        own: dict[str, Any] = object.__getattribute__(self, "__dict__")
        own.setdefault("transforms", compose.transforms)
        object.__setattr__(self, "__class__", type(compose))
        return getattr(self, name)

    def __repr__(self) -> str:
        return repr(_compose(object.__getattribute__(self, "_recipe")))


def _compose(recipe: Recipe) -> "Compose":
    """The five steps as torchvision's own."""
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
