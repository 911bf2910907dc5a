"""Collections at URLs: what is complete, what is encoded again, and what a killed run leaves."""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from embedded import (
    MANIFEST,
    Killed,
    encode,
    expected,
    listed,
    live,
    run,
    stored,
    write,
)
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from object_storage import files_at, put

from hfclip.data import remote_folder
from hfclip.embedding.changes import update_plan
from hfclip.embedding.compact import compact
from hfclip.embedding.embeddings import Embeddings
from hfclip.embedding.failures import write_errors
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.opening import opened
from hfclip.embedding.part_files import complete_parts, part_file, recorded_parts
from hfclip.embedding.plan import PLAN, Plan, find_plan
from hfclip.embedding.records import Record, read_records, write_record
from hfclip.embedding.stores import open_store
from hfclip.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        write(tmp_path / "in" / f"{number}.jpg", f"content {number}".encode())
    write(tmp_path / "in" / "3.jpg", b"broken")
    return tmp_path / "in"


def embed(folder: Path, out: str) -> list[str]:
    """Embeds a folder and returns the keys that were encoded."""
    with opened(out, MANIFEST) as collection:
        keys = run(folder, out, opened=collection)[1]
    write_errors(out)
    return keys


def remove(out: str, name: str) -> None:
    open_store(out).remove(name)


def the_record(out: str, number: int) -> str:
    return read_records(open_store(out))[number][0].name


def check(folder: Path, out: str) -> None:
    """Checks that each input has its row, once, and that each part has one record that fits."""
    assert live(out) == expected(folder)
    assert list(recorded_parts(out)) == list(Plan(out).part_numbers)
    assert read_records(open_store(out)) == recorded_parts(out)
    assert all(len(records) == 1 for records in recorded_parts(out).values())
    assert files_at(out)["errors.csv"].decode().splitlines()[1:] == ["in/3.jpg,broken"]


