"""Exact search equals the brute force of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from hfclip.search.exact import search


def collection() -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors (20,000, 64) of small whole numbers, so that many scores tie exactly."""
    random = np.random.default_rng(0)
    vectors = random.integers(-2, 3, (20_000, 64)).astype(np.float16).astype(np.float32)
    return vectors, random.integers(-2, 3, (100, 64)).astype(np.float32)


def test_the_rows_and_scores_equal_brute_force_with_ties() -> None:
    vectors, queries = collection()
    rows, scores = search(vectors, queries, 15, block=1_000)
    products = queries @ vectors.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :15]
    assert np.array_equal(rows, expected)
    assert np.array_equal(scores, np.take_along_axis(products, expected, axis=1))
    assert (scores[:, :-1] == scores[:, 1:]).any()


def test_the_5_best_are_the_first_5_of_the_15_best() -> None:
    vectors, queries = collection()
    assert np.array_equal(search(vectors, queries, 5)[0], search(vectors, queries, 15)[0][:, :5])


def test_queries_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected vectors"):
        search(np.zeros((3, 4), np.float32), np.zeros((1, 5), np.float32), 1)
