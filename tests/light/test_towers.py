"""The towers in NumPy give the features of the network, for each of the nine releases."""

import dataclasses
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import TINY_RESNET, TINY_VIT, draw
from drawing import quickly_drawn
from peers.captions import captions as awkward_captions
from PIL import Image

import hfclip
from hfclip.config import ClipConfig
from hfclip.config.resizing import ResizeMode
from hfclip.images.exact import Recipe
from hfclip.light import LightCLIP, tokenize
from hfclip.light.half import widened
from hfclip.light.layers import gelu
from hfclip.light.loading import Preprocess
from hfclip.light.shapes import expected_tensors
from hfclip.light.weights import Array, Floats
from hfclip.model import CLIP
from hfclip.network.initialization import NoInitialization
from hfclip.releases import RELEASES

# Largest distance between two features of the same input, relative to the norm of the model's.
LIMIT = 1e-5
# The blocks of each release here, which leaves its widths, heads, patches and positions whole.
# Models of other tests have several.
LAYERS = 1
STAGES = (1, 1, 1, 1)
# The pictures that are encoded, else 1: fewer of larger models.
PICTURES = {
    "ViT-B/32": 50,
    "ViT-B/16": 8,
    "ViT-L/14": 4,
    "ViT-L/14@336px": 2,
}
CAPTIONS = {"ViT-B/32": 200}
WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "dog",
    "running",
    "through",
    "tall",
    "grass",
    "near",
    "lake",
    "café",
    "at",
    "sunset",
    "2019",
    "naïve",
    "猫",
]


def cut(config: ClipConfig, layers: int = LAYERS) -> ClipConfig:
    """Returns a configuration with fewer blocks of the same size."""
    return dataclasses.replace(
        config,
        vision_layers=STAGES if config.is_resnet else layers,
        transformer_layers=layers,
    )


def arrays(model: CLIP) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def drawn(config: ClipConfig) -> CLIP:
    """Returns a model with random weights and, in a ResNet, random statistics of BatchNorm."""
    model = quickly_drawn(lambda: CLIP(**config.to_dict()))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(torch.rand(buffer.shape, generator=generator), alpha=0.2)
    return model


def captions(count: int) -> list[str]:
    """Returns captions of 1 to 30 words."""
    random = np.random.default_rng(count)
    return [" ".join(random.choice(WORDS, random.integers(1, 31))) for _ in range(count)]


def pictures(count: int, config: ClipConfig) -> Floats:
    random = np.random.default_rng(count)
    side = config.image_resolution
    return random.standard_normal((count, 3, side, side), np.float32)


def largest_difference(found: Floats, expected: torch.Tensor) -> float:
    """Returns the largest distance of two rows, relative to the norm of the expected row."""
    reference = expected.numpy()
    assert found.shape == reference.shape
    assert found.dtype == np.float32
    distances = np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return float(distances.max())


def assert_equal_features(model: CLIP, images: Floats, texts: list[str]) -> None:
    light = LightCLIP(model.config, arrays(model))
    ids = tokenize(texts)
    with torch.inference_mode():
        # The mask is causal: cutting the padding after the longest caption saves time only.
        longest = hfclip.tokenize(texts, padding="longest")
        assert largest_difference(light.encode_text(ids), model.encode_text(longest)) < LIMIT
        expected = model.encode_image(torch.from_numpy(images))
        assert largest_difference(light.encode_image(images), expected) < LIMIT


@pytest.mark.parametrize("name", RELEASES)
def test_each_release_gives_the_features_of_the_model(name: str) -> None:
    model = drawn(cut(RELEASES[name].config))
    images = pictures(PICTURES.get(name, 1), model.config)
    assert_equal_features(model, images, captions(CAPTIONS.get(name, 10)))


def test_all_twelve_blocks_of_a_release_give_the_features_of_the_model() -> None:
    model = drawn(RELEASES["ViT-B/32"].config)
    assert_equal_features(model, pictures(2, model.config), captions(5))


