"""Compaction: the parts hold exactly the live rows, and a kill loses nothing."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from embedded import (
    MANIFEST,
    Killed,
    encode,
    expected,
    killed_at,
    killed_everywhere,
    listed,
    live,
    run,
    stored,
    vector,
    write,
)

from hfclip.embedding.changes import update_plan
from hfclip.embedding.compact import Compaction, compact
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.opening import opened
from hfclip.embedding.part_files import complete_parts
from hfclip.embedding.parts import read_part
from hfclip.embedding.plan import Plan
from hfclip.errors import ArgumentError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten files whose second run has deleted, changed, moved and new ones."""
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(10):
        write(folder / f"{number}.jpg", f"content {number}".encode())
    with opened(out, MANIFEST) as collection:
        run(folder, out, opened=collection)
    (folder / "0.jpg").unlink()
    write(folder / "1.jpg", b"changed")
    (folder / "2.jpg").rename(folder / "moved.jpg")
    write(folder / "broken.jpg", b"broken")
    with opened(out, MANIFEST) as collection:
        run(folder, out, opened=collection)
    return folder


def alone(out: Path) -> dict[str, Sequence[float]]:
    rows = stored(out)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_the_parts_alone_hold_exactly_the_live_rows_with_their_present_keys(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert len(stored(out)) == 12
    found = compact(out, part_size=6)  # parts of 2 are joined with what is left of the first
    assert found == Compaction(rows=10, removed=2, rewritten=3, parts=2)
    values = {
        key: [0.0] * 4 if value == "broken" else value for key, value in expected(folder).items()
    }
    assert alone(out) == values
    assert live(out) == expected(folder)
    for part in Plan(out).parts():
        rows = read_part(out, part.number)
        assert rows.keys == [item.key for item in part.items]
        assert list(part.rows) == list(range(len(rows)))
    assert run(folder, out)[0].unchanged == 10
    assert run(folder, out)[1] == []


def test_digests_move_with_their_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compact(out, part_size=4)
    for path in list(folder.iterdir()):
        if path.name != "broken.jpg":
            path.rename(path.with_name(f"new-{path.name}"))
    changes, keys = run(folder, out)
    assert (changes.moved, keys) == (9, [])
    assert live(out) == expected(folder)


def test_a_part_without_dead_rows_stays_and_small_parts_are_joined(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clean = (out / "part-00001.parquet").stat().st_ino
    compact(out, part_size=6)
    assert (out / "part-00001.parquet").stat().st_ino == clean
    again = compact(out, part_size=6)
    assert again == Compaction(rows=10, removed=0, rewritten=0, parts=2)
    assert compact(out, part_size=100) == Compaction(rows=10, removed=0, rewritten=2, parts=1)
    assert live(out) == expected(folder)
    assert compact(out, part_size=100).rewritten == 0


def test_parts_that_are_not_encoded_yet_stay_planned(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(folder / "later.jpg", b"later")
    changes = update_plan(out, listed(folder), part_size=4)
    compact(out, part_size=4)
    assert Plan(out).pending == changes.pending
    assert encode(out, changes.pending) == ["in/later.jpg"]
    assert live(out) == expected(folder)


def test_the_manifest_gets_the_digest_of_the_new_plan(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = read_manifest(out)
    compact(out, part_size=4)
    after = read_manifest(out)
    assert after.plan_digest == Plan(out).digest != before.plan_digest
    assert (after.inputs, after.created) == (10, before.created)


def test_a_compaction_that_is_killed_at_any_step_can_be_repeated(
    folder: Path, tmp_path: Path
) -> None:
    out, earlier = tmp_path / "out", tmp_path / "earlier"
    shutil.copytree(out, earlier)
    values = expected(folder)

    def after(step: int) -> None:
        assert live(out) == values, step
        if step % 2:  # a run before the next compaction
            write(folder / "more.jpg", b"more")
            with opened(out, MANIFEST) as collection:
                changes, keys = run(folder, out, opened=collection)
            assert (keys, changes.new) == (["in/more.jpg"], 1)
            assert live(out) == expected(folder), step
            (folder / "more.jpg").unlink()
            run(folder, out)
        assert compact(out, part_size=5).rows == 10
        assert live(out) == values
        assert alone(out).keys() == values.keys()
        assert not list(out.rglob(".part-*"))
        shutil.rmtree(out)
        shutil.copytree(earlier, out)

    assert killed_everywhere(lambda: compact(out, part_size=5), after) > 20


def test_a_part_of_a_killed_compaction_never_stands_for_new_inputs(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = complete_parts(out)
    for step in range(100):
        try:
            with killed_at(step):
                compact(out, part_size=4)
        except Killed:
            if complete_parts(out) != before:
                break
    else:
        raise AssertionError("no kill left a part")
    write(folder / "new.jpg", b"new")
    changes, keys = run(folder, out)
    assert keys == ["in/new.jpg"]
    assert live(out)["in/new.jpg"] == vector(b"new")
    assert set(complete_parts(out)) == set(changes.plan.part_numbers)


def test_a_folder_without_a_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a folder that `hfclip embed` wrote"):
        compact(tmp_path, part_size=4)
    with pytest.raises(ArgumentError, match="part_size is 0"):
        compact(tmp_path, part_size=0)


def test_a_compaction_does_not_run_beside_a_writer(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        opened(out, MANIFEST),
        pytest.raises(DataError, match=r"Another run writes to .*out: process \d+ on"),
    ):
        compact(out, part_size=4)
