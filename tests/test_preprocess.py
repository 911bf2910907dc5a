import pickle

import pytest
import torch
from PIL import Image

import hfclip


def test_black_and_white_become_the_standardised_extremes() -> None:
    transform = hfclip.image_transform(8)
    black, white = (transform(Image.new("L", (20, 10), level)) for level in (0, 255))
    assert black.shape == (3, 8, 8)
    assert black.dtype == torch.float32
    assert black[:, 0, 0].tolist() == pytest.approx([-1.7922626, -1.7520971, -1.4802198])
    assert white[:, 0, 0].tolist() == pytest.approx([1.9303361, 2.0748837, 2.1458969])


def test_the_middle_of_the_longer_side_is_kept() -> None:
    image = Image.new("RGB", (12, 4))
    image.paste((255, 255, 255), (4, 0, 8, 4))
    pixels = hfclip.image_transform(4, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert pixels.min().item() == 1.0


def test_a_palette_is_resized_before_it_becomes_colour() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.putdata([0, 1, 1, 0])
    pixels = hfclip.image_transform(4, mean=(0, 0, 0), std=(1, 1, 1))(image)
    # Palette indices cannot be blended, so no grey appears.
    assert set(pixels.unique().tolist()) == {0.0, 1.0}


def test_the_transform_survives_pickling() -> None:
    transform = hfclip.image_transform(16)
    image = Image.linear_gradient("L")
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