# Every setting that the towers read, each with another value than OpenAI's.
SETTINGS = {
    "as OpenAI's": TINY_VIT,
    "GELU": dataclasses.replace(TINY_VIT, activation="gelu"),
    "narrow heads": dataclasses.replace(TINY_VIT, vision_head_width=16, transformer_heads=4),
    "widths of the MLPs": dataclasses.replace(
        TINY_VIT, vision_mlp_width=100, transformer_mlp_width=70
    ),
    "patches that leave a rest": dataclasses.replace(TINY_VIT, image_resolution=39),
    "other embedding": dataclasses.replace(TINY_VIT, embed_dim=24),
    "ResNet": TINY_RESNET,
    "ResNet with GELU": dataclasses.replace(TINY_RESNET, activation="gelu", vision_head_width=32),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_of_the_configuration_has_its_effect(setting: str) -> None:
    config = SETTINGS[setting]
    model = draw(config)
    light = LightCLIP(config, arrays(model))
    images = pictures(3, config)
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (40, config.context_length))
    with torch.inference_mode():
        expected = (
            model.encode_image(torch.from_numpy(images)),
            model.encode_text(torch.from_numpy(ids)),
        )
    assert largest_difference(light.encode_image(images), expected[0]) < LIMIT
    assert largest_difference(light.encode_text(ids), expected[1]) < LIMIT
    assert light.logit_scale == pytest.approx(model.logit_scale.item())
    assert 1 < math.exp(light.logit_scale) < 100


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_images_of_another_dtype_are_encoded_in_float32(dtype: type[np.floating[Any]]) -> None:
    light = LightCLIP(TINY_VIT, arrays(draw(TINY_VIT)))
    images: Array = pictures(2, TINY_VIT).astype(dtype)
    found = light.encode_image(images)
    assert np.array_equal(found, light.encode_image(images.astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_more_texts_than_a_batch_keep_their_order(dtype: type[np.integer[Any]]) -> None:
    light = LightCLIP(TINY_VIT, arrays(draw(TINY_VIT)))
    ids: Array = np.random.default_rng(0).integers(1, 600, (70, 16)).astype(dtype)
    alone = np.concatenate([light.encode_text(row[None]) for row in ids])
    assert np.abs(light.encode_text(ids) - alone).max() < 1e-5 * np.abs(alone).max()


def test_no_input_gives_no_features() -> None:
    light = LightCLIP(TINY_VIT, arrays(draw(TINY_VIT)))
    assert light.encode_image(np.zeros((0, 3, 32, 32), np.float32)).shape == (0, 64)
    assert light.encode_text(np.zeros((0, 16), np.int32)).shape == (0, 64)
    assert light.encode_text(np.zeros((0, 0), np.int32)).shape == (0, 64)


def test_gelu_is_exact_to_a_part_in_a_million() -> None:
    x = np.linspace(-8, 8, 100_001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(gelu(x) - expected).max() < 1e-6


def test_each_float16_number_is_widened_to_the_bit_as_by_numpy() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]  # these take another way than those beside infinity or NaN
    infinite = np.array([1, -np.inf], np.float16)
    turned = finite[:6].reshape(2, 3).T
    for halves in (finite, every, np.tile(finite, 3)[:-5], finite[:0], infinite, turned):
        found, expected = widened(halves), halves.astype(np.float32)
        assert found.shape == expected.shape
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_very_negative_numbers_give_no_warning_and_no_nan() -> None:
    light = LightCLIP(TINY_VIT, arrays(draw(TINY_VIT)))
    weights = {name: tensor.copy() for name, tensor in arrays(draw(TINY_VIT)).items()}
    weights["visual.transformer.resblocks.0.mlp.c_fc.bias"] -= 1000
    changed = LightCLIP(TINY_VIT, weights)
    images = pictures(1, TINY_VIT)
    assert np.isfinite(changed.encode_image(images)).all()
    assert not np.allclose(changed.encode_image(images), light.encode_image(images))


@pytest.mark.parametrize("config", [entry.config for entry in RELEASES.values()], ids=RELEASES)
def test_the_table_of_shapes_is_that_of_the_network(config: ClipConfig) -> None:
    with NoInitialization():
        state = CLIP(**config.to_dict()).state_dict()
    expected = expected_tensors(config)
    assert list(expected) == list(state)
    for name, tensor in state.items():
        form = expected[name]
        assert (form.shape, f"torch.{form.dtype}") == (tuple(tensor.shape), str(tensor.dtype)), name


def noise(seed: int) -> Image.Image:
    """Returns a picture of noise, of a random size and one of the usual modes."""
    random = np.random.default_rng(seed)
    width, height = random.integers(20, 400, 2)
    pixels = random.integers(0, 256, (height, width, 4), np.uint8)
    mode = ("RGB", "L", "RGBA", "P", "CMYK")[seed % 5]
    return Image.fromarray(pixels, "RGBA").convert("RGB" if mode == "CMYK" else mode).convert(mode)


def test_the_tokens_of_200_captions_equal_those_of_hfclip() -> None:
    texts = awkward_captions(200)
    ids = tokenize(texts, truncate=True)
    assert ids.dtype == np.int32
    assert np.array_equal(ids, hfclip.tokenize(texts, truncate=True).numpy())


@pytest.mark.parametrize("mode", get_args(ResizeMode))
def test_the_pixels_of_50_pictures_equal_those_of_torchvision(mode: ResizeMode) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    steps = hfclip.image_transform(48, mean, std, resize_mode=mode).transforms
    preprocess = Preprocess(Recipe(48, mean, std, mode))
    for seed in range(50):
        image = noise(seed)
        expected: Any = image
        for step in steps:
            expected = step(expected)
        assert np.array_equal(preprocess(image), expected.numpy()), seed
