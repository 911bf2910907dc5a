"""An index finds what exact search finds, and says how much of it."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clustered import clustered, texts_for

from hfclip.errors import ArgumentError, DataError
from hfclip.search import index as index_module
from hfclip.search import lists as lists_module
from hfclip.search.exact import search
from hfclip.search.index import Index, build_index, open_index
from hfclip.search.lists import Kind, Lists, choose_kind, write_lists

pytest.importorskip("faiss")

ROWS = clustered(6_000)
TEXTS = texts_for(ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / ".hfclip/index"
    build_index(folder, ROWS, "first", others=lambda: {"captions": TEXTS})
    return folder


@pytest.fixture
def index(folder: Path) -> Index:
    return open_index(folder, "first")


def share_found(index: Index, queries: np.ndarray) -> float:
    rows, _ = index.search(ROWS, queries, 10)
    exact, _ = search(ROWS, queries, 10)
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]))


def test_the_recall_holds_for_queries_that_were_not_measured(index: Index) -> None:
    fresh = clustered(6_500)[6_000:]
    assert share_found(index, fresh) >= 0.95
    assert share_found(index, texts_for(fresh)) >= 0.93
    assert index.facts.recall.keys() == {"images", "captions"}
    assert min(index.facts.recall.values()) >= 0.95
    assert index.facts.queries == {"images": 400, "captions": 400}


def test_the_index_reads_a_part_of_the_lists_only(index: Index) -> None:
    assert index.facts.probes <= index.facts.lists // 4
    assert share_found(index, TEXTS[:400]) < 1  # so the recall above is no accident


def test_scores_are_those_of_exact_search_to_the_bit(index: Index) -> None:
    rows, scores = index.search(ROWS, TEXTS[:50], 10)
    for query, row, score in zip(TEXTS[:50], rows, scores, strict=True):
        all_rows, all_scores = search(ROWS, query[None], len(ROWS))
        expected = dict(zip(all_rows[0], all_scores[0], strict=True))
        assert [expected[number] for number in row] == list(score)
        assert (np.diff(score) <= 0).all()


@pytest.mark.parametrize("top", [1, 5, 15, 100])
def test_the_best_are_the_first_of_more(index: Index, top: int) -> None:
    queries = np.concatenate([ROWS[:30], TEXTS[:30]])
    rows, scores = index.search(ROWS, queries, top)
    more_rows, more_scores = index.search(ROWS, queries, index_module.MOST)
    assert np.array_equal(rows, more_rows[:, :top])
    assert np.array_equal(scores, more_scores[:, :top])
    assert more_rows.shape == (60, index_module.MOST)


def test_one_query_and_many_give_the_same_rows(index: Index) -> None:
    together, _ = index.search(ROWS, TEXTS[:20], 10)
    alone = [index.search(ROWS, query[None], 10)[0][0] for query in TEXTS[:20]]
    assert np.array_equal(together, alone)


def test_equal_vectors_are_in_the_order_of_their_rows(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(400), 5, axis=0)
    index = build_index(tmp_path / "index", vectors, "stamp")
    rows, _ = index.search(vectors, vectors[[300]], 10)
    assert np.array_equal(rows, search(vectors, vectors[[300]], 10)[0])
    assert list(rows[0][:5]) == [300, 301, 302, 303, 304]


def test_lengths_of_raw_vectors_do_not_change_what_is_found(tmp_path: Path) -> None:
    norms = np.random.default_rng(5).uniform(0.1, 9, len(ROWS)).astype(np.float32)
    raw = ROWS * norms[:, None]
    index = build_index(tmp_path / "index", raw, "stamp", norms=norms)
    rows, scores = index.search(raw, ROWS[:200], 10, norms=norms)
    exact_rows, exact_scores = search(raw, ROWS[:200], 10, norms=norms)
    same = rows == exact_rows
    assert same.mean() > 0.95
    assert np.array_equal(scores[same], exact_scores[same])


def test_two_builds_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    build_index(tmp_path / "index", ROWS, "first", others=lambda: {"captions": TEXTS})
    for path in sorted(folder.iterdir()):
        assert (tmp_path / "index" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(folder.iterdir())) == 2


def test_the_centroids_are_not_computed_from_the_held_out_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[np.ndarray] = []

    def trained(faiss: Any, sample: np.ndarray, *_: Any, **__: Any) -> None:
        samples.append(sample)
        raise KeyboardInterrupt

    monkeypatch.setattr(lists_module, "_trained", trained)
    held_out = np.arange(0, 6_000, 7)
    with pytest.raises(KeyboardInterrupt):
        write_lists(tmp_path, ROWS, None, Kind(128, 8, 6_000), held_out)
    assert np.array_equal(samples[0], np.delete(ROWS, held_out, axis=0))


@pytest.mark.parametrize("files", [1, 3])
def test_lists_in_several_files_give_the_same_candidates(tmp_path: Path, files: int) -> None:
    kind = choose_kind(*ROWS.shape)
    held_out = np.arange(0)
    vectors = clustered(40_000)
    names = write_lists(tmp_path, vectors, None, kind, held_out, memory=2**40 if files == 1 else 1)
    assert len(names) == files
    lists = Lists([tmp_path / name for name in names])
    assert (lists.rows, lists.count) == (40_000, kind.lists)
    # All lists are read: the candidates are the best of all, up to the precision of 8 bits.
    for query, found in zip(TEXTS, lists.candidates(TEXTS[:20], 400, kind.lists), strict=False):
        exact, _ = search(vectors, query[None], 100)
        assert len(found) == 400
        assert (np.diff(found) > 0).all()
        assert set(exact[0]) <= set(found)


def test_files_that_are_searched_at_once_give_what_they_give_one_after_the_other(
    tmp_path: Path,
) -> None:
    vectors = clustered(40_000)
    names = write_lists(tmp_path, vectors, None, Kind(300, 8, 15_000), np.arange(0), memory=1)
    paths = [tmp_path / name for name in names]
    one, many = Lists(paths, threads=1), Lists(paths, threads=3)
    threads: set[str] = set()
    whole = many._parts[0].search

    def search_first(*given: Any, **named: Any) -> Any:
        threads.add(threading.current_thread().name)
        return whole(*given, **named)

    many._parts[0].search = search_first
    for probes in (1, 7, 300):
        for queries in (TEXTS[:1], TEXTS[:70]):
            found = list(many.candidates(queries, 400, probes))
            expected = list(one.candidates(queries, 400, probes))
            assert len(found) == len(expected) == len(queries)
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(paths) == 3
    assert threads
    assert all(name.startswith("hfclip-search") for name in threads)


def test_the_sample_has_no_row_that_is_held_out_and_may_have_all_others() -> None:
    random = np.random.default_rng(0)
    held_out = np.array([0, 1, 2, 50, 51, 99])
    rows = lists_module._sampled(random, 100, held_out, 1_000)
    assert list(rows) == [row for row in range(100) if row not in set(held_out)]
    drawn = np.concatenate([lists_module._sampled(random, 100, held_out, 10) for _ in range(2_000)])
    counts = np.bincount(drawn, minlength=100)
    assert not counts[held_out].any()
    assert counts[counts > 0].min() > 150  # 213 on average
    assert (counts > 0).sum() == 94


# Builds lists of a mapped file and prints the growth of the process's own memory, in bytes.
PEAK = """
import sys, threading, time
from pathlib import Path
import numpy as np
from hfclip.search.lists import Kind, write_lists
from hfclip.search.recall import choose_held_out

