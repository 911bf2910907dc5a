"""`hfclip.Embeddings`: values, slices, keys, and the matrix beside the parts."""

import json
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_collection import Row, lengthened, unit_rows, write_collection

import hfclip
from hfclip.embedding import matrix
from hfclip.embedding.items import Item
from hfclip.errors import ArgumentError, ArgumentTypeError, DataError


def vectors_of(rows: list[Row]) -> np.ndarray:
    return np.array([row.vector for row in rows if row.vector is not None])


def matrices(out: Path) -> list[str]:
    return sorted(path.name for path in (out / ".hfclip").glob("*matrix-*"))


@pytest.fixture
def rows() -> list[Row]:
    """Returns 35 rows, of which two have errors, and every third has a caption."""
    rows = unit_rows(35)
    for number in (4, 20):
        rows[number] = rows[number]._replace(vector=None, error=f"damaged {number}")
    for number in range(0, 35, 3):
        item = rows[number].item
        rows[number] = rows[number]._replace(
            item=Item(item.key, None, f"picture {number}", item.size, 0),
            caption_vector=np.full(4, number / 100, np.float32),
        )
    return rows


@pytest.fixture
def out(rows: list[Row], tmp_path: Path) -> Path:
    return write_collection(tmp_path / "out", rows)


def test_the_vectors_keys_captions_and_errors_are_those_of_the_parts(
    out: Path, rows: list[Row]
) -> None:
    embeddings = hfclip.Embeddings(out)
    good = [row for row in rows if row.vector is not None]
    assert len(embeddings) == 33
    assert embeddings.dimension == 4
    assert list(embeddings.keys) == [row.item.key for row in good]
    assert np.array_equal(embeddings.vectors, vectors_of(rows))
    assert list(embeddings.captions) == [row.item.text for row in good]
    assert dict(embeddings.errors) == {
        "photos/0004.jpg": "damaged 4",
        "photos/0020.jpg": "damaged 20",
    }
    assert embeddings.keys[-1] == "photos/0034.jpg"
    assert list(embeddings.keys[np.int64(2) : 4]) == [embeddings.keys[2], embeddings.keys[3]]
    assert embeddings.keys[np.int64(2)] == "photos/0002.jpg"
    assert embeddings.widths[0] == 40
    assert embeddings.widths[4] == 45
    assert embeddings.heights[32] == 30
    assert embeddings.manifest.name == "digits"
    assert not embeddings.vectors.flags.writeable


def test_rows_without_a_caption_have_nan(out: Path, rows: list[Row]) -> None:
    captions = hfclip.Embeddings(out).caption_vectors
    assert captions is not None
    good = [row for row in rows if row.vector is not None]
    for found, row in zip(captions, good, strict=True):
        if row.caption_vector is None:
            assert np.isnan(found).all()
        else:
            assert np.array_equal(found, row.caption_vector)


def test_captions_that_begin_in_a_later_part_are_beside_their_rows(tmp_path: Path) -> None:
    rows = unit_rows(25)
    rows[17] = rows[17]._replace(caption_vector=np.arange(4, dtype=np.float32))
    captions = hfclip.Embeddings(write_collection(tmp_path, rows)).caption_vectors
    assert captions is not None
    assert np.flatnonzero(np.isfinite(captions).all(axis=1)).tolist() == [17]
    assert np.array_equal(captions[17], np.arange(4))


def test_without_captions_there_are_no_caption_vectors(tmp_path: Path) -> None:
    assert hfclip.Embeddings(write_collection(tmp_path, unit_rows(3))).caption_vectors is None


@pytest.mark.parametrize(
    "selection",
    [
        slice(3, 9),
        slice(None, None, -1),
        slice(-5, None, 2),
        slice(20, 5, -4),
        slice(5, 5),
        [7, 2, 2, -1],
        np.arange(33) % 5 == 0,
        [],
    ],
    ids=repr,
)
def test_a_selection_has_the_same_interface(out: Path, selection: Any) -> None:
    embeddings = hfclip.Embeddings(out)
    keys = np.array(list(embeddings.keys), object)
    chosen = embeddings[selection]
    index = selection
    if not isinstance(selection, slice):
        index = np.asarray(selection, bool if len(selection) > 4 else int)
    assert list(chosen.keys) == keys[index].tolist()
    assert len(chosen) == len(keys[index])
    assert np.array_equal(chosen.vectors, embeddings.vectors[index])
    assert [chosen.position(key) for key in chosen.keys[:1]] == [0][: len(chosen)]
    again = chosen[::-1]
    assert list(again.keys) == keys[index].tolist()[::-1]
    assert np.array_equal(again.vectors, chosen.vectors[::-1])


