"""The recall of an approximate search, measured with rows and with other queries."""

import tracemalloc

import numpy as np
import pytest
from clustered import clustered, texts_for
from numpy.typing import NDArray

from hfclip.search import recall
from hfclip.search.exact import search
from hfclip.search.recall import QUERIES, Question, Search, ask, choose_held_out

ROWS = clustered(300, 8)
TEXTS = texts_for(ROWS)


def exactly(
    queries: NDArray[np.float32], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return search(ROWS, queries, top)


def without(lost: int) -> Search:
    """Returns a search that loses some of the best rows, but never the best one."""

    def approximate(
        queries: NDArray[np.float32], top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = search(ROWS, queries, top + lost)
        kept = np.r_[0, lost + 1 : top + lost]
        return rows[:, kept], scores[:, kept]

    return approximate


def questions() -> list[Question]:
    return ask(ROWS, None, choose_held_out(300), "images", {"captions": TEXTS[:40]})


def test_exact_search_finds_all_and_the_rows_themselves_do_not_count() -> None:
    images, captions = questions()
    assert images.recall(exactly) == (1.0, 0.0)
    assert captions.recall(exactly) == (1.0, 0.0)
    # Three of the ten others are lost; the row itself, which is found, is none of them.
    assert images.recall(without(3)).share == pytest.approx(0.7)
    # A caption is no row: the best row counts, and three of the other nine are lost.
    assert captions.recall(without(3)).share == pytest.approx(0.7)


def test_the_tenth_of_the_other_rows_is_the_last_that_counts() -> None:
    images, captions = questions()
    for own, query, least in zip(images.own, images.queries, images.least, strict=True):
        scores = np.sort(np.delete(ROWS @ query, own))[::-1]
        assert least == pytest.approx(scores[9], abs=1e-6)
    for query, least in zip(captions.queries, captions.least, strict=True):
        assert least == pytest.approx(np.sort(ROWS @ query)[::-1][9], abs=1e-6)


def test_any_of_several_equal_rows_counts() -> None:
    vectors = np.repeat(clustered(30, 8), 20, axis=0)
    [question] = ask(vectors, None, np.array([5, 100]), "images", {})

    def last(
        queries: NDArray[np.float32], top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = search(vectors, queries, 20)
        return rows[:, -top:], scores[:, -top:]

    assert question.recall(last).share == 1


def test_queries_of_several_blocks_are_chosen_as_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_for(clustered(2_000, 8))
    texts[5:1_100] = np.nan  # a block without any, of 300 rows
    expected = ask(ROWS, None, choose_held_out(300), "images", {"captions": texts})[1]
    monkeypatch.setattr(recall, "BLOCK", 300)
    found = ask(ROWS, None, choose_held_out(300), "images", {"captions": texts})[1]
    assert np.array_equal(found.queries, expected.queries)
    places = [int(np.flatnonzero((texts == query).all(axis=1))[0]) for query in found.queries]
    assert len(set(places)) == QUERIES
    assert places == sorted(places)
    assert not set(places) & set(range(5, 1_100))


def test_the_memory_of_choosing_queries_does_not_grow_with_the_rows() -> None:
    peaks = []
    for rows in (200_000, 600_000):
        texts = np.broadcast_to(TEXTS[0], (rows, 64 // 8, 8)).reshape(rows, 64)
        tracemalloc.start()
        chosen = recall._choose_finite(texts, np.random.default_rng(0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(chosen) == QUERIES
    # A byte for each number would be 13 and 38 MB, a block has 4 MB.
    assert max(peaks) < 8 * 2**20
    assert peaks[1] - peaks[0] < 2**20


def test_the_standard_error_is_that_of_the_mean() -> None:
    images, _ = questions()
    calls: list[int] = []

    def half(
        queries: NDArray[np.float32], top: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = exactly(queries, top)
        calls.append(top)
        scores[: len(scores) // 2] = -1  # the first half of the queries finds nothing
        return rows, scores

    found = images.recall(half)
    assert found.share == 0.5
    assert found.error == pytest.approx(0.5 / len(images.queries) ** 0.5)
    assert found.safe == pytest.approx(0.5 - found.error)
    assert calls == [11]


def test_held_out_rows_are_at_most_a_tenth() -> None:
    assert len(choose_held_out(300)) == 30
    chosen = choose_held_out(100_000)
    assert len(set(chosen.tolist())) == QUERIES
    assert (np.diff(chosen) > 0).all()
