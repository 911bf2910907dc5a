"""URLs: what is refused, what is repeated, and what errors say."""

import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fsspec import AbstractFileSystem, register_implementation
from places import Place, forget_memory

from hfclip.data import asking
from hfclip.data.references import ParquetRow, RemoteImage, TarImage
from hfclip.data.remote import FileInfo, info_of, kind_of, list_folder, read_url
from hfclip.data.urls import redacted
from hfclip.errors import DataError


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(asking, "_PAUSES", (0.0, 0.0))
    yield
    forget_memory()


class Failing(AbstractFileSystem):  # type: ignore[misc]
    """A file system whose requests raise the errors of a list, and then succeed."""

    protocol = "failing"
    errors: list[Exception] = []  # noqa: RUF012

    def cat_file(self, path: str, *_: object, **__: object) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return path.encode()

    def info(self, path: str, **_: object) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": None, **self.details}

    details: dict[str, Any] = {}  # noqa: RUF012


register_implementation("failing", Failing, clobber=True)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError) as caught:
        read_url("s3://bucket/a.jpg")
    assert str(caught.value) == "s3://bucket/a.jpg needs a package for s3://: pip install s3fs"


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(DataError, match="fsspec knows no protocol nothing://"):
        kind_of("nothing://a/b.jpg")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host/a.jpg", "https://***@host/a.jpg"),
        ("s3://KEY:secret@bucket/a", "s3://***@bucket/a"),
        ("https://h/a?X-Amz-Signature=secret&w=1", "https://h/a?X-Amz-Signature=***&w=1"),
        ("https://h/a?w=1&sig=secret", "https://h/a?w=1&sig=***"),
        ("https://h/a?api_key=secret", "https://h/a?api_key=***"),
        ("https://h/a?hf_token=secret#x", "https://h/a?hf_token=***#x"),
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown
    with pytest.raises(DataError) as caught:
        read_url(url)
    assert str(caught.value).startswith(f"{shown} has a password or token in it")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/org/name@main/a.jpg",
        "https://h/a.jpg?w=5&design=1&key=cat",
        "sftp://me@host/a.jpg",
        "s3://bucket/a:b@c.jpg",
    ],
)
def test_other_urls_are_shown_as_they_are(url: str) -> None:
    assert redacted(url) == url


def test_chained_protocols_are_refused() -> None:
    with pytest.raises(DataError, match="chains protocols"):
        read_url("simplecache::memory://a.jpg")


def test_a_failed_request_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "errors", [ConnectionError("reset"), TimeoutError()])
    assert read_url("failing://a.jpg") == b"a.jpg"


def test_a_request_that_goes_on_failing_is_an_error_without_urls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "403 for url 'https://cdn/x?Signature=secret'"
    monkeypatch.setattr(Failing, "errors", [RuntimeError(text)] * 3)
    with pytest.raises(DataError) as caught:
        read_url("failing://a.jpg")
    assert str(caught.value) == ("failing://a.jpg cannot be read (RuntimeError: 403 for url 'URL).")
    assert caught.value.__cause__ is None


def test_object_storage_that_has_answered_gets_more_time_for_pictures_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(asking, "OBJECT_STORAGE", {"failing"})
    monkeypatch.setattr(asking, "_answered", set())
    monkeypatch.setattr(Failing, "errors", [ConnectionError("refused")] * 3)
    with pytest.raises(DataError, match="ConnectionError: refused"):
        read_url("failing://bucket/a.jpg")  # it may be a name that does not exist
    assert read_url("failing://bucket/a.jpg") == b"bucket/a.jpg"
    Failing.errors += [ConnectionError("refused")] * len(asking.PAUSES)
    pauses.clear()
    with pytest.warns(UserWarning, match=r"failing://bucket/b\.jpg cannot be read now.*for 87 s"):
        assert read_url("failing://bucket/b.jpg") == b"bucket/b.jpg"
    assert pauses == list(asking.PAUSES)


def test_a_server_that_is_silent_is_named_once_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(asking, "OBJECT_STORAGE", {"failing"})
    monkeypatch.setattr(asking, "_answered", {"failing://bucket"})
    monkeypatch.setattr(Failing, "errors", [])
    for _ in range(2):
        Failing.errors += [ConnectionError("refused")] * (len(asking.PAUSES) + 1)
        Failing.errors += [ConnectionError("refused")] * len(asking.PAUSES)
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            with pytest.raises(DataError):
                read_url("failing://bucket/a.jpg")
            assert read_url("failing://bucket/b.jpg") == b"bucket/b.jpg"
        assert len(given) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError("x"), "failing://a.jpg does not exist."),
        (PermissionError("x"), "failing://a.jpg cannot be read: access is denied. Log in."),
        (IsADirectoryError("x"), "failing://a.jpg is a folder; expected a file."),
    ],
)
def test_an_answer_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    monkeypatch.setattr(Failing, "errors", [error])
    with pytest.raises(DataError) as caught:
        read_url("failing://a.jpg")
    assert str(caught.value) == text


def test_the_time_is_in_nanoseconds_or_derived_from_the_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def time(**details: object) -> int | None:
        monkeypatch.setattr(Failing, "details", details)
        return info_of("failing://a.jpg").mtime_ns

    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert time(LastModified=moment, ETag="x") == 1_767_312_000_000_000_000
    assert time(mtime=12.5) == 12_500_000_000
    assert time() is None
    first, second = time(ETag='"x"'), time(ETag='"y"')
    assert first == time(ETag='"x"')
    assert first != second
    assert first is not None
    assert 0 <= first < 2**63


def test_files_and_folders_are_told_apart(tmp_path: Any) -> None:
    place = Place("memory", tmp_path)
    place.write("d/a.jpg", b"12")
    place.write("d/e/b.jpg", b"1")
    assert [kind_of(f"memory://d{end}") for end in ("", "/a.jpg", "/e", "/none")] == [
        "folder",
        "file",
        "folder",
        None,
    ]
    entries = {entry.name: entry for entry in list_folder("memory://d")}
    assert entries.keys() == {"a.jpg", "e"}
    assert entries["e"].is_folder
    assert isinstance(entries["a.jpg"].info, FileInfo)
    assert entries["a.jpg"].info.size == 2


def test_references_read_urls(tmp_path: Any) -> None:
    place = Place("memory", tmp_path)
    place.write("a.jpg", b"0123456789")
    assert RemoteImage("memory://a.jpg").read() == b"0123456789"
    assert TarImage("memory://a.jpg", 3, 4).read() == b"3456"
    with pytest.raises(DataError, match=r"memory://a\.jpg ends before byte 13\."):
        TarImage("memory://a.jpg", 3, 10).read()
    with pytest.raises(DataError, match=r"memory://b\.jpg does not exist"):
        RemoteImage("memory://b.jpg").read()
    place.write_parquet("t.parquet", {"image": [b"one", b"two"]})
    assert ParquetRow("memory://t.parquet", 0, 1, "image").read() == b"two"
