"""Errors of a CLIP for invalid inputs, and unusual inputs that it accepts."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw
from PIL import Image
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

import hfclip
from hfclip.config import ClipConfig

both_kinds = pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["ViT", "ResNet"])

# By the side S. A few more pixels give a ViT the same number of patches, or one more row.
BAD_IMAGES: dict[str, Callable[[int], Any]] = {
    "unbatched": lambda side: torch.zeros(3, side, side),
    "a few pixels more": lambda side: torch.zeros(2, 3, side + 4, side),
    "larger": lambda side: torch.zeros(2, 3, 2 * side, 2 * side),
    "smaller": lambda side: torch.zeros(2, 3, side - 1, side - 1),
    "flat, with as many patches": lambda side: torch.zeros(2, 3, side // 2, side * 2),
    "grey": lambda side: torch.zeros(2, 1, side, side),
    "channels last": lambda side: torch.zeros(2, side, side, 3),
    "a video": lambda side: torch.zeros(2, 2, 3, side, side),
    "a vector": lambda side: torch.zeros(side) + 1,
    "a number": lambda side: torch.zeros(()),
    "pixels from 0 to 255": lambda side: torch.zeros(2, 3, side, side, dtype=torch.uint8),
    "elsewhere": lambda side: torch.zeros(2, 3, side, side, device="meta"),
    "a picture": lambda side: Image.new("RGB", (side, side)),
    "an array": lambda side: np.zeros((2, 3, side, side), np.float32),
    "a list": lambda side: [torch.zeros(3, side, side)],
}
BAD_TEXTS: dict[str, Callable[[int], Any]] = {
    "one row": lambda length: torch.ones(length, dtype=torch.int64),
    "a batch of batches": lambda length: torch.ones(2, 2, length, dtype=torch.int64),
    "too long": lambda length: torch.ones(2, length + 1, dtype=torch.int64),
    "no tokens": lambda length: torch.ones(2, 0, dtype=torch.int64),
    "floats": lambda length: torch.ones(2, length),
    "short integers": lambda length: torch.ones(2, length, dtype=torch.int16),
    "a string": lambda _: "a dog",
    "lists": lambda length: [[1] * length],
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@both_kinds
def test_invalid_images_are_refused_with_the_errors_of_fast_clip(
    config: ClipConfig, kind: str
) -> None:
    model, side = draw(config), config.image_resolution
    given = BAD_IMAGES[kind](side)
    with pytest.raises(hfclip.ShapeError, match=rf"floats \(B, 3, {side}, {side}\) on cpu") as ours:
        model.encode_image(given)
    with pytest.raises(hfclip.ShapeError) as theirs:
        hfclip.optimize(model).encode_image(given)
    assert str(ours.value) == str(theirs.value)
    with pytest.raises(hfclip.ShapeError):
        model(given, torch.ones(1, 4, dtype=torch.int64))


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_invalid_texts_are_refused_with_the_errors_of_fast_clip(kind: str) -> None:
    model, length = draw(TINY_VIT), TINY_VIT.context_length
    given = BAD_TEXTS[kind](length)
    with pytest.raises(hfclip.ShapeError, match=rf"\(T, L\) with L from 1 to {length}") as ours:
        model.encode_text(given)
    with pytest.raises(hfclip.ShapeError) as theirs:
        hfclip.optimize(model).encode_text(given)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("token", [-1, TINY_VIT.vocab_size])
def test_an_id_outside_the_vocabulary_is_named(token: int) -> None:
    text = torch.tensor([[5, token, 7]])
    with pytest.raises(hfclip.UnknownTokenError, match=f"ids from {min(5, token)} to "):
        draw(TINY_VIT).encode_text(text)


@both_kinds
def test_an_empty_batch_gives_empty_features(config: ClipConfig) -> None:
    model, side = draw(config), config.image_resolution
    assert model.encode_image(torch.zeros(0, 3, side, side)).shape == (0, config.embed_dim)
    for width in (0, 1, config.context_length):
        text = torch.zeros(0, width, dtype=torch.int32)
        assert model.encode_text(text).shape == (0, config.embed_dim)
    per_image, per_text = model(torch.zeros(2, 3, side, side), torch.zeros(0, 0, dtype=torch.int32))
    assert (per_image.shape, per_text.shape) == ((2, 0), (0, 2))


def test_a_custom_image_tower_may_accept_other_images() -> None:
    class FromBytes(nn.Module):
        """Normalises images in the model and accepts any size."""

        def __init__(self, tower: nn.Module) -> None:
            super().__init__()
            self.tower, self.conv1 = tower, tower.conv1

        def forward(self, pixels: Tensor) -> Tensor:
            pixels = nn.functional.interpolate(pixels / 255, (32, 32))
            features: Tensor = self.tower(pixels)
            return features

    model: Any = draw(TINY_VIT)
    pixels = torch.arange(3 * 32 * 32, dtype=torch.float32).view(1, 3, 32, 32) % 256
    expected = model.encode_image(pixels / 255)
    model.visual = FromBytes(model.visual)
    assert torch.equal(model.encode_image(pixels.to(torch.uint8)), expected)
    wide = pixels.to(torch.uint8).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(model.encode_image(wide), expected)


def test_an_error_in_a_patched_module_is_not_reported_as_an_input_error() -> None:
    model: Any = draw(TINY_VIT)

    def fail(*_: Any) -> None:
        raise RuntimeError("of the adapter")

    for block in (model.visual.transformer.resblocks[0], model.transformer.resblocks[0]):
        block.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="of the adapter"):
        model.encode_image(torch.zeros(2, 3, 32, 32))
    with pytest.raises(RuntimeError, match="of the adapter"):
        model.encode_text(torch.ones(2, 4, dtype=torch.int64))


def test_out_of_memory_is_not_reported_as_a_wrong_shape() -> None:
    model = draw(TINY_VIT)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    model.visual.conv1.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        model.encode_image(torch.zeros(3, 32, 32))


TRACERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "torch.jit.trace": torch.jit.trace,
    "torch.fx": lambda tower, _: torch.fx.symbolic_trace(tower),
    "torch.export": lambda tower, x: torch.export.export(
        tower, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    ).module(),
    "torch.compile": lambda tower, _: torch.compile(tower, backend="eager", fullgraph=True),
}


@pytest.mark.parametrize("tracer", TRACERS.values(), ids=TRACERS)
@both_kinds
def test_traced_towers_give_the_same_features(
    config: ClipConfig, tracer: Callable[[nn.Module, Tensor], Any]
) -> None:
    tower, side = draw(config).visual, config.image_resolution
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        # torch's attention gives warnings, hfclip does not.
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.")
        traced = tracer(tower, torch.zeros(2, 3, side, side))
        assert torch.allclose(traced(images), tower(images), atol=1e-5)