def test_a_selection_that_is_no_list_of_rows_is_refused(out: Path) -> None:
    embeddings = hfclip.Embeddings(out)
    with pytest.raises(ArgumentTypeError, match=r"embeddings\.vectors\[row\]"):
        embeddings[3]  # type: ignore[index]
    with pytest.raises(ArgumentTypeError, match="float64"):
        embeddings[[0.5]]  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="out of range"):
        embeddings[[33]]
    with pytest.raises(ArgumentError, match="The mask has 2 values for 33 rows"):
        embeddings[np.array([True, False])]


def test_the_position_of_a_key_and_suggestions(out: Path) -> None:
    embeddings = hfclip.Embeddings(out)
    assert embeddings.position("photos/0005.jpg") == 4
    assert embeddings.position("./photos/0005.jpg") == 4
    assert embeddings[4:].position("photos/0005.jpg") == 0
    with pytest.raises(DataError, match=r"'photos/0011\.jpg'"):
        embeddings.position("0011.png")
    with pytest.raises(DataError, match="Similar keys: 'photos/"):
        embeddings.position("fotos/0O11.jpg")
    with pytest.raises(DataError, match="has no embedding: damaged 4"):
        embeddings.position("photos/0004.jpg")


def test_the_items_of_rows_are_those_of_the_plan(out: Path, rows: list[Row]) -> None:
    embeddings = hfclip.Embeddings(out)
    items = embeddings.items([32, 0, 4])
    assert items == [rows[34].item, rows[0].item, rows[5].item]
    assert embeddings[[4, 0]].items([1]) == [rows[0].item]


def test_to_numpy_is_a_copy_and_to_pandas_has_all_columns(out: Path) -> None:
    embeddings = hfclip.Embeddings(out)
    copy = embeddings.to_numpy()
    copy += 1
    assert not np.array_equal(copy, embeddings.vectors)
    pytest.importorskip("pandas")
    table = embeddings[:7].to_pandas()
    assert list(table.columns) == ["key", "embedding", "caption", "width", "height"]
    assert table["key"].tolist() == list(embeddings.keys[:7])
    assert np.array_equal(np.stack(table["embedding"].tolist()), embeddings.vectors[:7])
    assert table["width"].tolist() == list(embeddings.widths[:7])


def test_raw_embeddings_have_norms(tmp_path: Path) -> None:
    rows = lengthened(unit_rows(12))
    embeddings = hfclip.Embeddings(write_collection(tmp_path, rows, normalized=False))
    assert embeddings.norms is not None
    np.testing.assert_allclose(embeddings.norms, np.arange(1, 13), rtol=1e-6)
    chosen = embeddings[[5]].norms
    assert chosen is not None
    np.testing.assert_allclose(chosen, [6], rtol=1e-6)


def test_an_embedding_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    rows = unit_rows(4)
    rows[2] = rows[2]._replace(vector=np.array([1, np.nan, 0, 0], np.float32))
    embeddings = hfclip.Embeddings(write_collection(tmp_path, rows))
    assert list(embeddings.keys) == ["photos/0000.jpg", "photos/0001.jpg", "photos/0003.jpg"]
    assert dict(embeddings.errors) == {"photos/0002.jpg": "the embedding is not finite"}


def test_float16_parts_become_float32(tmp_path: Path) -> None:
    rows = unit_rows(9)
    embeddings = hfclip.Embeddings(write_collection(tmp_path, rows, dtype="float16"))
    expected = vectors_of(rows).astype(np.float16).astype(np.float32)
    assert embeddings.vectors.dtype == np.float32
    assert np.array_equal(embeddings.vectors, expected)


# The matrix


def test_the_matrix_is_built_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hfclip.Embeddings(out)
    monkeypatch.setattr(matrix, "_write", None)
    assert np.array_equal(hfclip.Embeddings(out).vectors, first.vectors)


def test_gone_moved_and_new_inputs_show_at_once(out: Path, rows: list[Row]) -> None:
    earlier = hfclip.Embeddings(out)
    before = matrices(out)
    new = unit_rows(2, seed=9)
    new = [row._replace(item=Item(f"new/{n}.jpg", None, None, 9, 0)) for n, row in enumerate(new)]
    write_collection(out, [*rows[:10], *rows[12:], *new])
    later = hfclip.Embeddings(out)
    gone = {rows[10].item.key, rows[11].item.key}
    assert set(earlier.keys) - set(later.keys) == gone
    assert set(later.keys) - set(earlier.keys) == {"new/0.jpg", "new/1.jpg"}
    assert np.array_equal(later.vectors[[later.position("new/1.jpg")]], vectors_of(new[1:]))
    assert len(before) == len(matrices(out)) == 1
    assert before != matrices(out)
    # The one that is open stays whole.
    assert np.array_equal(earlier.vectors, vectors_of(rows))


