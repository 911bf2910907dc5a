"""Builds the `Compose` of a preprocess when somebody looks into it.

The gain: the first answer of a program that loads a model and encodes one picture comes 1.7 times
sooner, see benchmarks/results/gains.md. Importing torchvision takes as long as importing torch, and
a call of the transform does not need it. Nothing simpler does this: existing code reads and changes
`preprocess.transforms`, so the object must be a real `Compose` from the first such access on.
"""

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from hfclip.images.exact import Recipe

if TYPE_CHECKING:
    from torchvision.transforms import Compose


class DeferredCompose:
    """A torchvision `Compose` that is built at the first access to an attribute.

    The class is reported as `Compose`. The first access to any other attribute turns the object
    into the real `Compose`, as `importlib.util.LazyLoader` does with a module.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, image: Image.Image) -> Tensor:
        """Transforms an image: float32 (3, S, S), the same as from the real `Compose`."""
        recipe: Recipe = object.__getattribute__(self, "_recipe")
        # torchvision uses the default dtype; Recipe.exact always returns float32.
        if isinstance(image, Image.Image) and torch.get_default_dtype() is torch.float32:
            return recipe.exact(image)
        pixels: Tensor = _compose(recipe)(image)
        return pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return DeferredCompose, (object.__getattribute__(self, "_recipe"),)

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
    from hfclip.images.steps import compose  # noqa: PLC0415  # it imports torchvision

    return compose(recipe)
