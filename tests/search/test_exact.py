"""Exact search equals brute force, and its order depends on nothing but the scores."""

import numpy as np
import pytest

from hfclip.errors import ArgumentError
from hfclip.search.exact import search


def whole_numbers() -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors (20,000, 64) of small whole numbers, so that many scores tie exactly."""
    random = np.random.default_rng(0)
    vectors = random.integers(-2, 3, (20_000, 64)).astype(np.float16).astype(np.float32)
    return vectors, random.integers(-2, 3, (100, 64)).astype(np.float32)


def near_ties() -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors (6,000, 512) that all have a cosine of about 0.3 with the first query.

    Their scores differ by less than the rounding errors of a product in float32.
    """
    random = np.random.default_rng(1)
    queries = random.standard_normal((10, 512))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    others = random.standard_normal((6_000, 512))
    others -= np.outer(others @ queries[0], queries[0])
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    vectors = 0.3 * queries[0] + np.sqrt(1 - 0.3**2) * others
    return vectors.astype(np.float32), queries.astype(np.float32)


def brute_force(
    vectors: np.ndarray, queries: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray]:
    products = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    rows = np.argsort(-products, axis=1, kind="stable")[:, :top]
    return rows, np.take_along_axis(products, rows, axis=1)


@pytest.mark.parametrize("block", [1, 7, 1_000, 65_536])
def test_rows_and_scores_equal_brute_force_with_ties(block: int) -> None:
    vectors, queries = whole_numbers()
    if block < 1_000:
        vectors = vectors[:500]
    rows, scores = search(vectors, queries, 15, block=block)
    expected, values = brute_force(vectors, queries, 15)
    assert np.array_equal(rows, expected)
    assert np.array_equal(scores, values)
    assert (scores[:, :-1] == scores[:, 1:]).any()


def test_rows_and_scores_equal_brute_force_on_100_queries() -> None:
    random = np.random.default_rng(2)
    vectors = random.standard_normal((50_000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:100] + np.float32(0.05) * random.standard_normal((100, 128))
    rows, scores = search(vectors, queries.astype(np.float32), 10, block=4_096)
    expected, values = brute_force(vectors, queries.astype(np.float32), 10)
    assert np.array_equal(rows, expected)
    assert np.array_equal(scores, values)


@pytest.mark.parametrize("data", [whole_numbers, near_ties])
def test_neither_top_nor_the_number_of_queries_nor_the_block_changes_a_result(data: object) -> None:
    assert callable(data)
    vectors, queries = data()
    rows, scores = search(vectors, queries, 40)
    expected, values = brute_force(vectors, queries, 40)
    assert np.array_equal(rows, expected)
    assert np.array_equal(scores, values)
    for top in (1, 5, 15):
        for few in (queries[:1], queries[:3], queries):
            for block in (512, 5_000):
                found, numbers = search(vectors, few, top, block=block)
                assert np.array_equal(found, rows[: len(few), :top])
                assert np.array_equal(numbers, scores[: len(few), :top])


def test_near_ties_are_in_the_order_of_their_scores_and_rows() -> None:
    vectors, queries = near_ties()
    rows, scores = search(vectors, queries[:1], 6_000)
    assert sorted(rows[0]) == list(range(6_000))
    assert len(set(scores[0].tolist())) > 1
    pairs = list(zip((-scores[0]).tolist(), rows[0].tolist(), strict=True))
    assert pairs == sorted(pairs)


def test_vectors_that_are_all_the_same_are_in_the_order_of_the_rows() -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (20_000, 1))
    rows, scores = search(vectors, np.array([[1, 0]], np.float32), 5, block=3_000)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]
    assert scores.tolist() == [[np.float32(0.6)] * 5]


def test_scores_that_rise_from_block_to_block() -> None:
    angles = np.linspace(0, 1, 10_000)
    vectors = np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    rows, _ = search(vectors, np.array([[1, 0]], np.float32), 3, block=64)
    assert rows.tolist() == [[9_999, 9_998, 9_997]]


def test_with_norms_the_score_is_the_cosine() -> None:
    random = np.random.default_rng(3)
    vectors = random.standard_normal((3_000, 16)).astype(np.float32)
    vectors *= random.uniform(0.01, 100, (3_000, 1)).astype(np.float32)
    vectors[7] = 0
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1).astype(np.float32)
    query = vectors[[5]] / norms[5]
    rows, scores = search(vectors, query, 3_000, norms=norms, block=700)
    cosines = (vectors.astype(np.float64) @ query[0]) / np.where(norms, norms, 1)
    np.testing.assert_allclose(scores[0], cosines[rows[0]], atol=2e-7)
    assert rows[0, 0] == 5
    assert (scores[0, :-1] >= scores[0, 1:]).all()
    assert scores[0][rows[0] == 7] == [0]


def test_at_most_all_rows_are_returned() -> None:
    vectors = np.eye(3, dtype=np.float32)
    rows, scores = search(vectors, np.array([[0.1, 0.3, 0.2]], np.float32), 10)
    assert rows.tolist() == [[1, 2, 0]]
    assert scores.shape == (1, 3)
    assert search(vectors[:0], vectors, 10)[0].shape == (3, 0)
    assert search(vectors, vectors[:0], 2)[0].shape == (0, 2)


def test_wrong_arguments_are_refused() -> None:
    one = np.zeros((1, 4), np.float32)
    with pytest.raises(ArgumentError, match=r"Expected vectors \(N, D\)"):
        search(np.zeros((3, 4), np.float32), np.zeros((1, 5), np.float32), 1)
    with pytest.raises(ArgumentError, match="at least 1"):
        search(one, one, 0)
    with pytest.raises(ArgumentError, match="not finite"):
        search(one, one * np.nan, 1)
    with pytest.raises(ArgumentError, match="Expected norms"):
        search(one, one, 1, norms=np.ones(2, np.float32))
