"""Makes requests for URLs: repeats those that fail, and turns errors of clients into DataError.

Object storage that has answered before is asked again for a minute and a half, so that a server may
restart while a run goes on. Another server is given up after two more tries, because a list of
pictures may name servers that are gone.
"""

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from hfclip.data.urls import check_url, protocol_of, without_urls
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
# Protocols of object storage, where a failure passes.
OBJECT_STORAGE = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2"))
# Pauses in seconds before a request is repeated to a server that has answered before.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
# The same for other servers. Most clients repeat requests themselves.
_PAUSES = (0.5, 3.0)
# A pause from which on a warning says why the program waits.
_LONG = 4.0
# The servers that have answered, and those for which a warning was given since.
_answered: set[str] = set()
_silent: set[str] = set()


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
    url: str, request: Callable[[], _T], *, patient: bool = False, action: str = "read"
) -> _T:
    """Makes a request and repeats it after a broken connection.

    Args:
        url: The URL, for errors.
        request: Makes the request.
        patient: Whether a server that has answered before is given more time, as object storage.
        action: What the request does, for errors: "read" or "written".

    Raises:
        DataError: The request failed. The message shows no credential.
    """
    server = _server_of(url)
    has_time = server in _answered and (patient or protocol_of(url) in OBJECT_STORAGE)
    left = list(PAUSES if has_time else _PAUSES)
    while True:
        try:
            answer = _answer(url, request, action)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001  # clients raise many types
            if not left or isinstance(error, ValueError | TypeError | NotImplementedError):
                raise unreadable(url, error, action) from None
            if left[0] >= _LONG and server not in _silent:
                _silent.add(server)
                warnings.warn(
                    f"{url} cannot be {action} now ({_reason(error)}). hfclip tries again for "
                    f"{sum(left):.0f} s.",
                    stacklevel=3,
                )
            time.sleep(left.pop(0))
        else:
            _answered.add(server)
            _silent.discard(server)
            return answer


def _answer(url: str, request: Callable[[], _T], action: str) -> _T:
    """Makes a request once. Raises DataError for an answer that will not change."""
    try:
        return _of_hub(url, request) if protocol_of(url) == "hf" else request()
    except FileNotFoundError:
        raise DataError(f"{url} does not exist.") from None
    except PermissionError:
        raise DataError(f"{url} cannot be {action}: access is denied. Log in.") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(f"{url} is a folder; expected a file.") from None
    except HubError as error:
        raise DataError(str(error)) from None


def _server_of(url: str) -> str:
    """Returns the protocol and the host or bucket of a URL."""
    return "/".join(url.split("/", 3)[:3])


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
    text = without_urls(str(getattr(error, "strerror", None) or error)).strip()
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
