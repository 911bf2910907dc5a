"""The inputs of a model in NumPy: pictures, texts, and errors that say what to do."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VIT, draw
from PIL import Image

import hfclip
from hfclip.images.exact import Recipe
from hfclip.images.reading import load_batch
from hfclip.light import LightCLIP, Preprocess, tokenize

LIGHT = LightCLIP(TINY_VIT, {name: t.numpy() for name, t in draw(TINY_VIT).state_dict().items()})
PREPROCESS = Preprocess(Recipe.of(TINY_VIT))
TRANSFORM = hfclip.image_transform(32)


def turned_picture() -> Image.Image:
    """Returns a picture of noise that a viewer shows turned."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    return image


def test_a_path_and_bytes_give_the_pixels_of_load_batch(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = turned_picture()
    image.save(path, exif=image.getexif())
    expected = load_batch([path], TRANSFORM).pixels[0].numpy()
    for picture in (path, str(path), path.read_bytes()):
        found = PREPROCESS(picture)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
    assert not np.array_equal(expected, TRANSFORM(Image.open(path)).numpy())


def test_a_pil_image_is_prepared_as_it_is_like_by_load(tmp_path: Path) -> None:
    image = turned_picture()
    file = io.BytesIO()
    image.save(file, "PNG", exif=image.getexif())
    opened = Image.open(file)
    assert np.array_equal(PREPROCESS(opened), TRANSFORM(opened).numpy())


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(hfclip.ImageError, match=r"a\.png: no such file"):
        PREPROCESS(path)
    path.write_bytes(b"no picture")
    with pytest.raises(hfclip.ImageError, match=r"a\.png: not a picture"):
        PREPROCESS(path)
    with pytest.raises(hfclip.ArgumentTypeError, match="has type int; expected a path"):
        PREPROCESS(3)  # type: ignore[arg-type]


def test_texts_are_tokenized_as_by_hfclip() -> None:
    texts = ["a cat", "", "naïve café 猫", "x " * 70]
    assert np.array_equal(tokenize(texts), hfclip.tokenize(texts).numpy())
    assert tokenize("a cat").shape == (1, 77)
    assert tokenize([]).shape == (0, 77)
    long = "word " * 100
    assert np.array_equal(
        tokenize(long, truncate=True), hfclip.tokenize(long, truncate=True).numpy()
    )
    with pytest.raises(hfclip.TextTooLongError, match="too long for context length 77"):
        tokenize(long)
    with pytest.raises(hfclip.ArgumentTypeError, match="texts must be a str"):
        tokenize({"a": 1})


IMAGES = np.zeros((2, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (IMAGES[0], r"float32 \(3, 32, 32\)"),
        (IMAGES[:, :, 1:], r"float32 \(2, 3, 31, 32\)"),
        (IMAGES.astype(np.uint8), r"uint8 \(2, 3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32), "of type torch.Tensor"),
        ([IMAGES], "of type list"),
    ],
)
def test_other_images_are_refused(images: object, told: str) -> None:
    with pytest.raises(hfclip.ShapeError, match=rf"The images are {told}; expected floats \(B, 3"):
        LIGHT.encode_image(images)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (np.zeros(16, np.int32), r"int32 \(16,\)"),
        (np.zeros((2, 17), np.int32), r"int32 \(2, 17\)"),
        (np.zeros((2, 0), np.int32), r"int32 \(2, 0\)"),
        (np.zeros((2, 16), np.float32), r"float32 \(2, 16\)"),
        (torch.zeros(2, 16, dtype=torch.int32), "of type torch.Tensor"),
        ("a cat", "of type str"),
    ],
)
def test_other_texts_are_refused(ids: object, told: str) -> None:
    with pytest.raises(hfclip.ShapeError, match=rf"The text is {told}; expected integers \(T, L\)"):
        LIGHT.encode_text(ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, 600])
def test_ids_outside_the_vocabulary_are_refused(wrong: int) -> None:
    ids = np.array([[1, wrong]])
    told = r"ids from -?\d+ to \d+; the model has tokens 0 to 599"
    with pytest.raises(hfclip.UnknownTokenError, match=told):
        LIGHT.encode_text(ids)
