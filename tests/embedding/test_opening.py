"""Who may write to a collection, and when its plan may change."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from embedded import MANIFEST, encode, expected, listed, live, run, write

from hfclip.embedding import opening
from hfclip.embedding.changes import update_plan
from hfclip.embedding.manifest import Manifest, read_manifest
from hfclip.embedding.opening import Opened, opened
from hfclip.embedding.part_files import complete_parts
from hfclip.embedding.plan import Plan, find_plan
from hfclip.errors import DataError

OTHER = replace(MANIFEST, preprocess="exact")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        write(tmp_path / "in" / f"{number}.jpg", f"content {number}".encode())
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def embed(folder: Path, out: Path, manifest: Manifest = MANIFEST, *, drop: bool = False) -> int:
    """Returns the number of encoded inputs."""
    with opened(out, manifest, drop=drop) as collection:
        return len(run(folder, out, opened=collection)[1])


def test_a_run_writes_the_manifest_with_the_plan(folder: Path, out: Path) -> None:
    embed(folder, out)
    first = read_manifest(out)
    assert first == replace(MANIFEST, plan_digest=Plan(out).digest, inputs=6, created=first.created)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.created)
    write(folder / "new", b"new")
    embed(folder, out, replace(MANIFEST, version="9"))
    second = read_manifest(out)
    assert second == replace(first, plan_digest=Plan(out).digest, inputs=7, version="9")
    assert second.plan_digest != first.plan_digest


def test_other_options_are_refused_and_change_nothing(folder: Path, out: Path) -> None:
    embed(folder, out)
    before = read_manifest(out)
    with (
        pytest.raises(DataError, match=r"preprocess is 'fast', now 'exact' \(--preprocess\)"),
        opened(out, OTHER),
    ):
        pass
    assert read_manifest(out) == before


def test_a_source_that_is_not_named_any_more_needs_drop(folder: Path, out: Path) -> None:
    embed(folder, out, replace(MANIFEST, sources=("a", "b")))
    with (
        pytest.raises(DataError, match=r"also holds embeddings of a, which.*Name all.*--drop"),
        opened(out, replace(MANIFEST, sources=("b", "c"))),
    ):
        pass
    assert read_manifest(out).sources == ("a", "b")
    embed(folder, out, replace(MANIFEST, sources=("c", "b", "a")))
    assert read_manifest(out).sources == ("c", "b", "a")
    embed(folder, out, replace(MANIFEST, sources=("b",)), drop=True)
    assert read_manifest(out).sources == ("b",)


def test_a_larger_limit_of_pixels_tries_inputs_with_errors_again(folder: Path, out: Path) -> None:
    write(folder / "broken", b"broken")
    assert embed(folder, out) == 7
    assert embed(folder, out) == 0
    larger = replace(MANIFEST, max_pixels=2_000)
    assert embed(folder, out, larger) == 1
    assert embed(folder, out, larger) == 0
    assert read_manifest(out).max_pixels == 2_000
    with pytest.raises(DataError, match=r"max_pixels is 2,000, now 1,000, but it may only grow"):
        embed(folder, out)


def test_most_embeddings_disappear_only_with_drop(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfclip.embedding.changes._MANY", 4)
    embed(folder, out)
    for number in range(4):
        (folder / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"4 of the 6 embedded inputs of .* are gone.*--drop"):
        embed(folder, out)
    assert len(live(out)) == 6
    embed(folder, out, drop=True)
    assert live(out) == expected(folder)


@pytest.mark.parametrize("name", ["notes.txt", "part-x.parquet", ".git"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with (
        pytest.raises(DataError, match=rf"holds other files \({name}\)"),
        opened(tmp_path, MANIFEST),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_parts_without_a_manifest_are_refused(folder: Path, out: Path) -> None:
    embed(folder, out)
    (out / "manifest.json").unlink()
    with (
        pytest.raises(DataError, match=r"holds parts but no manifest\.json"),
        opened(out, MANIFEST),
    ):
        pass


def test_a_run_that_was_killed_before_the_manifest_can_be_continued(
    folder: Path, out: Path
) -> None:
    update_plan(out, listed(folder), part_size=4)
    (out / ".manifest.json.0123.part").touch()
    assert embed(folder, out, OTHER) == 6
    assert read_manifest(out).preprocess == "exact"


def test_two_runs_do_not_write_at_once(folder: Path, out: Path) -> None:
    with (
        opened(out, MANIFEST),
        pytest.raises(
            DataError, match=rf"^Another run writes to {out}: process {os.getpid()} on .*Wait until"
        ),
        opened(out, MANIFEST),
    ):
        pass
    embed(folder, out)


def test_a_run_that_plans_for_too_long_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0.1)
    with (
        opened(out, MANIFEST) as one,
        one.planning(),
        pytest.raises(DataError, match=rf"Another run plans in {out}: process {os.getpid()} on"),
        opened(out, MANIFEST),
    ):
        pass


def test_a_share_says_whom_it_waits_for_and_waits_longer(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0.1)
    monkeypatch.setattr(opening, "SHARED_PATIENCE", 0.1)
    waits = rf"^Waits until another run has planned: process {os.getpid()} on"
    with opened(out, MANIFEST, shared=True) as one:
        with (
            one.planning(),
            pytest.warns(UserWarning, match=waits),
            pytest.raises(DataError, match="Another run plans"),
            opened(out, MANIFEST, shared=True),
        ):
            pass
        monkeypatch.setattr(opening, "SHARED_PATIENCE", 60.0)
        with pytest.warns(UserWarning, match=waits):
            assert _opened_after_planning(one, out) == MANIFEST.dimension


def _opened_after_planning(one: Opened, out: Path) -> int:
    """Opens a collection while another share plans, and returns what the manifest has."""
    with ThreadPoolExecutor(1) as pool:
        with one.planning():
            other = pool.submit(_open_shared, out)
            time.sleep(0.5)
            assert not other.done()
        return other.result()


def _open_shared(out: Path) -> int:
    with opened(out, MANIFEST, shared=True) as opened_here:
        return opened_here.manifest.dimension


def test_shares_that_start_together_make_one_plan_and_write_side_by_side(
    folder: Path, out: Path
) -> None:
    with opened(out, MANIFEST, shared=True) as one, opened(out, MANIFEST, shared=True) as other:
        first = update_plan(out, listed(folder), part_size=2, opened=one)
        second = update_plan(out, listed(folder), part_size=2, opened=other)
        assert first.plan.digest == second.plan.digest
        assert first.pending == second.pending == (0, 1, 2)
        encode(out, first.pending[0::2])
        encode(out, second.pending[1::2])
    assert live(out) == expected(folder)


def test_the_plan_does_not_change_while_another_share_writes(folder: Path, out: Path) -> None:
    with opened(out, MANIFEST, shared=True) as one:
        first = update_plan(out, listed(folder), part_size=2, opened=one)
        write(folder / "new", b"new")
        with (
            opened(out, MANIFEST, shared=True) as other,
            pytest.raises(DataError, match="The inputs have changed, and the plan cannot change"),
        ):
            update_plan(out, listed(folder), part_size=2, opened=other)
        with pytest.raises(DataError, match="Another run writes"), opened(out, MANIFEST):
            pass
        assert Plan(out).digest == first.plan.digest
    assert embed(folder, out) == 7


def test_a_share_does_not_write_beside_a_run_that_is_not_shared(folder: Path, out: Path) -> None:
    with opened(out, MANIFEST) as one:
        run(folder, out, opened=one)
        with (
            opened(out, MANIFEST, shared=True) as other,
            pytest.raises(DataError, match="Another run writes"),
        ):
            update_plan(out, listed(folder), part_size=2, opened=other)


def test_another_model_that_came_meanwhile_is_refused_before_planning(
    folder: Path, out: Path
) -> None:
    def items() -> Iterator[object]:
        with opened(out, OTHER, shared=True) as other:
            run(folder, out, opened=other)
        yield from listed(folder)

    with (
        opened(out, MANIFEST, shared=True) as one,
        pytest.raises(DataError, match="preprocess is 'exact', now 'fast'"),
    ):
        update_plan(out, items(), part_size=2, opened=one)  # type: ignore[arg-type]
    assert read_manifest(out).preprocess == "exact"


def test_what_a_killed_run_left_is_removed(folder: Path, out: Path) -> None:
    embed(folder, out)
    left = [out / ".part-00001.abc.part", out / ".hfclip" / "content" / ".part-00001.abc.part"]
    for path in left:
        path.touch()
    old, young = out / ".hfclip" / "1.listing", out / ".hfclip" / "2.listing"
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    embed(folder, out)
    assert not any(path.exists() for path in [*left, old])
    assert young.exists()
    assert find_plan(out) is not None
    assert complete_parts(out) == [0, 1]