def test_a_collection_that_is_being_written_opens_with_its_complete_parts(tmp_path: Path) -> None:
    rows = unit_rows(35)
    write_collection(tmp_path, rows, parts=2)
    assert list(hfclip.Embeddings(tmp_path).keys) == [row.item.key for row in rows[:20]]
    write_collection(tmp_path, rows, parts=1)
    assert len(hfclip.Embeddings(tmp_path)) == 30


def test_a_collection_of_errors_alone_opens_empty(tmp_path: Path) -> None:
    rows = [row._replace(vector=None, error="damaged") for row in unit_rows(3)]
    embeddings = hfclip.Embeddings(write_collection(tmp_path, rows))
    assert embeddings.vectors.shape == (0, 4)
    assert list(embeddings.keys) == []
    assert len(embeddings.errors) == 3


def test_a_folder_without_a_complete_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing is not a folder that `hfclip embed` wrote"):
        hfclip.Embeddings(tmp_path / "missing")
    write_collection(tmp_path, unit_rows(3), parts=0)
    with pytest.raises(DataError, match="no complete part yet"):
        hfclip.Embeddings(tmp_path)


def test_a_damaged_part_is_named(out: Path) -> None:
    part = out / "part-00002.parquet"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"part-00002\.parquet"):
        hfclip.Embeddings(out)
    shutil.copy(out / "part-00003.parquet", part)  # has fewer rows than planned
    with pytest.raises(DataError, match=r"part-00002\.parquet has 5 rows"):
        hfclip.Embeddings(out)
    assert matrices(out) == []


def test_a_part_that_cannot_be_read_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(matrix, "read_table", refused)
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read .*Permission denied"):
        hfclip.Embeddings(out)


def test_parts_of_another_width_are_refused(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"dimension": 5}))
    with pytest.raises(DataError, match="embeddings of 4 numbers; the manifest says 5"):
        hfclip.Embeddings(out)


def test_builds_at_once_do_not_disturb_each_other(out: Path, rows: list[Row]) -> None:
    found: list[np.ndarray] = []
    start = threading.Barrier(4)

    def build() -> None:
        start.wait()
        found.append(hfclip.Embeddings(out).vectors)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for vectors in found:
        assert np.array_equal(vectors, vectors_of(rows))
    assert len(matrices(out)) == 1


def test_a_matrix_with_missing_files_is_built_again(out: Path, rows: list[Row]) -> None:
    hfclip.Embeddings(out)
    (name,) = matrices(out)
    (out / ".hfclip" / name / "captions.npy").unlink()
    embeddings = hfclip.Embeddings(out)
    assert embeddings.caption_vectors is not None
    assert len(matrices(out)) == 1


def test_a_collection_that_changes_while_it_is_read_is_read_again(
    out: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = matrix._write
    calls: list[int] = []

    def change_once(*arguments: Any) -> None:
        if not calls:
            write_collection(out, rows[5:])
        calls.append(1)
        write(*arguments)

    monkeypatch.setattr(matrix, "_write", change_once)
    assert hfclip.Embeddings(out).keys[0] == rows[5].item.key
    assert len(calls) == 2


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Makes folders read-only, also for an administrator."""
    mkdir = Path.mkdir

    def checked(self: Path, *arguments: Any, **options: Any) -> None:
        if any(self.is_relative_to(folder) for folder in folders):
            raise PermissionError(13, "Permission denied", str(self))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", checked)


def test_the_matrix_of_a_read_only_folder_is_in_the_cache(
    out: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    refuse(monkeypatch, out)
    with pytest.warns(UserWarning, match="cannot be written .*Permission denied.*home"):
        first = hfclip.Embeddings(out)
    assert matrices(out) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second time it is only mapped
        second = hfclip.Embeddings(out)
    assert np.array_equal(first.vectors, vectors_of(rows))
    assert np.array_equal(second.vectors, vectors_of(rows))


def test_without_any_other_place_the_matrix_is_temporary(
    out: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    refuse(monkeypatch, out, tmp_path / "home")
    with pytest.warns(UserWarning, match="temporary"):
        embeddings = hfclip.Embeddings(out)
    assert np.array_equal(embeddings.vectors, vectors_of(rows))
    assert list(temporary.iterdir())
    del embeddings
    assert not list(temporary.iterdir())


def test_what_a_killed_build_left_is_removed_after_an_hour(out: Path) -> None:
    import os

    left = out / ".hfclip" / ".matrix-0000.0123456789ab.part"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"x")
    hfclip.Embeddings(out)
    assert left.exists()
    for path in (left / "vectors.npy", left):
        os.utime(path, (0, 0))
    write_collection(out, unit_rows(3))
    hfclip.Embeddings(out)
    assert not left.exists()
