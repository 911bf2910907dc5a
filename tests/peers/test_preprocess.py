"""Preprocessed pixels are identical to those of clip-anytorch and open_clip."""

from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import hfclip

SIZES = [
    *[(224, 224), (640, 480), (480, 641), (225, 300), (50, 37), (1, 500), (1200, 223)],
    (
        300,
        700,
    ),  # from 13.0 on, Pillow resizes such a tall image vertically first, others horizontally
]
MODES = ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"]


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Returns a picture of noise over a gradient, on which resizing has a visible effect."""
    random = np.random.default_rng(5)
    width, height = size
    slope = np.linspace(0, 155, width)[None, :, None] + np.zeros((height, 1, 3))
    colour = Image.fromarray((slope + random.integers(0, 100, slope.shape)).astype(np.uint8))
    if mode == "P":
        return colour.quantize(32)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 255, (height, width)).astype(np.uint16))
    return colour.convert(mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_equal_those_of_clip(mode: str, size: tuple[int, int], clip: ModuleType) -> None:
    ours, theirs = hfclip.image_transform(224), clip.clip._transform(224)
    image = picture(mode, size)
    assert torch.equal(ours(image), theirs(image))


def test_pixels_equal_those_of_open_clip() -> None:
    from open_clip.transform import image_transform

    ours, theirs = hfclip.image_transform(336), image_transform(336, is_train=False)
    image = picture("RGB", (640, 480))
    assert torch.equal(ours(image), theirs(image))


def test_the_steps_equal_those_of_clip_in_order(clip: ModuleType) -> None:
    ours, theirs = hfclip.image_transform(288), clip.clip._transform(288)
    assert [type(step) for step in ours.transforms] == [type(step) for step in theirs.transforms]
    assert str(ours.transforms[0]) == str(theirs.transforms[0])
    assert str(ours.transforms[4]) == str(theirs.transforms[4])
