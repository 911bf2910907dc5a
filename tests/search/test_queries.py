"""Queries: weighted sums, what is left out, and texts and pictures of the model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_collection import MANIFEST, unit_rows, write_collection

import hfclip
from hfclip.embedding.decoding import Reader
from hfclip.embedding.encode import Encoder
from hfclip.errors import ArgumentError, DataError, ImageError, TextTooLongError
from hfclip.search.queries import Query, combined, vector_of

DIGITS = Path(hfclip.__file__).parent / "digits"


@pytest.fixture(scope="module")
def loaded() -> Any:
    """Returns the bundled model as a search loads it."""
    model, preprocess = hfclip.load("digits", device="cpu", preprocess="fast")
    return SimpleNamespace(
        encoder=Encoder(model), reader=Reader(preprocess, max_pixels=10_000), manifest=MANIFEST
    )


@pytest.fixture
def embeddings(tmp_path: Path) -> hfclip.Embeddings:
    return hfclip.Embeddings(write_collection(tmp_path, unit_rows(5, 64), dimension=64))


def refused() -> Any:
    raise AssertionError("the model is loaded")


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float64)
    return vector / np.float64(np.linalg.norm(vector))


def test_the_sum_is_weighted_and_has_length_1() -> None:
    found = combined([unit(1, 0), unit(0, 1)], [3, 4])
    np.testing.assert_allclose(found, [0.6, 0.8])
    np.testing.assert_allclose(combined([unit(1, 0), unit(0, 1)], [1, -1]), unit(1, -1))


def test_without_removes_a_direction() -> None:
    found = combined([unit(3, 4)], [1], [unit(0, 1)])
    np.testing.assert_allclose(found, [1, 0], atol=1e-12)


def test_without_leaves_a_query_alone_that_is_already_dissimilar() -> None:
    np.testing.assert_allclose(combined([unit(3, -4)], [1], [unit(0, 1)]), unit(3, -4))


def test_several_texts_without_which_overlap_are_all_removed() -> None:
    random = np.random.default_rng(0)
    query = unit(*random.standard_normal(8))
    without = [unit(*(query + random.standard_normal(8))) for _ in range(4)]
    found = combined([query], [1], without)
    cosines = np.array([found @ one for one in without])
    assert (cosines < 1e-9).all()
    # No other vector of this kind is closer: what was removed is a sum of them, weighed by at
    # least 0, and weighs only those with a cosine of 0.
    removed = query - found * (found @ query)
    weights = np.linalg.lstsq(np.stack(without, axis=1), removed, rcond=None)[0]
    np.testing.assert_allclose(np.stack(without, axis=1) @ weights, removed, atol=1e-8)
    assert (weights > -1e-8).all()
    np.testing.assert_allclose(weights * cosines, 0, atol=1e-8)


def test_a_query_of_which_nothing_remains_is_refused() -> None:
    with pytest.raises(ArgumentError, match="cancel"):
        combined([unit(1, 2), unit(1, 2)], [1, -1])
    with pytest.raises(ArgumentError, match="Nothing of the query remains"):
        combined([unit(1, 2)], [1], [unit(1, 2)])


def test_texts_pictures_and_keys_have_the_vectors_of_the_model(
    loaded: Any, embeddings: hfclip.Embeddings
) -> None:
    model, preprocess = hfclip.load("digits", device="cpu", preprocess="fast")
    text = hfclip.embed_texts(model, ["a handwritten seven"])[0]
    picture = hfclip.embed_images(model, preprocess, [DIGITS / "two.png"])[0]
    cases = {
        Query(texts=("a handwritten seven",)): text,
        Query(images=(DIGITS / "two.png",)): picture,
        Query(images=((DIGITS / "two.png").read_bytes(),)): picture,
        Query(like=("photos/0003.jpg",)): embeddings.vectors[3],
        Query(
            ("a handwritten seven",), (DIGITS / "two.png",), ("photos/0003.jpg",), (), (1, 2, 3)
        ): (text + 2 * picture + 3 * embeddings.vectors[3]),
    }
    for query, expected in cases.items():
        found = vector_of(query, embeddings, lambda: loaded)
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_templates_are_filled_and_averaged(loaded: Any, embeddings: hfclip.Embeddings) -> None:
    query = Query(("seven",), without=("one",), templates=("a handwritten {}", "{}"))
    texts = ["a handwritten seven", "seven", "a handwritten one", "one"]
    a, b, c, d = loaded.encoder.start_texts(texts)()
    expected = combined([unit(*(a + b))], [1], [unit(*(c + d))])
    np.testing.assert_allclose(vector_of(query, embeddings, lambda: loaded), expected, atol=1e-5)


def test_keys_need_no_model(embeddings: hfclip.Embeddings) -> None:
    found = vector_of(Query(like=("photos/0001.jpg",)), embeddings, refused)
    np.testing.assert_allclose(found, embeddings.vectors[1], atol=1e-6)


def test_a_text_that_is_too_long_is_refused(loaded: Any, embeddings: hfclip.Embeddings) -> None:
    with pytest.raises(TextTooLongError, match=r"has 82 tokens.* the model reads 77\."):
        vector_of(Query(("cat " * 80,)), embeddings, lambda: loaded)
    vector_of(Query(("cat " * 75,)), embeddings, lambda: loaded)


def test_wrong_queries_are_refused_before_the_model_is_loaded(
    embeddings: hfclip.Embeddings,
) -> None:
    wrong = {
        "query is empty": Query(),
        "text of the query is empty": Query((" ",)),
        "2 weights for 1 queries": Query(("a",), weights=(1, 2)),
        "has no {}": Query(("a",), templates=("a photo",)),
    }
    for message, query in wrong.items():
        with pytest.raises(ArgumentError, match=message):
            vector_of(query, embeddings, refused)
    with pytest.raises(DataError, match=r"no key 'photos/0009\.jpg'"):
        vector_of(Query(("a",), like=("photos/0009.jpg",)), embeddings, refused)


def test_a_picture_that_cannot_be_read_is_named(
    loaded: Any, embeddings: hfclip.Embeddings, tmp_path: Path
) -> None:
    from PIL import Image

    large = tmp_path / "large.png"
    Image.new("L", (200, 200)).save(large)
    small: Any = SimpleNamespace(
        **vars(loaded) | {"manifest": replace(MANIFEST, max_pixels=10_000)}
    )
    for name, message in ((tmp_path / "no.png", "no such file"), (large, "10,000")):
        with pytest.raises(ImageError, match=f"{name}: .*{message}"):
            vector_of(Query(images=(name,)), embeddings, lambda: small)
