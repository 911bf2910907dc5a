"""Preprocessed pixels are identical to those of clip-anytorch, open_clip and transformers."""

import functools
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hfclip
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of
from hfclip.layouts.open_clip import config_from_open_clip
from hfclip.layouts.transformers import config_from_transformers, config_to_transformers

SIZES = [
    *[(224, 224), (640, 480), (480, 641), (225, 300), (50, 37), (1, 150), (1200, 223)],
    (
        300,
        700,
    ),  # from 13.0 on, Pillow resizes such a tall image vertically first, others horizontally
]
MODES = ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"]


@functools.cache
def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Returns a picture of noise over a gradient, on which resizing has a visible effect.

    Tests share it, so they must not change it.
    """
    random = np.random.default_rng(5)
    width, height = size
    slope = np.linspace(0, 155, width)[None, :, None] + np.zeros((height, 1, 3))
    colour = Image.fromarray((slope + random.integers(0, 100, slope.shape)).astype(np.uint8))
    if mode == "P":
        return colour.quantize(32, Image.Quantize.FASTOCTREE)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 255, (height, width)).astype(np.uint16))
    return colour.convert(mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_equal_those_of_clip(mode: str, size: tuple[int, int], clip: ModuleType) -> None:
    ours, theirs = hfclip.image_transform(224), clip.clip._transform(224)
    image = picture(mode, size)
    assert torch.equal(ours(image), theirs(image))


MODEL_CFG = {"embed_dim": 8, "vision_cfg": {"image_size": 84, "patch_size": 14}, "text_cfg": {}}
OPEN_CLIP = [
    {"resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
    for mode, interpolation, fill in product(
        ["shortest", "longest", "squash", None], ["bicubic", "bilinear", "random", None], [0, 200]
    )
    if mode == "longest" or fill == 0
]
SMALL_SIZES = [(84, 84), (160, 121), (121, 160), (83, 85), (30, 17), (3, 84), (8, 300), (301, 87)]


def open_clips_transform(section: dict[str, Any], size: int) -> Any:
    """Returns the transform that open_clip builds for the preprocess_cfg of a file."""
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    settings = merge_preprocess_dict(PreprocessCfg(), section)
    return image_transform_v2(PreprocessCfg(**{**settings, "size": size}), is_train=False)


@pytest.mark.parametrize("section", OPEN_CLIP, ids=str)
def test_pixels_equal_those_of_open_clip(section: dict[str, Any]) -> None:
    config = config_from_open_clip({"model_cfg": MODEL_CFG, "preprocess_cfg": section})
    ours, theirs = transform_of(Recipe.of(config)), open_clips_transform(section, 84)
    for mode, size in product(MODES, SMALL_SIZES):
        image = picture(mode, size)
        assert torch.equal(ours(image), theirs(image)), (mode, size)


def test_the_preprocess_of_every_model_in_open_clips_table_is_read() -> None:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    image, seen = picture("RGB", (160, 121)), set()
    for name in list_pretrained():
        values = get_pretrained_cfg(*name)
        section = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if key in ("mean", "std", "interpolation", "resize_mode")
        }
        config = config_from_open_clip({"model_cfg": MODEL_CFG, "preprocess_cfg": section})
        seen.add((config.resize_mode, config.interpolation))
        ours, theirs = transform_of(Recipe.of(config)), open_clips_transform(section, 84)
        assert torch.equal(ours(image), theirs(image)), name
    assert len(seen) == 4


def test_longest_keeps_a_line_on_which_open_clip_fails() -> None:
    line = picture("RGB", (1, 500))
    with pytest.raises(ValueError, match="> 0"):
        open_clips_transform({"resize_mode": "longest"}, 84)(line)
    assert hfclip.image_transform(84, resize_mode="longest")(line).shape == (3, 84, 84)


VIT = hfclip.ClipConfig(8, 84, 1, 64, 14, 8, 50, 64, 1, 1)
SQUARE = {"height": 84, "width": 84}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "shortest": {"size": {"shortest_edge": 84}, "crop_size": SQUARE},
    "an older file": {"size": 84, "crop_size": 84},
    "bilinear": {"size": {"shortest_edge": 84}, "crop_size": SQUARE, "resample": 2},
    "cropped": {"size": {"shortest_edge": 99}, "crop_size": SQUARE},
    "squash": {"size": SQUARE, "crop_size": SQUARE},
    "squash, no crop": {"size": SQUARE, "do_center_crop": False, "resample": 2},
    "squash, cropped": {"size": {"height": 97, "width": 97}, "crop_size": SQUARE},
    "not normalized": {"size": SQUARE, "do_center_crop": False, "do_normalize": False},
    "another mean": {
        "size": {"shortest_edge": 84},
        "crop_size": 84,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.1],
    },
}


def transformers_pixels(kind: str, preprocessor: dict[str, Any], image: Image.Image) -> Tensor:
    import transformers

    processor = getattr(transformers, kind)(**preprocessor)
    pixels: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return pixels


def hfclips_pixels(preprocessor: dict[str, Any], image: Image.Image) -> tuple[Tensor, Recipe]:
    config = config_from_transformers(config_to_transformers(VIT)[0], preprocessor)
    recipe = Recipe.of(config)
    return transform_of(recipe)(image), recipe


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_pixels_of_rgb_and_grey_equal_those_of_transformers_pil_processor(name: str) -> None:
    shifted = 0
    for mode, size in product(["RGB", "L"], SMALL_SIZES):
        image = picture(mode, size)
        ours, recipe = hfclips_pixels(TRANSFORMERS[name], image)
        theirs = transformers_pixels("CLIPImageProcessorPil", TRANSFORMERS[name], image)
        # transformers rounds the offset of the crop down, torchvision to the nearest even number.
        excess = [length - 84 for length in recipe.resized(image.size)]
        x, y = (int(length % 4 == 3) for length in excess)
        shifted += x + y
        assert torch.equal(ours[:, : 84 - y, : 84 - x], theirs[:, y:, x:]), (mode, size)
    assert shifted > 0 or recipe.resize_mode == "squash"


def levels_from_fast_processor(name: str, image: Image.Image) -> Tensor:
    """Returns the differences from transformers' default processor, in levels of 255."""
    ours, recipe = hfclips_pixels(TRANSFORMERS[name], image)
    theirs = transformers_pixels("CLIPImageProcessor", TRANSFORMERS[name], image)
    x, y = (int((length - 84) % 4 == 3) for length in recipe.resized(image.size))
    apart = (ours[:, : 84 - y, : 84 - x] - theirs[:, y:, x:]).abs()
    return apart * torch.tensor(recipe.std)[:, None, None] * 255


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_pixels_of_transformers_fast_processor_differ_by_one_level_and_rarely_two(
    name: str,
) -> None:
    apart = [
        levels_from_fast_processor(name, picture("RGB", size)).flatten()
        for size in SMALL_SIZES
        if size != (8, 300)
    ]
    levels = torch.cat(apart)
    assert 0.99 < levels.max() < 2.01
    assert (levels > 1.01).float().mean() < 1e-4