def test_a_collection_has_the_files_of_a_local_one_and_records(
    folder: Path, remote: str, tmp_path: Path
) -> None:
    assert len(embed(folder, remote)) == 10
    check(folder, remote)
    embed(folder, str(tmp_path / "local"))
    files = files_at(remote)
    records = {name: files.pop(name) for name in sorted(files) if "/complete/" in name}
    local = {
        path.relative_to(tmp_path / "local").as_posix(): path.read_bytes()
        for path in (tmp_path / "local").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert files.keys() == local.keys()
    same = files.keys() - {"manifest.json"}  # it has the time
    assert {name: files[name] for name in same} == {name: local[name] for name in same}
    for number, name in enumerate(records):
        size, rows, errors, digest = name.split(".")[2:]
        assert int(size) == len(files[part_file(number)])
        assert (int(rows), int(errors)) == ((4, 1), (4, 0), (2, 0))[number]
        assert len(digest) == 64
    assert embed(folder, remote) == []


def test_a_second_run_encodes_what_is_new_or_changed(folder: Path, remote: str) -> None:
    embed(folder, remote)
    write(folder / "1.jpg", b"changed")
    write(folder / "new.jpg", b"new")
    (folder / "2.jpg").rename(folder / "moved.jpg")
    for number in (8, 9):  # all of a part
        (folder / f"{number}.jpg").unlink()
    assert embed(folder, remote) == ["in/1.jpg", "in/new.jpg"]
    check(folder, remote)
    assert read_records(open_store(remote)).keys() == {0, 1, 3}
    assert compact(remote, part_size=4).removed == 1
    check(folder, remote)
    assert sorted(key for key, _ in stored(remote)) == sorted(live(remote))
    assert embed(folder, remote) == []


def test_errors_are_tried_again_when_asked(folder: Path, remote: str) -> None:
    embed(folder, remote)
    with opened(remote, MANIFEST) as collection:
        changes, keys = run(folder, remote, opened=collection, retry_errors=True)
    assert (changes.retried, keys) == (1, ["in/3.jpg"])


def test_a_part_without_a_record_is_checked_and_not_encoded_again(
    folder: Path, remote: str
) -> None:
    embed(folder, remote)
    name = the_record(remote, 1)
    remove(remote, name)
    assert complete_parts(remote) == [0, 2]
    assert embed(folder, remote) == []
    assert the_record(remote, 1) == name
    check(folder, remote)


@pytest.mark.parametrize("has_record", [False, True])
def test_half_a_part_is_encoded_again(folder: Path, remote: str, has_record: bool) -> None:
    embed(folder, remote)
    content = files_at(remote)[part_file(1)]
    put(remote, {part_file(1): content[:-100]})
    if not has_record:
        remove(remote, the_record(remote, 1))
    assert complete_parts(remote) == [0, 2]
    size = f"{len(content) - 100:,}"
    with pytest.warns(
        UserWarning, match=rf"1 parts of {remote} are encoded again \(part-00001: its"
    ):
        keys = embed(folder, remote)
    assert keys == [f"in/{number}.jpg" for number in range(4, 8)], size
    check(folder, remote)


def test_the_record_of_a_missing_part_goes_and_the_part_is_encoded_again(
    folder: Path, remote: str
) -> None:
    embed(folder, remote)
    remove(remote, part_file(0))
    write_record(open_store(remote), Record(0, 10**9, 4, 0, "0" * 64))
    with pytest.warns(UserWarning, match=r"encoded again \(part-00000: it is missing\)"):
        keys = embed(folder, remote)
    assert keys == [f"in/{number}.jpg" for number in range(4)]
    check(folder, remote)


def test_a_part_with_other_keys_is_encoded_again(folder: Path, remote: str) -> None:
    embed(folder, remote)
    put(remote, {part_file(0): files_at(remote)[part_file(1)]})
    for number in (0, 1):
        remove(remote, the_record(remote, number))
    with pytest.warns(UserWarning, match=r"part-00000: it has other keys than the plan"):
        keys = embed(folder, remote)
    assert keys == [f"in/{number}.jpg" for number in range(4)]
    check(folder, remote)


def test_a_part_of_the_right_size_with_other_bytes_is_found_when_it_is_read(
    folder: Path, memory: str
) -> None:
    embed(folder, memory)
    content = bytearray(files_at(memory)[part_file(0)])
    content[len(content) // 3] ^= 1
    put(memory, {part_file(0): bytes(content)})
    with pytest.raises(DataError, match=r"part-00000\.parquet is damaged.*its sha256 is"):
        embed(folder, memory)  # reads the errors of this part
    remove(memory, part_file(0))
    with pytest.warns(UserWarning, match="it is missing"):
        embed(folder, memory)
    check(folder, memory)


def test_a_copy_of_a_folder_is_checked_once_and_recorded(
    folder: Path, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfclip.embedding.settling._MANY", 3)
    local = tmp_path / "local"
    embed(folder, str(local))
    files = {path.relative_to(local).as_posix(): path for path in local.rglob("*")}
    put(memory, {name: path.read_bytes() for name, path in files.items() if path.is_file()})
    assert complete_parts(memory) == []
    assert len(Embeddings(memory)) == 9  # for readers all parts with a file count
    with pytest.warns(UserWarning, match=r"3 parts of .* have no record.*read once to check them"):
        assert embed(folder, memory) == []
    check(folder, memory)
    assert embed(folder, memory) == []


def test_the_plan_is_copied_once_and_old_copies_go(
    folder: Path, remote: str, hub_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(folder, remote)
    downloads: list[str] = []
    download = remote_folder.RemoteFolder.download

    def noted(self: Any, name: str, path: Path) -> bool:
        downloads.append(name)
        return download(self, name, path)

    monkeypatch.setattr(remote_folder.RemoteFolder, "download", noted)
    before = Plan(remote)
    assert [part.name for part in before.parts()] == ["part-00000", "part-00001", "part-00002"]
    for number in range(3):
        Plan(remote).part(number)
    assert downloads == []  # it was copied when it was written
    monkeypatch.setattr("hfclip.embedding.stores._OLD", -1)
    write(folder / "new.jpg", b"new")
    embed(folder, remote)
    assert downloads == [PLAN]
    copies = [path.name for path in hub_home.rglob("plan-*")]
    assert len(copies) == 1
    with pytest.raises(DataError, match=r"has changed meanwhile\. Open it again"):
        before.part(0)


def test_without_a_cache_the_plan_is_copied_to_a_temporary_folder(
    folder: Path, memory: str, hub_home: Path
) -> None:
    hub_home.write_text("a file in place of the folder")
    embed(folder, memory)
    check(folder, memory)


def test_a_url_that_cannot_be_written_is_refused_before_the_first_request() -> None:
    for url, reason in (
        ("hf://datasets/org/name", "Each file of a repository takes a commit"),
        ("https://host/out", "A web server takes no files"),
    ):
        with (
            pytest.raises(DataError, match=f"{url} cannot be written. {reason}"),
            opened(url, MANIFEST),
        ):
            pass
    with pytest.raises(DataError, match=r"s3://\*\*\*@bucket has a password or token in it"):
        open_store("s3://KEY:secret@bucket")


def test_a_bucket_that_does_not_exist_is_named(s3: object, hub_home: Path) -> None:
    with (
        pytest.raises(DataError, match=r"s3://none-such/out/.* the bucket does not exist"),
        opened("s3://none-such/out", MANIFEST),
    ):
        pass
    with pytest.raises(DataError, match="s3://none-such/out is not a folder that `hfclip embed`"):
        read_manifest("s3://none-such/out")


def test_other_files_and_a_missing_plan_are_refused(folder: Path, memory: str) -> None:
    put(memory, {"notes.txt": b""})
    with (
        pytest.raises(DataError, match=r"holds other files \(notes.txt\)"),
        opened(memory, MANIFEST),
    ):
        pass
    remove(memory, "notes.txt")
    assert find_plan(memory) is None
    embed(folder, memory)
    remove(memory, PLAN)
    with pytest.raises(DataError, match="has parts but no plan"):
        embed(folder, memory)


def test_two_runs_do_not_write_at_once_and_shares_do(folder: Path, remote: str) -> None:
    with (
        opened(remote, MANIFEST),
        pytest.raises(
            DataError, match=rf"Another run writes to {remote}: process .*If that proces"
        ),
        opened(remote, MANIFEST),
    ):
        pass
    with (
        opened(remote, MANIFEST, shared=True) as one,
        opened(remote, MANIFEST, shared=True) as other,
    ):
        first = update_plan(remote, listed(folder), part_size=2, opened=one)
        second = update_plan(remote, listed(folder), part_size=2, opened=other)
        assert first.pending == second.pending == (0, 1, 2, 3, 4)
        encode(remote, first.pending[0::2])
        encode(remote, second.pending[1::2])
    assert live(remote) == expected(folder)


class Scattering(MemoryFileSystem):  # type: ignore[misc]
    """A file system in memory that may end at any write, and loses or cuts off the last ones."""

    protocol = "scattering"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    writes: ClassVar[list[tuple[str, Any]]] = []
    left: ClassVar[list[float]] = [float("inf")]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("scattering://").strip("/")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Killed
        path = self._strip_protocol(path)
        self.writes.append((path, self.store.get(path)))
        super().pipe_file(path, value)

    def put_file(self, lpath: str, rpath: str, *_: object, **__: object) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    @classmethod
    def crash(cls, draw: random.Random) -> None:
        """Loses or cuts off some of the last writes, in no order, but of no plan or manifest."""
        for path, before in reversed(cls.writes[-draw.randint(0, 8) :]):
            fate = draw.choice(["kept", "lost", "cut", "zeroed"])
            if fate == "kept" or path.endswith(("plan.parquet", "manifest.json")):
                continue
            if fate == "lost" and before is None:
                cls.store.pop(path, None)
            elif fate == "lost":
                cls.store[path] = before
            elif path in cls.store:
                content = cls.store[path].getvalue()
                end = draw.randint(0, len(content))
                cls().store[path].seek(0)
                cls().store[path].truncate(end)
        cls.writes.clear()


register_implementation("scattering", Scattering, clobber=True)


@pytest.fixture
def scattering(hub_home: Path) -> Iterator[str]:
    Scattering.store.clear()
    Scattering.left[0] = float("inf")
    yield "scattering://out"
    Scattering.store.clear()


@pytest.mark.filterwarnings("ignore:.*are encoded again")
@pytest.mark.parametrize("seed", range(30))
def test_writes_that_are_lost_or_cut_off_in_any_order_lose_no_row(
    folder: Path, scattering: str, seed: int
) -> None:
    draw = random.Random(seed)  # noqa: S311  # no secrets
    for _ in range(4):
        Scattering.left[0] = draw.randint(8, 40)
        with suppress(Killed):
            embed(folder, scattering)
        Scattering.left[0] = float("inf")
        Scattering.crash(draw)
        for path in [path for path in Scattering.store if "/locks/" in path]:
            Scattering.store.pop(path)  # as this process has not ended
    embed(folder, scattering)
    check(folder, scattering)


def test_a_run_that_is_killed_at_any_write_leaves_a_valid_collection(
    folder: Path, scattering: str
) -> None:
    again = 0
    for writes in range(100):
        Scattering.store.clear()
        Scattering.left[0] = writes
        try:
            embed(folder, scattering)
        except Killed:
            again += 1
        else:
            break
        Scattering.left[0] = float("inf")
        for path in [path for path in Scattering.store if "/locks/" in path]:
            Scattering.store.pop(path)
        embed(folder, scattering)
        check(folder, scattering)
    # claims to planning, writing and planning; the plan; the manifest; for each of three parts its
    # digests, itself and its record; errors.csv
    assert again == writes == 15
