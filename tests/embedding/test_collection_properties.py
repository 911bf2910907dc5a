"""Any sequence of changes, runs, kills and compactions: the live rows are those of the files."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedded import (
    MANIFEST,
    Killed,
    encode,
    expected,
    killed_at,
    listed,
    live,
    result,
    run,
    stored,
    touch,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hfclip.embedding.changes import update_plan
from hfclip.embedding.compact import compact
from hfclip.embedding.manifest import NAME
from hfclip.embedding.opening import opened
from hfclip.embedding.part_files import complete_parts
from hfclip.embedding.plan import Plan, find_plan

_names = st.sampled_from([f"{folder}{name}.jpg" for folder in ("", "x/") for name in "abcde"])
# Few contents, several of one size, so that files are copies of one another.
_contents = st.sampled_from([b"one", b"two", b"six", b"four", b"broken", b"broken 2", b"unread"])
_steps = st.one_of(
    st.tuples(st.just("write"), _names, _contents),
    st.tuples(st.just("write"), _names, _contents),
    st.tuples(st.just("move"), _names, _names),
    st.tuples(st.just("swap"), _names, _names),
    st.tuples(st.just("copy"), _names, _names),
    st.tuples(st.just("delete"), _names, st.none()),
    st.tuples(st.just("touch"), _names, st.none()),
    st.tuples(st.just("plan"), st.integers(1, 4), st.sets(st.integers(0, 9), max_size=3)),
    st.tuples(st.just("run"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("kill"), st.integers(0, 25), st.integers(1, 4)),
    st.tuples(st.just("compact"), st.integers(1, 5), st.none()),
    st.tuples(st.just("kill compact"), st.integers(0, 25), st.integers(1, 5)),
)


class World:
    """A folder of files and its collection, with all contents that each file ever had."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "in"
        self.out = place / "out"
        self.folder.mkdir()
        self.history: dict[str, list[Any]] = {}

    def do(self, step: str, first: Any, second: Any) -> None:
        """Does a step and checks what must hold after each."""
        getattr(self, step.replace(" ", "_"))(first, second)
        for item in listed(self.folder):
            self.history.setdefault(item.key, []).append(result(item.content()))
        if find_plan(self.out) is not None:
            for key, value in live(self.out).items():
                assert value in self.history[key]

    def write(self, name: str, content: bytes) -> None:
        write(self.folder / name, content)

    def move(self, name: str, other: str) -> None:
        if (self.folder / name).exists():
            (self.folder / other).parent.mkdir(exist_ok=True)
            (self.folder / name).rename(self.folder / other)

    def swap(self, name: str, other: str) -> None:
        if name != other and all((self.folder / one).exists() for one in (name, other)):
            (self.folder / name).rename(self.folder / "aside")
            (self.folder / other).rename(self.folder / name)
            (self.folder / "aside").rename(self.folder / other)

    def copy(self, name: str, other: str) -> None:
        if (self.folder / name).exists() and name != other:
            (self.folder / other).parent.mkdir(exist_ok=True)
            shutil.copy2(self.folder / name, self.folder / other)

    def delete(self, name: str, _: None) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def touch(self, name: str, _: None) -> None:
        if (self.folder / name).exists():
            touch(self.folder / name)

    def plan(self, size: int, done: set[int]) -> None:
        """A run that ends after some parts."""
        with opened(self.out, MANIFEST) as collection:
            pending = update_plan(
                self.out, listed(self.folder), part_size=size, opened=collection
            ).pending
            encode(self.out, [number for number in pending if number % 10 in done])

    def run(self, size: int, rehash: bool) -> None:
        with opened(self.out, MANIFEST) as collection:
            changes, keys = run(
                self.folder, self.out, part_size=size, rehash=rehash, opened=collection
            )
        assert live(self.out) == expected(self.folder)
        total = changes.new + changes.changed + changes.moved + changes.unchanged
        assert total == changes.plan.count == len(expected(self.folder))
        places = [(part.number, row) for part in Plan(self.out).parts() for row in part.rows]
        assert len(set(places)) == len(places)
        assert len(keys) == len(set(keys))
        assert set(complete_parts(self.out)) == set(changes.plan.part_numbers)

    def kill(self, step: int, size: int) -> None:
        try:
            with killed_at(step), opened(self.out, MANIFEST) as collection:
                run(self.folder, self.out, part_size=size, opened=collection)
        except Killed:
            return

    def compact(self, size: int, _: None) -> None:
        if not (self.out / NAME).exists():
            return
        before = live(self.out)
        compact(self.out, part_size=size)
        assert live(self.out) == before
        assert sorted(key for key, _ in stored(self.out)) == sorted(before)

    def kill_compact(self, step: int, size: int) -> None:
        if not (self.out / NAME).exists():
            return
        before = live(self.out)
        try:
            with killed_at(step):
                compact(self.out, part_size=size)
        except Killed:
            pass
        assert live(self.out) == before


@settings(deadline=None, max_examples=60, database=None, derandomize=True)
@given(st.lists(_steps, max_size=25))
def test_live_rows_are_those_of_the_files(steps: list[tuple[str, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        for step in [*steps, ("run", 3, False)]:
            world.do(*step)
        world.do("compact", 3, None)
        with opened(world.out, replace(MANIFEST, version="2")) as collection:
            assert run(world.folder, world.out, opened=collection)[1] == []
