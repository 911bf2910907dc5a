"""Folders at URLs: single uploads, what is repeated for how long, and what errors say."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec import filesystem, register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from places import forget_memory

from hfclip.data import asking, remote_folder
from hfclip.data.asking import PAUSES
from hfclip.data.remote_folder import RemoteFolder
from hfclip.errors import DataError


class Shaky(MemoryFileSystem):  # type: ignore[misc]
    """A file system with folders, whose requests raise the errors of a list, and then succeed."""

    protocol = "shaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    errors: ClassVar[list[Exception]] = []
    calls: ClassVar[list[str]] = []
    needs_folder: ClassVar[bool] = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("shaky://").strip("/")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.errors:
            raise self.errors.pop(0)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        self._called("write")
        path = self._strip_protocol(path)
        if self.needs_folder and not self.isdir(path.rpartition("/")[0]):
            raise FileNotFoundError(path)
        super().pipe_file(path, value)

    def put_file(self, lpath: str, rpath: str, *_: object, **__: object) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        self._called("read")
        return bytes(super().cat_file(self._strip_protocol(path), *arguments, **options))


register_implementation("shaky", Shaky, clobber=True)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Returns the pauses that were made, which take no time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(asking, "_answered", set())
    monkeypatch.setattr(asking, "_silent", set())
    for values in (Shaky.errors, Shaky.calls):
        values.clear()
    Shaky.store.clear()
    Shaky.pseudo_dirs[:] = [""]
    monkeypatch.setattr(Shaky, "needs_folder", False)
    yield made
    forget_memory()


def test_files_are_written_listed_read_copied_and_removed(tmp_path: Path) -> None:
    folder = RemoteFolder("MEMORY://a/b/")
    assert folder.url == "memory://a/b"
    assert (folder.url_of("x/y"), folder.url_of("")) == ("memory://a/b/x/y", "memory://a/b")
    assert (folder.names(), folder.files(), folder.file("x")) == ([], {}, None)
    assert folder.read("x") is None
    assert not folder.download("x", tmp_path / "x")
    folder.remove("x")
    (tmp_path / "local").write_bytes(b"from a file")
    folder.write("x", tmp_path / "local")
    folder.write("c/y", b"four")
    assert sorted(folder.names()) == ["c", "x"]
    assert [(name, file.size) for name, file in folder.files().items()] == [("x", 11)]
    assert list(folder.files("c")) == ["y"]
    assert folder.read("x") == b"from a file"
    assert folder.download("c/y", tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == b"four"
    assert folder.file("c") is None
    before = folder.file("x")
    folder.write("x", b"from a text")
    after = folder.file("x")
    assert before is not None
    assert after is not None
    assert (after.size, after.version != before.version) == (11, True)
    assert after.changed is not None
    assert abs(after.changed - time.time()) < 60
    folder.remove("x")
    assert folder.names() == ["c"]


def test_a_server_that_has_answered_is_asked_for_more_than_a_minute(pauses: list[float]) -> None:
    folder = RemoteFolder("shaky://a")
    folder.write("x", b"1")
    Shaky.errors += [ConnectionError("refused")] * len(PAUSES)
    with pytest.warns(
        UserWarning,
        match=r"^shaky://a/x cannot be written now \(ConnectionError: refused\)\. hfclip tries "
        r"again for 87 s\.$",
    ) as warned:
        folder.write("x", b"2")
    assert len(warned) == 1
    assert pauses == list(PAUSES)
    assert sum(PAUSES) >= 60
    assert sorted(PAUSES) == list(PAUSES)
    assert folder.read("x") == b"2"


@pytest.mark.filterwarnings("ignore:.*hfclip tries again")
def test_after_that_the_error_names_the_file(pauses: list[float]) -> None:
    folder = RemoteFolder("shaky://a")
    folder.write("x", b"1")
    text = "refused by 'https://h/x?X-Amz-Signature=secret'"
    Shaky.errors += [ConnectionError(text)] * (len(PAUSES) + 1)
    with pytest.raises(DataError) as caught:
        folder.write("x", b"2")
    assert str(caught.value) == (
        "shaky://a/x cannot be written (ConnectionError: refused by 'URL)."
    )


def test_a_server_that_never_answered_is_given_up_soon(pauses: list[float]) -> None:
    Shaky.errors += [ConnectionError("refused")] * 3
    with pytest.raises(DataError, match=r"shaky://a/x cannot be read \(ConnectionError: refused"):
        RemoteFolder("shaky://a").read("x")
    assert sum(pauses) < 5


def test_an_answer_that_will_not_change_is_not_asked_for_again(pauses: list[float]) -> None:
    folder = RemoteFolder("shaky://a")
    folder.write("x", b"1")
    Shaky.errors += [PermissionError("x")]
    with pytest.raises(DataError, match=r"shaky://a/x cannot be written: access is denied"):
        folder.write("x", b"2")
    assert pauses == []


def test_a_folder_is_made_where_a_file_system_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shaky, "needs_folder", True)
    folder = RemoteFolder("shaky://a")
    folder.write("deep/er/x", b"1")
    assert folder.read("deep/er/x") == b"1"


def test_a_bucket_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_folder, "_WITHOUT_FOLDERS", frozenset(("shaky",)))
    monkeypatch.setattr(Shaky, "needs_folder", True)
    with pytest.raises(DataError, match=r"shaky://a/deep/x cannot be written: the bucket does not"):
        RemoteFolder("shaky://a").write("deep/x", b"1")
    assert not filesystem("shaky").exists("/a")
