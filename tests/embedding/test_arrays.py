"""`embed_images` and `embed_texts`: values, order, errors."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

import hfclip
from hfclip.errors import ArgumentError, ArgumentTypeError, ImageError

DIGITS = Path(hfclip.__file__).parent / "digits"
NAMES = [DIGITS / f"{name}.png" for name in ("seven", "two", "zero")]


@pytest.fixture(scope="module")
def digits() -> tuple[hfclip.CLIP, object]:
    return hfclip.load("digits", device="cpu")


def test_embeddings_are_the_models_features_normalised(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    pixels = torch.stack([preprocess(Image.open(name)) for name in NAMES])
    with torch.no_grad():
        features = model.encode_image(pixels)
    found = hfclip.embed_images(model, preprocess, NAMES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, normalize(features, dim=-1).numpy(), atol=1e-6)
    raw = hfclip.embed_images(model, preprocess, NAMES, normalize=False)
    np.testing.assert_allclose(raw, features.numpy(), atol=1e-5)


def test_paths_bytes_and_images_from_an_iterator_keep_their_order(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    image = Image.open(NAMES[2])

    def pictures() -> Iterator[object]:
        yield str(NAMES[0])
        yield NAMES[1].read_bytes()
        yield image
        yield image

    found = hfclip.embed_images(model, preprocess, pictures(), batch_size=3, workers=2)
    expected = hfclip.embed_images(model, preprocess, [*NAMES, NAMES[2]])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_optimized_model_is_accepted(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    fast = hfclip.optimize(model)
    expected = hfclip.embed_images(model, preprocess, NAMES)
    np.testing.assert_allclose(hfclip.embed_images(fast, preprocess, NAMES), expected, atol=1e-4)


def test_an_unreadable_picture_raises_or_gives_nan(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    pictures = [NAMES[0], b"broken", NAMES[1]]
    with pytest.raises(ImageError, match="picture 1: not a picture"):
        hfclip.embed_images(model, preprocess, pictures)
    found = hfclip.embed_images(model, preprocess, pictures, errors="nan")
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
    expected = hfclip.embed_images(model, preprocess, NAMES[:2])
    np.testing.assert_allclose(found[[0, 2]], expected, atol=1e-6)


def test_texts_are_the_models_features_normalised(digits: tuple) -> None:  # type: ignore[type-arg]
    model, _ = digits
    texts = ["a handwritten seven", "the digit two", "zero"]
    with torch.no_grad():
        ids = hfclip.tokenize(texts, context_length=model.context_length)
        features = model.encode_text(ids)
    found = hfclip.embed_texts(model, iter(texts), batch_size=2)
    np.testing.assert_allclose(found, normalize(features, dim=-1).numpy(), atol=1e-6)


def test_nothing_gives_no_rows(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    width = model.config.embed_dim
    assert hfclip.embed_images(model, preprocess, []).shape == (0, width)
    assert hfclip.embed_texts(model, []).shape == (0, width)


def test_wrong_arguments_are_refused(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    with pytest.raises(ArgumentError, match="errors is 'skip'"):
        hfclip.embed_images(model, preprocess, NAMES, errors="skip")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="batch_size is 0"):
        hfclip.embed_images(model, preprocess, NAMES, batch_size=0)
    with pytest.raises(ArgumentTypeError, match="texts is one string"):
        hfclip.embed_texts(model, "seven")