def test_pixels_of_transformers_fast_processor_differ_most_in_a_stretched_strip() -> None:
    strip = picture("RGB", (8, 300))
    # 1 with Pillow 12, up to 7 with Pillow 13.
    assert 0.99 < levels_from_fast_processor("squash", strip).max() < 7.01
    assert levels_from_fast_processor("shortest", strip).max() < 1.01


def test_transparency_is_dropped_and_not_blended_with_white_as_by_transformers() -> None:
    image = Image.new("RGBA", (84, 84), (10, 20, 30, 0))
    preprocessor = TRANSFORMERS["squash"] | {"do_normalize": False}
    ours, _ = hfclips_pixels(preprocessor, image)
    theirs = transformers_pixels("CLIPImageProcessorPil", preprocessor, image)
    assert (255 * ours[:, 0, 0]).round().tolist() == [10, 20, 30]
    assert theirs.min() == 1


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_written_preprocessor_gives_transformers_the_same_pixels(name: str) -> None:
    config = config_from_transformers(config_to_transformers(VIT)[0], TRANSFORMERS[name])
    _, written = config_to_transformers(config)
    for kind, size in product(["CLIPImageProcessorPil", "CLIPImageProcessor"], SMALL_SIZES[:4]):
        image = picture("RGB", size)
        expected = transformers_pixels(kind, TRANSFORMERS[name], image)
        found = transformers_pixels(kind, written, image)
        assert torch.allclose(found, expected, rtol=0, atol=1e-6), (kind, size)


def test_the_steps_equal_those_of_clip_in_order(clip: ModuleType) -> None:
    ours, theirs = hfclip.image_transform(288), clip.clip._transform(288)
    assert [type(step) for step in ours.transforms] == [type(step) for step in theirs.transforms]
    assert str(ours.transforms[0]) == str(theirs.transforms[0])
    assert str(ours.transforms[4]) == str(theirs.transforms[4])
