"""Inputs of a downstream program: a `clip` package, a weight file, pictures and captions."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import hfclip
import hfclip.compat.clip
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.config import ClipConfig
from hfclip.layouts.files import Source
from hfclip.network.clip import convert_weights

from .copies import copied

# Heads have width 64, as in OpenAI's models: two per ViT block, four in the ResNet's pooling.
VIT = ClipConfig(64, 64, 3, 128, 16, 77, 49408, 64, 1, 2)
RESNET = ClipConfig(64, 64, (1, 2, 1, 1), 8, None, 77, 49408, 64, 1, 2)
CONFIGS = {"vit": VIT, "resnet": RESNET}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

CAPTIONS = ["a photo of a cat", "two dogs in the snow", "a diagram", "an X-ray of a hand, 1931."]


@dataclass(frozen=True)
class World:
    """One of the two `clip` packages, with the same files and pictures for both.

    Attributes:
        weights: A state dict of one of `CONFIGS`, in OpenAI's mixed half precision.
        kind: "vit" or "resnet".
        dtype: The dtype in which the loaded model computes.
        folder: An empty folder.
    """

    clip: Any
    weights: str
    kind: str
    dtype: torch.dtype
    folder: Path

    def load(self) -> tuple[Any, Any]:
        """Calls `clip.load` on the CPU and sets the random seed afterwards.

        In half precision, it casts the same weights as `clip.model.convert_weights`. Programs that
        did not change the package get copies of one loaded model.
        """
        if _is_unchanged(self.clip):
            model, preprocess = _loaded_once(self.clip, self.weights, self.dtype)
            model, preprocess = copied(model), copy.deepcopy(preprocess)
        else:
            model, preprocess = _loaded(self.clip, self.weights, self.dtype)
        seed()  # the two packages draw different amounts of random numbers in load
        return model, preprocess

    def pictures(self) -> list[Image.Image]:
        return [picture(number) for number in range(4)]

    def images(self, preprocess: Any) -> Tensor:
        """Returns the pictures as a batch, (4, 3, 64, 64) float32."""
        return torch.stack([preprocess(image) for image in self.pictures()])

    def tokens(self) -> Tensor:
        """Returns the captions as a batch of token ids, (4, 77)."""
        return torch.as_tensor(self.clip.tokenize(CAPTIONS)).long()


@dataclass(frozen=True)
class Program:
    """A function (clip, world) -> values, with the architectures and dtypes it supports.

    Attributes:
        mixed: Whether it computes in float16 after a load in float32.
    """

    name: str
    run: Callable[[Any, World], Any]
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    mixed: bool


@dataclass(frozen=True)
class Table:
    """Values that are compared as a whole, because there are too many to compare each."""

    values: list[Any]


PROGRAMS: list[Program] = []


def program(
    *, only: str | None = None, half: bool = True, mixed: bool = False
) -> Callable[[Callable[[Any, World], Any]], Callable[[Any, World], Any]]:
    """Adds a function to the compared programs.

    Args:
        only: The only architecture that it supports. None means both.
        half: Whether it also runs in half precision, which the CPU supports.
        mixed: Whether it computes in float16 after a load in float32.
    """

    def add(run: Callable[[Any, World], Any]) -> Callable[[Any, World], Any]:
        group = run.__module__.rsplit(".", 1)[-1]
        kinds = (only,) if only else tuple(CONFIGS)
        dtypes = tuple(DTYPES) if half else ("float32",)
        PROGRAMS.append(Program(f"{group}.{run.__name__}", run, kinds, dtypes, mixed))
        return run

    return add


def picture(number: int) -> Image.Image:
    """Returns a picture of noise over a gradient. Each number has another size and mode."""
    return _picture(number).copy()


@functools.cache
def _picture(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    width, height = [(64, 64), (90, 70), (65, 120), (200, 80)][number % 4]
    slope = np.linspace(0, 155, width)[None, :, None] + np.zeros((height, 1, 3))
    noise = random.integers(0, 100, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    pixels = (slope + noise[:height, :width]).astype(np.uint8)
    return Image.fromarray(pixels).convert(["RGB", "L", "RGB", "RGBA"][number % 4])


def draw_weights(config: ClipConfig) -> dict[str, Tensor]:
    """Returns a state dict without trivial weights, in the dtypes of OpenAI's archives."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = hfclip.CLIP(**config.to_dict())
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
                tensor.uniform_(0.5, 1.0)
            elif tensor.is_floating_point() and tensor.dim():
                tensor.add_(torch.randn_like(tensor), alpha=0.05)
    convert_weights(model, torch.float16)
    return model.state_dict()