def own():
    [line] = [l for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l]
    return int(line.split()[1]) * 1024

def watch():
    while not done.wait(0.002):
        highest[0] = max(highest[0], own())

folder = Path(sys.argv[1])
vectors = np.load(folder / "vectors.npy", mmap_mode="r").view(np.ndarray)
held_out = choose_held_out(len(vectors))
kind = Kind(16, 8, 800)
small = vectors[:20_000]
(folder / "small").mkdir()
write_lists(folder / "small", small, None, kind, np.arange(0), memory=2**21)  # starts all threads
done, highest, before = threading.Event(), [0], own()
thread = threading.Thread(target=watch)
thread.start()
names = write_lists(folder, vectors, None, kind, held_out, memory=2**21)
done.set()
thread.join()
assert len(names) > 4
print(max(0, highest[0] - before))
"""


def test_the_memory_of_building_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems do not report the memory without mapped files")
    peaks = []
    for rows in (300_000, 900_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        shape = rows, 32
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
        part = clustered(10_000)
        for start in range(0, rows, len(part)):
            vectors[start : start + len(part)] = part
        del vectors
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    # The rows grow by 77 MB, the lists by 24 MB, and a list of all rows and its copies by 20 MB.
    assert peaks[1] - peaks[0] < 8 * 2**20


def test_the_recall_without_clusters_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((2_000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with pytest.raises(DataError, match=r"finds 0\.\d+ of the 10 best for images with a quarter"):
        build_index(tmp_path / "index", vectors, "stamp")
    assert list(tmp_path.iterdir()) == []
    index = build_index(tmp_path / "index", vectors, "stamp", recall=0.1)
    assert 0.1 <= index.facts.recall["images"] < 0.95


def test_more_lists_are_read_for_a_higher_recall(folder: Path, tmp_path: Path) -> None:
    index = build_index(
        tmp_path / "index", ROWS, "s", recall=0.6, others=lambda: {"captions": TEXTS}
    )
    assert index.facts.probes < open_index(folder, "first").facts.probes
    assert 0.6 <= index.facts.recall["captions"] < 0.95


def test_captions_without_an_embedding_are_no_queries(tmp_path: Path) -> None:
    captions = TEXTS.copy()
    captions[100:] = np.nan
    index = build_index(tmp_path / "index", ROWS, "stamp", others=lambda: {"captions": captions})
    assert index.facts.queries == {"images": 400, "captions": 100}
    captions[:] = np.nan
    index = build_index(tmp_path / "index", ROWS, "stamp", others=lambda: {"captions": captions})
    assert index.facts.queries == {"images": 400}


def test_a_recall_above_that_of_the_index_is_refused(folder: Path) -> None:
    reached = min(open_index(folder, "first").facts.recall.values())
    assert open_index(folder, "first", recall=reached).facts.asked == 0.95
    with pytest.raises(DataError, match=r"recall of 0\.9\d+, asked for 0\.9999.*--recall 0\.9999"):
        open_index(folder, "first", recall=0.9999)


def test_an_index_of_an_earlier_state_is_refused_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(folder, ROWS, "first")
    (folder / "lists-0001.faiss").write_bytes(b"a larger index has more files")
    with pytest.raises(DataError, match=r"changed since.*hfclip search OUT --index"):
        open_index(folder, "second")
    build_index(folder, ROWS[:3_000], "second")
    assert open_index(folder, "second").facts.rows == 3_000
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "lists-0000.faiss"]


def test_a_missing_index_and_a_damaged_one_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no index"):
        open_index(tmp_path / "index", "first")
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        open_index(tmp_path, "first")
    (tmp_path / "index.json").write_bytes((folder / "index.json").read_bytes())
    with pytest.raises(DataError, match=r"lists-0000.faiss is missing or damaged"):
        open_index(tmp_path, "first")
    content = (folder / "lists-0000.faiss").read_bytes()
    (tmp_path / "lists-0000.faiss").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"lists-0000.faiss is missing or damaged"):
        open_index(tmp_path, "first")


@pytest.mark.parametrize("moment", ["clustering", "grouping", "measuring", "writing"])
def test_an_interruption_leaves_the_earlier_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = tmp_path / "index"
    build_index(folder, ROWS[:2_000], "first")

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    places = {
        "clustering": (lists_module, "_trained"),
        "grouping": (lists_module, "_write"),
        "measuring": (index_module, "ask"),
        "writing": (index_module, "write_text"),
    }
    monkeypatch.setattr(*places[moment], interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, ROWS, "second")
    assert open_index(folder, "first").facts.rows == 2_000
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_the_facts_are_a_json_file(folder: Path) -> None:
    facts = json.loads((folder / "index.json").read_text())
    assert facts["rows"] == 6_000
    assert facts["files"] == ["lists-0000.faiss"]
    assert 0.95 <= facts["recall"]["captions"] <= 1
    sentence = open_index(folder, "first").facts.sentence
    assert f"{facts['recall']['captions']:.3f} of the 10 best for captions" in sentence


@pytest.mark.parametrize(
    ("rows", "dimension", "lists", "bits"),
    [
        (1_000, 512, 25, 8),
        (100_000, 512, 1_264, 8),
        (1_000_000, 512, 4_000, 8),
        (10_000_000, 512, 12_649, 8),
        (20_000_000, 512, 13_443, 4),
        (1_000_000_000, 768, 8_962, 4),
    ],
)
def test_the_kind_follows_from_the_size(rows: int, dimension: int, lists: int, bits: int) -> None:
    kind = choose_kind(rows, dimension)
    assert (kind.lists, kind.bits) == (lists, bits)
    assert kind.sample * dimension * 4 <= 2**30
    assert kind.sample >= 39 * kind.lists


def test_4_bits_find_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists_module, "_LARGEST_8_BITS", 0)
    index = build_index(tmp_path / "index", ROWS, "stamp")
    assert index.facts.bits == 4
    assert index.facts.recall["images"] >= 0.95
    assert share_found(index, ROWS[:200]) >= 0.95


def test_too_few_rows_and_wrong_arguments_are_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="999 rows needs no index"):
        build_index(tmp_path / "index", ROWS[:999], "stamp")
    with pytest.raises(ArgumentError, match=r"Expected a recall .* found 1.1"):
        build_index(tmp_path / "index", ROWS, "stamp", recall=1.1)
    with pytest.raises(ArgumentError, match="1 to 200 rows, asked for 201"):
        index.search(ROWS, TEXTS[:1], 201)
    with pytest.raises(ArgumentError, match=r"Expected vectors \(6000, 32\)"):
        index.search(ROWS[:10], TEXTS[:1], 5)


def test_without_faiss_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(DataError, match=r"pip install 'hfclip\[index\]'"):
        build_index(tmp_path / "index", ROWS, "stamp")
    assert list(tmp_path.iterdir()) == []
