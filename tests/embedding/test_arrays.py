"""`embed_images` and `embed_texts`: values, order, errors."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

import hfclip
from hfclip.errors import ArgumentError, ArgumentTypeError, ImageError, ShapeError
from hfclip.images.reading import Picture

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

    def pictures() -> Iterator[Picture]:
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
    pictures: list[Picture] = [NAMES[0], b"broken", NAMES[1]]
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


def test_a_stream_of_unknown_length_is_read_a_few_batches_ahead(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    read: list[int] = []

    def stream() -> Iterator[Path]:
        for number in range(10_000):
            read.append(number)
            yield NAMES[number % 3]

    found = hfclip.iter_images(model, preprocess, stream(), batch_size=4, workers=2)
    expected = hfclip.embed_images(model, preprocess, NAMES)
    for number in range(9):
        picture, vector = next(found)
        assert picture is NAMES[number % 3]
        np.testing.assert_allclose(vector, expected[number % 3], atol=1e-6)
    found.close()  # type: ignore[attr-defined]
    assert len(read) <= 9 + 4 * 4
    assert not [thread for thread in threading.enumerate() if "hfclip" in thread.name]


def test_a_stream_raises_the_error_after_the_pictures_before_it(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    pictures: list[Picture] = [NAMES[0], NAMES[1], b"broken", NAMES[2]]
    stream = hfclip.iter_images(model, preprocess, pictures, batch_size=2)
    assert [next(stream)[0], next(stream)[0]] == NAMES[:2]
    with pytest.raises(ImageError, match="picture 2: not a picture"):
        next(stream)
    found = list(hfclip.iter_images(model, preprocess, pictures, errors="nan"))
    assert [picture for picture, _ in found] == pictures
    assert [bool(np.isnan(vector).any()) for _, vector in found] == [False, False, True, False]


def test_an_error_in_the_stream_itself_is_raised(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits

    def stream() -> Iterator[Path]:
        yield NAMES[0]
        raise KeyError("the source ended")

    with pytest.raises(KeyError, match="the source ended"):
        hfclip.embed_images(model, preprocess, stream())


def test_one_lazy_image_in_many_places_is_decoded_once_at_a_time(
    digits: tuple,  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    model, preprocess = digits
    Image.open(NAMES[0]).convert("RGB").resize((800, 800)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as image:
        found = hfclip.embed_images(model, preprocess, [image] * 40, workers=4)
    with Image.open(tmp_path / "large.jpg") as image:
        expected = hfclip.embed_images(model, preprocess, [image])
    np.testing.assert_allclose(found, expected.repeat(40, axis=0), atol=1e-6)


def test_a_preprocess_of_another_model_is_named(digits: tuple) -> None:  # type: ignore[type-arg]
    model, _ = digits
    with pytest.raises(ShapeError, match=r"returns a tensor \(3, 48, 48\); this model expects"):
        hfclip.embed_images(model, hfclip.image_transform(48), NAMES)


def test_one_picture_instead_of_several_is_refused(digits: tuple) -> None:  # type: ignore[type-arg]
    model, preprocess = digits
    for picture in (str(NAMES[0]), NAMES[0], b"content", Image.new("L", (9, 9))):
        with pytest.raises(ArgumentTypeError, match="pictures is one picture"):
            hfclip.embed_images(model, preprocess, picture)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="picture 1 has type int"):
        hfclip.embed_images(model, preprocess, [NAMES[0], 7])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="workers is 0"):
        hfclip.embed_images(model, preprocess, NAMES, workers=0)