def _loaded(clip: Any, weights: str, dtype: torch.dtype) -> tuple[Any, Any]:
    with _uninitialised(), _read_once():
        model, preprocess = clip.load(weights, device="cpu")
    if dtype != torch.float32:
        convert_weights(model, dtype)
    return model, preprocess


_loaded_once = functools.cache(_loaded)


@contextmanager
def _uninitialised() -> Iterator[None]:
    """Lets new layers keep the values of their memory, because a checkpoint overwrites them all.

    Drawing them takes two thirds of the time of clip-anytorch's `load`.
    """
    with ExitStack() as stack:
        for name in ("normal_", "kaiming_uniform_", "xavier_uniform_"):
            stack.enter_context(patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        yield


@contextmanager
def _read_once() -> Iterator[None]:
    """Lets both packages read a weight file only once. Each model gets its own tensors.

    Reading it takes half of the time of `load`.
    """
    with ExitStack() as stack:
        # clip-anytorch copies the tensors into the model.
        stack.enter_context(patch.object(torch, "load", lambda path, **_: dict(_state_dict(path))))
        stack.enter_context(patch.object(hfclip.compat.clip, "read_checkpoint", _copied_checkpoint))
        yield


_state_dict = functools.cache(torch.load)
_checkpoint = functools.cache(read_checkpoint)


def _copied_checkpoint(source: Source) -> Checkpoint:
    """Returns a checkpoint with its own tensors, because hfclip makes them the parameters."""
    checkpoint = _checkpoint(source)
    tensors = {name: torch._lazy_clone(t) for name, t in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=tensors)


class _Attributes:
    """The attributes of the modules and classes of a `clip` package at one time."""

    def __init__(self, clip: Any) -> None:
        modules = [clip, clip.clip, clip.model, clip.simple_tokenizer]
        classes = [value for value in vars(clip.model).values() if _is_own_class(value)]
        classes.append(clip.simple_tokenizer.SimpleTokenizer)
        self._owners = [(owner, dict(vars(owner))) for owner in (*modules, *classes)]
        self._models, self._names = clip.clip._MODELS, dict(clip.clip._MODELS)

    def are_current(self) -> bool:
        """Tells whether the package still has these attributes, and the same names of models."""
        return self._models == self._names and all(
            len(vars(owner)) == len(attributes)
            and all(vars(owner).get(name) is value for name, value in attributes.items())
            for owner, attributes in self._owners
        )

    def restore(self) -> None:
        for owner, attributes in self._owners:
            _restore(owner, attributes)
        self._models.clear()
        self._models.update(self._names)


# The attributes of each package before the current program.
_before: dict[Any, _Attributes] = {}


@contextmanager
def untouched(clip: Any) -> Iterator[None]:
    """Restores the attributes of the modules and classes of a `clip` package afterwards."""
    _before[clip] = _Attributes(clip)
    try:
        yield
    finally:
        _before.pop(clip).restore()


def _is_unchanged(clip: Any) -> bool:
    """Tells whether the current program changed nothing in the package so far."""
    return clip in _before and _before[clip].are_current()


def _is_own_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _restore(thing: Any, attributes: dict[str, Any]) -> None:
    for name in vars(thing).keys() - attributes.keys():
        delattr(thing, name)
    for name, value in attributes.items():
        if vars(thing).get(name) is not value:
            setattr(thing, name, value)


def seed() -> None:
    """Seeds only the CPU. `torch.manual_seed` notes the stack for three absent accelerators."""
    torch.default_generator.manual_seed(0)


def outcome(program: Program, world: World) -> list[Any]:
    """Runs a program and returns its values as a list. Errors of the program are raised."""
    seed()
    with untouched(world.clip):
        return list(_flat(program.run(world.clip, world)))


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, dict):
        values = [values[key] for key in sorted(values)]
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    elif isinstance(values, float):
        yield torch.tensor(values, dtype=torch.float64)
    else:
        yield values.detach().clone() if isinstance(values, Tensor) else values


def silently(call: Callable[[], list[Any]]) -> list[Any]:
    """Calls a function without deprecation warnings: clip-anytorch tries torch.jit first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
