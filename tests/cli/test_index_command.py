"""`hfclip search --index`: builds an index, uses it, and says how much it finds."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clustered import clustered, texts_for
from small_collection import Row, write_collection

import hfclip
from hfclip.cli import main
from hfclip.embedding.items import Item
from hfclip.errors import ArgumentError, DataError

pytest.importorskip("faiss")

VECTORS = clustered(2_000, 16, clusters=20)
CAPTIONS = texts_for(VECTORS)


def rows_of(count: int, *, captions: bool = True) -> list[Row]:
    return [
        Row(
            Item(f"photos/{number:04}.jpg", None, f"picture {number}", number, 0),
            VECTORS[number],
            CAPTIONS[number] if captions else None,
        )
        for number in range(count)
    ]


def collection(out: Path, count: int = 1_500, *, captions: bool = True) -> Path:
    rows = rows_of(count, captions=captions)
    return write_collection(out, rows, part_size=600, dimension=16)


def search(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["search", *map(str, arguments)])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = collection(tmp_path_factory.mktemp("collections") / "out")
    result = search(out, "--index")
    assert result.exit_code == 0, result.output
    assert "an index is worth building from 1,000,000 rows" in result.stderr
    assert "of the 10 best for images" in result.stdout
    assert "of the 10 best for captions" in result.stdout
    return out


def test_a_search_with_the_index_prints_its_recall_beside_the_results(out: Path) -> None:
    exact = search(out, "--like", "photos/0007.jpg", "--json")
    result = search(out, "--index", "--like", "photos/0007.jpg", "--json")
    assert result.exit_code == 0, result.stderr
    found, expected = json.loads(result.stdout), json.loads(exact.stdout)
    assert len(found) == 10
    scores = {row["key"]: row["score"] for row in expected}
    assert sum(scores.get(row["key"]) == row["score"] for row in found) >= 8
    assert "of the 10 best for captions (measured against exact search" in result.stderr
    assert "of the 10 best" not in exact.stderr


def test_the_5_best_are_the_first_5_of_the_15_best(out: Path) -> None:
    five = json.loads(
        search(out, "--index", "--like", "photos/0007.jpg", "--top", "5", "--json").stdout
    )
    more = json.loads(
        search(out, "--index", "--like", "photos/0007.jpg", "--top", "15", "--json").stdout
    )
    assert five == more[:5]


def test_a_second_build_keeps_the_index(out: Path) -> None:
    path = out / ".hfclip/index/index.json"
    before = path.stat().st_ino
    assert search(out, "--index").exit_code == 0
    assert path.stat().st_ino == before


def test_a_higher_recall_is_refused_with_what_to_do(out: Path) -> None:
    result = search(out, "--index", "--recall", "0.9999", "--like", "photos/0007.jpg")
    assert result.exit_code == 1
    assert "asked for 0.9999" in result.stderr
    assert "hfclip search OUT --index --recall 0.9999" in result.stderr


def test_without_an_index_and_with_too_many_results_the_search_is_refused(
    out: Path, tmp_path: Path
) -> None:
    other = collection(tmp_path / "out")
    result = search(other, "--index", "--like", "photos/0007.jpg")
    assert (result.exit_code, "There is no index" in result.stderr) == (1, True)
    result = search(out, "--index", "--like", "photos/0007.jpg", "--top", "201")
    assert (result.exit_code, "1 to 200 rows" in result.stderr) == (1, True)
    result = search(out, "--recall", "0.9", "--like", "photos/0007.jpg")
    assert (result.exit_code, "give --index too" in result.stderr) == (2, True)


def test_a_changed_collection_needs_a_new_index(tmp_path: Path) -> None:
    out = collection(tmp_path / "out", 1_200)
    assert search(out, "--index").exit_code == 0
    collection(out, 1_500)
    result = search(out, "--index", "--like", "photos/0007.jpg")
    assert result.exit_code == 1
    assert "changed since its index was built. Build it with: hfclip search" in result.stderr
    assert search(out, "--index").exit_code == 0
    assert search(out, "--index", "--like", "photos/1400.jpg").exit_code == 0
    facts = json.loads((out / ".hfclip/index/index.json").read_text())
    assert facts["rows"] == 1_500


def test_pictures_without_captions_are_measured_with_texts_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfclip.embedding import options

    asked: list[str] = []

    class Encoder:
        def start_texts(self, texts: list[str]) -> object:
            begin = len(asked)
            asked.extend(texts)
            return lambda: CAPTIONS[begin : begin + len(texts)]

    class Loaded:
        encoder = Encoder()

    monkeypatch.setattr(options, "load_model_of", lambda *_, **__: Loaded(), raising=False)
    out = collection(tmp_path / "out", captions=False)
    assert search(out, "--index").exit_code == 0
    facts = json.loads((out / ".hfclip/index/index.json").read_text())
    assert facts["queries"] == {"images": 150, "texts": 400}
    assert len(set(asked)) == 400
    assert all(text.startswith("a photo of a ") for text in asked)


def test_a_model_that_cannot_be_loaded_leaves_texts_unmeasured_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfclip.embedding import options

    def missing(*_: object, **__: object) -> None:
        raise DataError("the model is gone")

    monkeypatch.setattr(options, "load_model_of", missing, raising=False)
    out = collection(tmp_path / "out", captions=False)
    result = search(out, "--index")
    assert result.exit_code == 0
    assert "Warning: The recall of the index for texts is not measured" in result.stderr
    facts = json.loads((out / ".hfclip/index/index.json").read_text())
    assert facts["recall"].keys() == {"images"}


def test_a_part_of_a_collection_has_no_index(out: Path) -> None:
    embeddings = hfclip.Embeddings(out)
    with pytest.raises(ArgumentError, match="whole collections"):
        hfclip.Searcher(embeddings[::-1], index=True)
    searcher = hfclip.Searcher(embeddings, index=True)
    rows, scores = searcher.nearest(np.array(embeddings.vectors[:3]), 1)
    assert rows.tolist() == [[0], [1], [2]]
    assert np.allclose(scores, 1, atol=1e-6)


def test_ctrl_c_ends_the_build_with_status_130_and_leaves_nothing(tmp_path: Path) -> None:
    vectors = clustered(20_000, 16)
    rows = [
        Row(Item(f"{number:05}", None, None, number, 0), vector)
        for number, vector in enumerate(vectors)
    ]
    out = write_collection(tmp_path / "out", rows, part_size=20_000, dimension=16, kind="texts")
    command = [sys.executable, "-m", "hfclip", "search", str(out), "--index"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        began = time.monotonic()
        while not list((out / ".hfclip").glob(".index.*.part")):
            assert process.poll() is None
            assert time.monotonic() - began < 60
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    names = [path.name for path in (out / ".hfclip").iterdir() if "index" in path.name]
    assert names == []
