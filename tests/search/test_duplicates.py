"""Near-duplicates equal the brute force over all pairs, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from hfclip.errors import ArgumentError
from hfclip.search.duplicates import Duplicates, find_duplicates


def scattered(rows: int = 300, dimension: int = 16, *, seed: int = 0) -> NDArray[np.float32]:
    """Returns vectors of different lengths; many are close to earlier ones."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((rows // 4, dimension))
    vectors = centers[random.integers(0, len(centers), rows)]
    vectors = vectors + random.choice([0.0, 0.1, 0.2, 0.4], (rows, 1)) * random.standard_normal(
        (rows, dimension)
    )
    return (vectors * random.uniform(0.5, 3, (rows, 1))).astype(np.float32)


def cosines_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines


def brute_force(vectors: NDArray[np.float32], threshold: float) -> dict[int, int]:
    """Returns the first row of each row's group, one row after the other."""
    cosines = cosines_of(vectors)
    firsts: dict[int, int] = {}
    for row in range(len(vectors)):
        leading = [first for first, own in firsts.items() if first == own]
        similar = [first for first in leading if cosines[row, first] >= threshold - 1e-6]
        firsts[row] = similar[0] if similar else row
    return firsts


def groups_of(found: Duplicates) -> list[list[int]]:
    return [rows.tolist() for rows in found.groups()]


@pytest.mark.parametrize("block", [7, 64, 300, 1000])
@pytest.mark.parametrize("threshold", [0.9, 0.97, 1.0])
def test_groups_equal_a_search_of_each_row_among_the_firsts_before_it(
    block: int, threshold: float
) -> None:
    vectors = scattered()
    found = find_duplicates(vectors, threshold, block=block)
    assert dict(enumerate(found.firsts)) == brute_force(vectors, threshold)
    expected = cosines_of(vectors)[np.arange(300), found.firsts]
    assert np.allclose(found.scores, expected, rtol=0, atol=1e-6)
    assert 0 < found.members < 300


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_all_pairs_are_counted_and_the_most_similar_are_kept(block: int) -> None:
    vectors = scattered()
    cosines = np.triu(cosines_of(vectors), 1)
    first, second = np.nonzero(cosines >= 0.9)
    found = find_duplicates(vectors, 0.9, limit=50, block=block)
    assert found.count == len(first) > 100
    best = np.sort(cosines[first, second])[::-1][:50]
    assert np.allclose(found.pairs.scores, best, rtol=0, atol=1e-6)
    listed = cosines[found.pairs.rows[:, 0], found.pairs.rows[:, 1]]
    assert np.allclose(found.pairs.scores, listed, rtol=0, atol=1e-6)


def test_every_pair_is_listed_where_the_limit_allows_it() -> None:
    vectors = scattered()
    expected = np.argwhere(np.triu(cosines_of(vectors), 1) >= 0.9).tolist()
    found = find_duplicates(vectors, 0.9, limit=10_000, block=64)
    assert sorted(found.pairs.rows.tolist()) == expected


def test_a_group_starts_with_its_first_row_and_falls_in_similarity() -> None:
    found = find_duplicates(scattered(), 0.9, block=64)
    groups = groups_of(found)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    assert sum(map(len, groups)) == found.members + len(groups)
    for first, *others in groups:
        assert others
        assert set(found.firsts[others]) == {first}
        assert found.firsts[first] == first
        assert (np.diff(found.scores[others]) <= 0).all()


def test_a_chain_of_similar_rows_does_not_join_its_ends() -> None:
    angles = np.radians([0, 10, 20, 30, 40])  # neighbours have a cosine of 0.985
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert groups_of(find_duplicates(vectors, 0.98)) == [[0, 1], [2, 3]]


def test_no_two_rows_that_remain_are_similar() -> None:
    vectors = scattered()
    found = find_duplicates(vectors, 0.95, block=64)
    remaining = np.unique(found.firsts)
    assert np.triu(cosines_of(vectors[remaining]), 1).max() < 0.95


def test_equal_rows_are_in_one_group_whatever_stands_between_them() -> None:
    angles = np.radians([0, 10, 15, 10])  # the second and the last row are equal
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert groups_of(find_duplicates(vectors, 0.98)) == [[0, 1, 3]]


def test_equal_rows_are_found_at_a_threshold_of_1() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((50, 512)).astype(np.float16).astype(np.float32)
    found = find_duplicates(np.concatenate([vectors, 3 * vectors]), 1.0, block=16)
    assert groups_of(found) == [[row, row + 50] for row in range(50)]


def test_memory_stays_small_if_all_rows_are_equal() -> None:
    vectors = np.ones((6_000, 4), np.float32)
    tracemalloc.start()
    found = find_duplicates(vectors, 0.97, limit=10, block=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.count == 6_000 * 5_999 // 2
    assert len(found.pairs.rows) == 10
    assert [len(rows) for rows in found.groups()] == [6_000]
    assert peak < 20_000_000  # all pairs would take 18 million times 16 bytes


def test_a_row_of_zeros_has_no_near_duplicate() -> None:
    assert groups_of(find_duplicates(np.zeros((5, 3), np.float32), 0.5)) == []


def test_nothing_is_found_among_no_rows() -> None:
    found = find_duplicates(np.empty((0, 3), np.float32), 0.5, limit=3)
    assert groups_of(found) == []
    assert found.count == 0


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ArgumentError, match="Expected a threshold"):
        find_duplicates(np.ones((2, 2), np.float32), threshold)
