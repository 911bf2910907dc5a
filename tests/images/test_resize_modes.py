"""The preprocess with other settings than OpenAI's: other sides, filters and padding."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

import hfclip
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of

PLAIN: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1)}
SETTINGS: dict[str, dict[str, Any]] = {
    "shortest": {},
    "bilinear": {"interpolation": "bilinear"},
    "cropped": {"resize_resolution": 23},
    "squash": {"resize_mode": "squash"},
    "squash bilinear": {"resize_mode": "squash", "interpolation": "bilinear"},
    "squash cropped": {"resize_mode": "squash", "resize_resolution": 19},
    "longest": {"resize_mode": "longest"},
    "longest filled": {"resize_mode": "longest", "interpolation": "bilinear", "fill_color": 127},
}
STEPS = {
    "shortest": ["Resize", "CenterCrop"],
    "cropped": ["Resize", "CenterCrop"],
    "squash": ["Resize"],
    "squash cropped": ["Resize", "CenterCrop"],
    "longest": ["ResizeLongest", "PadToSquare"],
}


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    return image.convert("RGB").quantize(8) if mode == "P" else image.convert(mode)


def stepwise(image: Image.Image, resolution: int, **settings: Any) -> Tensor:
    """Returns the pixels from the single steps, which torchvision computes."""
    pixels: Tensor = Compose(hfclip.image_transform(resolution, **settings).transforms)(image)
    return pixels


@pytest.mark.parametrize("name", SETTINGS)
@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    mode=st.sampled_from(["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"]),
)
def test_the_shortcut_and_the_steps_give_identical_pixels(
    name: str, size: tuple[int, int], mode: str
) -> None:
    image = picture(size, mode)
    pixels = hfclip.image_transform(16, **SETTINGS[name])(image)
    assert pixels.shape == (3, 16, 16)
    assert torch.equal(pixels, stepwise(image, 16, **SETTINGS[name]))


@pytest.mark.parametrize("name", STEPS)
def test_each_mode_has_the_steps_of_open_clip(name: str) -> None:
    steps = hfclip.image_transform(16, **SETTINGS[name]).transforms
    kinds = [getattr(step, "__name__", type(step).__name__) for step in steps]
    assert kinds == [*STEPS[name], "to_rgb", "ToTensor", "Normalize"]


def test_the_steps_say_what_they_do() -> None:
    transform = hfclip.image_transform(16, **SETTINGS["longest filled"])
    assert str(transform.transforms[0]) == "ResizeLongest(size=16, interpolation=bilinear)"
    assert str(transform.transforms[1]) == "PadToSquare(size=16, fill=127)"


def test_squash_keeps_every_column_of_a_wide_image() -> None:
    image = Image.new("RGB", (8, 2))
    image.paste((255, 255, 255), (4, 0, 8, 2))
    levels = 255 * hfclip.image_transform(4, resize_mode="squash", **PLAIN)(image)[0]
    assert levels[:, 0].tolist() == [0] * 4
    assert levels[:, 3].tolist() == [255] * 4
    cropped = hfclip.image_transform(2, resize_mode="squash", resize_resolution=4, **PLAIN)(image)
    assert torch.equal(255 * cropped[0], levels[1:3, 1:3])


def test_longest_pads_the_rest_with_the_fill_color() -> None:
    image = Image.new("RGB", (8, 3), (255, 255, 255))
    given = {"resize_mode": "longest", "fill_color": 51, **PLAIN}
    pixels = hfclip.image_transform(8, **given)(image)
    # 5 rows are missing: torchvision and open_clip put 2 of them at the top.
    rows = [0.2] * 2 + [1.0] * 3 + [0.2] * 3
    assert torch.equal(pixels, torch.tensor(rows)[None, :, None].expand(3, 8, 8))


def test_longest_keeps_one_pixel_of_a_line() -> None:
    image = Image.new("RGB", (1, 500), (255, 0, 0))
    pixels = hfclip.image_transform(8, resize_mode="longest", **PLAIN)(image)
    assert pixels[0].sum(dim=0).tolist() == [0, 0, 0, 8, 0, 0, 0, 0]


def test_another_crop_keeps_the_middle_of_a_larger_image() -> None:
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6) * 7)
    cropped = hfclip.image_transform(4, resize_resolution=6, **PLAIN)(image)
    levels = (255 * cropped[0]).round().to(torch.uint8).numpy()
    assert np.array_equal(levels, np.asarray(image)[1:5, 1:5])


def test_bilinear_and_bicubic_differ_at_an_edge() -> None:
    image = Image.new("L", (8, 8))
    image.paste(255, (4, 0, 8, 8))
    cubic, linear = (
        hfclip.image_transform(16, interpolation=name, **PLAIN)(image)[0, 8]
        for name in ("bicubic", "bilinear")
    )
    assert (255 * linear[7:9]).round().tolist() == [64, 191]
    assert (255 * cubic[7:9]).round().tolist() != [64, 191]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_transform_survives_pickling(name: str, mode: Any) -> None:
    transform = hfclip.image_transform(16, mode=mode, **SETTINGS[name])
    image = picture((61, 37))
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(image), transform(image))
    assert len(transform.transforms) > 3 if mode == "exact" else True
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), again(image))


def test_the_settings_come_from_the_models_configuration() -> None:
    config = hfclip.ClipConfig(
        *(8, 16, 1, 64, 16, 8, 50, 64, 1, 1), resize_mode="squash", resize_resolution=20
    )
    image = picture((40, 30))
    expected = hfclip.image_transform(16, resize_mode="squash", resize_resolution=20)(image)
    assert torch.equal(transform_of(Recipe.of(config))(image), expected)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"resize_mode": "crop"}, "resize_mode is 'crop'; expected one of shortest, longest"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; expected one of bicubic"),
        ({"resize_resolution": 15}, "resize_resolution is 15; it must be at least .* 16,"),
        ({"resize_resolution": 20, "resize_mode": "longest"}, "an image is padded and not cropped"),
        ({"resize_resolution": 16.5}, "resize_resolution is 16.5; it must be an integer"),
        ({"fill_color": 256}, "fill_color is 256; it must be between 0 and 255"),
        ({"fill_color": (1, 2, 3)}, r"fill_color is \(1, 2, 3\); it must be an integer"),
    ],
)
def test_an_unsupported_setting_is_refused_with_its_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(hfclip.ArgumentError, match=told):
        hfclip.image_transform(16, **wrong)
