"""`hfclip.Searcher` on a collection whose vectors are known."""

from pathlib import Path

import numpy as np
import pytest
from small_collection import Row, lengthened, unit_rows, write_collection

import hfclip
from hfclip.embedding.items import Item
from hfclip.errors import ArgumentError, DataError


@pytest.fixture
def rows() -> list[Row]:
    rows = unit_rows(60, 16)
    rows[8] = rows[8]._replace(item=Item("photos/0008.jpg", None, "eight", 8, 0))
    return rows


@pytest.fixture
def searcher(rows: list[Row], tmp_path: Path) -> hfclip.Searcher:
    return hfclip.Searcher(write_collection(tmp_path / "out", rows, dimension=16))


def test_nearest_gives_cosines_for_vectors_of_any_length(
    searcher: hfclip.Searcher, rows: list[Row]
) -> None:
    vectors = np.array([row.vector for row in rows])
    queries = np.random.default_rng(1).standard_normal((7, 16)) * 30
    found, scores = searcher.nearest(queries, 5)
    cosines = queries @ vectors.T / np.linalg.norm(queries, axis=1, keepdims=True)
    assert np.array_equal(found, np.argsort(-cosines, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.sort(-cosines, axis=1)[:, :5] * -1, atol=1e-6)


def test_results_are_like_a_key_and_leave_it_out(
    searcher: hfclip.Searcher, rows: list[Row]
) -> None:
    hits = searcher.search(like=["photos/0008.jpg"], top=59)
    vectors = np.array([row.vector for row in rows])
    order = [int(row) for row in np.argsort(-(vectors @ vectors[8])) if row != 8]
    assert [hit.row for hit in hits] == order
    assert [hit.key for hit in hits[:3]] == [rows[row].item.key for row in order[:3]]
    assert searcher.search(like=["photos/0008.jpg"], top=100) == hits
    assert searcher.search(like=["photos/0008.jpg"], top=5) == hits[:5]


def test_several_keys_are_all_left_out(searcher: hfclip.Searcher) -> None:
    like = ["photos/0001.jpg", "photos/0002.jpg", "photos/0002.jpg"]
    hits = searcher.search(like=like, top=58)
    assert len(hits) == 58
    assert not {hit.key for hit in hits} & set(like)


def test_results_below_the_score_are_left_out(searcher: hfclip.Searcher) -> None:
    hits = searcher.search(like=["photos/0001.jpg"], top=59)
    above = searcher.search(like=["photos/0001.jpg"], top=59, min_score=0.2)
    assert above == [hit for hit in hits if hit.score >= 0.2]
    assert 0 < len(above) < len(hits)
    assert searcher.search(like=["photos/0001.jpg"], min_score=0.9999) == []


def test_captions_are_in_the_results(searcher: hfclip.Searcher) -> None:
    hits = searcher.search(like=["photos/0000.jpg"], top=59)
    assert {hit.row: hit.caption for hit in hits if hit.caption} == {8: "eight"}


def test_a_part_of_a_collection_can_be_searched(searcher: hfclip.Searcher, rows: list[Row]) -> None:
    part = hfclip.Searcher(searcher.embeddings[20:40])
    hits = part.search(like=["photos/0025.jpg"], top=50)
    assert {hit.key for hit in hits} == {f"photos/{n:04}.jpg" for n in range(20, 40) if n != 25}
    assert part.embeddings.items([hits[0].row])[0].key == hits[0].key


def test_the_scores_of_a_raw_collection_are_cosines(rows: list[Row], tmp_path: Path) -> None:
    raw = hfclip.Searcher(
        write_collection(tmp_path / "raw", lengthened(rows), dimension=16, normalized=False)
    )
    same = hfclip.Searcher(write_collection(tmp_path / "same", rows, dimension=16))
    for found, expected in zip(
        raw.search(like=["photos/0003.jpg"], top=20),
        same.search(like=["photos/0003.jpg"], top=20),
        strict=True,
    ):
        assert found.key == expected.key
        assert found.score == pytest.approx(expected.score, abs=1e-6)


def test_wrong_arguments_are_refused(searcher: hfclip.Searcher) -> None:
    with pytest.raises(ArgumentError, match="top is 0"):
        searcher.search(like=["photos/0003.jpg"], top=0)
    with pytest.raises(ArgumentError, match="length 0"):
        searcher.nearest(np.zeros((1, 16), np.float32))
    with pytest.raises(ArgumentError, match="Expected vectors"):
        searcher.nearest(np.ones((1, 15), np.float32))
    with pytest.raises(ArgumentError, match="Expected vectors"):
        searcher.nearest(np.ones(16, np.float32))


def test_a_collection_without_an_embedding_is_refused(tmp_path: Path) -> None:
    rows = [row._replace(vector=None, error="damaged") for row in unit_rows(3)]
    with pytest.raises(DataError, match="no embedding to search: all 3 inputs have errors"):
        hfclip.Searcher(write_collection(tmp_path, rows))
