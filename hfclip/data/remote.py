"""Reads and lists files by URL, with fsspec: `hf://`, `s3://`, `https://`, `memory://` and others.

A URL with a password or a token in it is refused, because keys, plans and errors show URLs.
"""

import hashlib
import io
import re
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

from hfclip.errors import DataError, HubError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_T = TypeVar("_T")

# The package that fsspec needs for a protocol, as pip calls it.
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "http": "requests aiohttp",
    "https": "requests aiohttp",
    "oss": "ossfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "webdav": "webdav4",
}
_LOCAL = frozenset(("file", "local"))
# Pauses in seconds before a failed request is repeated. Most clients repeat requests themselves.
_PAUSES = (0.5, 3.0)
# A pause from which on a warning says why the program waits.
_LONG = 4.0
# Two characters at least: C: is a drive of Windows.
_protocol = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE).match
_password = re.compile(r"(?<=://)[^/@]*:[^/@]*@")
_secret = re.compile(
    r"(?<=[?&;#])([\w-]*(?:signature|credential|token|password|secret|api_?-?key)|sig)=[^&;#]*",
    re.IGNORECASE,
)
_any_url = re.compile(r"\w[\w+.-]*://\S+")


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


def protocol_of(name: str) -> str | None:
    """Returns the protocol of a URL in lower case, or None for a path."""
    found = _protocol(name)
    return found[1].lower() if found else None


def is_remote(name: str) -> bool:
    """Returns whether a name is a URL of a file that is not on this machine."""
    protocol = protocol_of(name)
    return protocol is not None and protocol not in _LOCAL


def asks_much(url: str) -> bool:
    """Returns whether the size of a file takes a request of its own, as servers list no folder."""
    return protocol_of(url) in ("http", "https")


def without_local_protocol(name: str) -> str:
    """Returns the path of a URL such as file:///photos/a.jpg, and anything else as it is."""
    return name.partition("://")[2] if protocol_of(name) in _LOCAL else name


def redacted(url: str) -> str:
    """Returns a URL with *** in place of a password and of tokens."""
    return _secret.sub(r"\1=***", _password.sub("***@", url))


def check_url(url: str) -> None:
    """Checks that a URL may be stored.

    Raises:
        DataError: It has a password or a token in it, or chains several protocols.
    """
    if redacted(url) != url:
        raise DataError(
            f"{redacted(url)} has a password or token in it, which would be stored with the "
            "embeddings. Give it in the environment or in fsspec's configuration instead."
        )
    if "::" in url:
        raise DataError(f"{url} chains protocols with ::, which is not supported.")


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
        from huggingface_hub import HfApi, HfFileSystem  # noqa: PLC0415

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


def system_of(url: str) -> tuple["AbstractFileSystem", str]:
    """Returns the file system of a URL, and the path in it."""
    check_url(url)
    from fsspec.core import url_to_fs  # noqa: PLC0415

    protocol = str(protocol_of(url))
    try:
        return cast("tuple[AbstractFileSystem, str]", url_to_fs(url))
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        remedy = f"pip install {package}" if package else str(error)
        raise DataError(f"{url} needs a package for {protocol}://: {remedy}") from error
    except ValueError as error:
        if "rotocol" not in str(error):
            raise
        raise DataError(f"{url} cannot be read: fsspec knows no protocol {protocol}://.") from error


def asked(
    url: str,
    request: Callable[[], _T],
    pauses: Sequence[float] | None = None,
    action: str = "read",
) -> _T:
    """Makes a request and repeats it after a broken connection.

    Args:
        url: The URL, for errors.
        request: Makes the request.
        pauses: The pauses in seconds before the request is repeated. None for a short time.
        action: What the request does, for errors: "read" or "written".

    Raises:
        DataError: The request failed. The message shows no credential.
    """
    left = list(_PAUSES if pauses is None else pauses)
    told = False
    while True:
        try:
            return _of_hub(url, request) if protocol_of(url) == "hf" else request()
        except DataError:
            raise
        except FileNotFoundError:
            raise DataError(f"{url} does not exist.") from None
        except PermissionError:
            raise DataError(f"{url} cannot be {action}: access is denied. Log in.") from None
        except (IsADirectoryError, NotADirectoryError):
            raise DataError(f"{url} is a folder; expected a file.") from None
        except HubError as error:
            raise DataError(str(error)) from None
        except Exception as error:  # noqa: BLE001  # clients raise many types
            if not left or isinstance(error, ValueError | TypeError | NotImplementedError):
                raise unreadable(url, error, action) from None
            if left[0] >= _LONG and not told:
                told = True
                warnings.warn(
                    f"{url} cannot be {action} now ({_reason(error)}). hfclip tries again for "
                    f"{sum(left):.0f} s.",
                    stacklevel=3,
                )
            time.sleep(left.pop(0))


def _of_hub(url: str, request: Callable[[], _T]) -> _T:
    """Makes a request to the Hub, which has a limit of time and errors of its own."""
    missing: list[FileNotFoundError] = []

    def answered() -> _T | None:
        try:
            return request()
        except FileNotFoundError as error:
            cause = error.__cause__
            if isinstance(cause, Exception):
                raise cause from None  # says why: missing, private, or no such branch
            missing.append(error)
            return None

    from hfclip.hub.ask import ask  # noqa: PLC0415  # imports the client of the Hub

    answer = ask(answered, url)
    for error in missing:
        raise error
    return cast("_T", answer)


def unreadable(url: str, error: Exception, action: str = "read") -> DataError:
    """Returns the error for a URL that a client cannot read.

    Raise it `from None`: the client's error may show a token.
    """
    return DataError(f"{url} cannot be {action} ({_reason(error)}).")


def _reason(error: Exception) -> str:
    text = _any_url.sub("URL", str(getattr(error, "strerror", None) or error)).strip()
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


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
