"""Reads and lists files by URL, with fsspec: `hf://`, `s3://`, `https://` and others."""

import hashlib
import io
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, cast

from hfclip.data.asking import asked, system_of
from hfclip.data.urls import protocol_of

if TYPE_CHECKING:
    from huggingface_hub import HfFileSystem


class FileInfo(NamedTuple):
    """What a file system knows about a file without reading it.

    Attributes:
        size: The size in bytes, or None.
        mtime_ns: The time of the last change in nanoseconds. A number that is derived from the
            hash or version of the file where there is no time. None if nothing is known.
    """

    size: int | None
    mtime_ns: int | None


class RemoteEntry(NamedTuple):
    """A file or folder in a folder."""

    name: str
    is_folder: bool
    info: FileInfo


def open_url(url: str) -> IO[bytes]:
    """Opens a file for reading. It can seek.

    Raises:
        DataError: The file cannot be opened.
    """

    def opened() -> IO[bytes]:
        system, path = system_of(url)
        if protocol_of(url) == "memory":  # its open files share one position
            return io.BytesIO(system.cat_file(path))
        return cast("IO[bytes]", system.open(path, "rb"))

    return asked(url, opened)


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Reads a file, or its bytes from `start` to `end`.

    Raises:
        DataError: The file cannot be read.
    """

    def read() -> bytes:
        system, path = system_of(url)
        options: dict[str, Any] = {}
        if protocol_of(url) == "hf":  # without a listing of the folder, and without reading ahead
            options = {"block_size": 0} if start is None else {"cache_type": "none"}
        return bytes(system.cat_file(path, start, end, **options))

    return asked(url, read)


def info_of(url: str) -> FileInfo:
    """Returns the size and the time of a file.

    Raises:
        DataError: The file does not exist or the request fails.
    """
    return _info(asked(url, lambda: _details(url)))


def kind_of(url: str) -> Literal["file", "folder"] | None:
    """Returns whether a URL is a file or a folder, or None if it does not exist.

    Raises:
        DataError: The request fails.
    """

    def ask_kind() -> Literal["file", "folder"] | None:
        try:
            return "folder" if _details(url)["type"] == "directory" else "file"
        except FileNotFoundError:
            return None

    return asked(url, ask_kind)


def list_folder(url: str) -> list[RemoteEntry]:
    """Returns the files and folders in a folder, in no order.

    Raises:
        DataError: The folder cannot be listed.
    """

    def listed() -> list[RemoteEntry]:
        system, path = system_of(url)
        system.invalidate_cache()
        found = [
            RemoteEntry(name, details["type"] == "directory", _info(details))
            for details in system.ls(path, detail=True)
            if (name := details["name"].rstrip("/").rpartition("/")[2])
            and details["name"].strip("/") != path.strip("/")  # S3 lists a marker of the folder
        ]
        system.invalidate_cache()  # it would keep every listing in memory
        return found

    return asked(url, listed)


def glob_urls(folder: str, pattern: str) -> list[RemoteEntry]:
    """Returns what matches a pattern, sorted. The names are paths relative to the folder.

    Raises:
        DataError: The folder cannot be listed.
    """

    def found() -> list[RemoteEntry]:
        system, path = system_of(folder)
        system.invalidate_cache()
        matches = system.glob(f"{path.rstrip('/')}/{pattern}", detail=True)
        start = len(path.rstrip("/")) + 1
        return sorted(
            RemoteEntry(name[start:], details["type"] == "directory", _info(details))
            for name, details in matches.items()
        )

    return asked(folder, found)


def pinned(url: str) -> str:
    """Returns a URL of the Hub with the commit in place of a branch, and others as they are.

    Until `forget_commits` is called, a branch keeps the same commit.

    Raises:
        DataError: The repository or branch does not exist, or the Hub cannot be asked.
    """
    if protocol_of(url) != "hf":
        return url

    def resolve() -> str:
        from huggingface_hub import HfApi  # noqa: PLC0415

        system, path = system_of(url)
        found = cast("HfFileSystem", system).resolve_path(path)
        repo_id, revision = getattr(found, "repo_id", None), getattr(found, "revision", None)
        if repo_id is None or revision is None:  # a bucket has no commits
            return url
        kind = getattr(found, "repo_type", None)
        if (kind, repo_id, revision) not in _commits:
            api = HfApi(endpoint=getattr(system, "endpoint", None))
            commit = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
            _commits[kind, repo_id, revision] = str(commit)
        prefix = {"dataset": "datasets/", "space": "spaces/"}.get(str(kind), "")
        commit = _commits[kind, repo_id, revision]
        return f"hf://{prefix}{repo_id}@{commit}/{found.path}".rstrip("/")

    return asked(url, resolve)


# The commits that branches had when `pinned` first saw them, by kind, name and branch.
_commits: dict[tuple[str | None, str, str], str] = {}


def forget_commits() -> None:
    """Makes `pinned` look up the commits of branches again."""
    _commits.clear()


def _details(url: str) -> dict[str, Any]:
    system, path = system_of(url)
    return cast("dict[str, Any]", system.info(path))


def _info(details: dict[str, Any]) -> FileInfo:
    size = details.get("size")
    return FileInfo(size if isinstance(size, int) else None, _time(details))


# The names of times and of versions in the details of fsspec's file systems.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_VERSIONS = ("ETag", "etag", "blob_id", "xet_hash", "oid", "sha256", "md5Hash", "content_md5")


def changed_at(details: dict[str, Any]) -> float | None:
    """Returns the time of the last change in seconds since 1970, or None if it is not known."""
    for name in _TIMES:
        value = details.get(name)
        if isinstance(value, datetime):
            value = value.timestamp()
        if isinstance(value, int | float):
            return value
    return None


def version_of(details: dict[str, Any]) -> str:
    """Returns a text that changes with a file, from what a file system says about it."""
    return "|".join(f"{name}={details.get(name)}" for name in ("size", *_TIMES, *_VERSIONS))


def _time(details: dict[str, Any]) -> int | None:
    seconds = changed_at(details)
    if seconds is not None:
        return int(seconds * 1_000_000_000)
    version = next((value for name in _VERSIONS if (value := details.get(name))), None)
    version = version or next((details[name] for name in _TIMES if details.get(name)), None)
    if version is None:
        return None
    return int.from_bytes(hashlib.sha256(str(version).encode()).digest()[:8]) >> 1
