"""Fetches a file from a URL that names its sha256, as OpenAI's do."""

import time
import urllib.error
import urllib.request
import warnings
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from tqdm import tqdm

from hfclip.errors import CacheError, IntegrityError, NetworkError
from hfclip.hub import integrity
from hfclip.hub.integrity import Digest

_CHUNK = 2**20
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # in a row that bring nothing new
_PAUSE = 0.5  # seconds after the first of these, then twice as long each time


def default_root() -> Path:
    """Where `clip` has always put its files."""
    return Path("~/.cache/clip").expanduser()


def fetch(url: str, root: Path) -> Path:
    """Gives the file's path in the folder `root`, fetching it unless it is there and whole.

    Raises:
        IntegrityError: The URL names no sha256, or what lies there hashes to another.
        NetworkError: It cannot be fetched.
        CacheError: It cannot be written.
    """
    digest, target = _digest(url), root / _file_name(url)
    if target.exists() and not target.is_file():
        raise CacheError(f"{target} exists and is not a regular file. Move it out of the way.")
    if target.is_file():
        if integrity.matches(target, digest):
            return target
        warnings.warn(
            f"{target} exists, but does not hash to {digest.value}; fetching it again.",
            stacklevel=3,
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.{digest.value[:16]}.part")
        with FileLock(f"{unfinished}.lock"):
            if not (target.is_file() and integrity.matches(target, digest)):
                _fetch_verified(url, digest, unfinished)
                unfinished.replace(target)
    except OSError as error:
        raise CacheError(
            f"{target} cannot be written: {error.strerror or error}. Make room on the disk and the "
            "folder writable, or use another folder."
        ) from error
    return target


def _digest(url: str) -> Digest:
    parts = urlsplit(url).path.split("/")
    digest = integrity.digest_named(parts[-2].lower()) if len(parts) > 1 else None
    if digest is None or digest.kind != "sha256":
        raise IntegrityError(
            f"{url} does not name its sha256: expected .../<64 hexadecimal digits>/<file>, as in "
            "OpenAI's URLs. Fetch the file yourself and give its path to load."
        )
    return digest


def _file_name(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in {"", ".", ".."}:
        raise IntegrityError(f"{url} names no file.")
    return name


def _fetch_verified(url: str, digest: Digest, path: Path) -> None:
    """Completes the file; once more from its start if what was there before spoils it."""
    resumed = path.exists()
    _complete(url, path)
    if integrity.compute(path, "sha256") != digest.value and resumed:
        path.unlink()
        _complete(url, path)
    actual = integrity.compute(path, "sha256")
    if actual != digest.value:
        path.unlink()
        raise IntegrityError(
            f"{url} has been downloaded, but its sha256 is {actual}, not the {digest.value} that "
            "the URL names; it was removed. The server or the network hands out wrong bytes."
        )


def _complete(url: str, path: Path) -> None:
    """Asks for the rest until there is none; gives up when nothing new comes any more."""
    failures = 0
    while True:
        before = path.stat().st_size if path.exists() else 0
        try:
            _fetch_rest(url, path, before)
        except (HTTPException, TimeoutError, ConnectionError, urllib.error.URLError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise _unavailable(url, error) from None
            grown = path.exists() and path.stat().st_size > before
            failures = 0 if grown else failures + 1
            if failures == _ATTEMPTS:
                raise _unavailable(url, error) from None
            time.sleep(_PAUSE * 2**failures if failures else 0)
        else:
            return


def _fetch_rest(url: str, path: Path, start: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if start and error.code == 416:  # there is no more than what is here
                return
            raise
    with response:
        # A server that knows no ranges sends the whole file.
        resumes = start > 0 and response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (start if resumes else 0) if length else None
        with path.open("ab" if resumes else "wb") as file, _bar(path, total, file.tell()) as bar:
            _copy(response, file, bar)
        if total is not None and path.stat().st_size < total:
            raise ConnectionError(f"{path.stat().st_size} of {total} bytes came")


def _copy(response: HTTPResponse, file: IO[bytes], bar: Any) -> None:
    while chunk := response.read1(_CHUNK):
        file.write(chunk)
        bar.update(len(chunk))


def _bar(path: Path, total: int | None, initial: int) -> Any:
    name = path.name.split(".pt.")[0]
    return tqdm(total=total, initial=initial, desc=name, unit="B", unit_scale=True, disable=None)


def _unavailable(url: str, error: Exception) -> NetworkError:
    reason = getattr(error, "reason", None) or error
    return NetworkError(
        f"{url} cannot be fetched: {reason}. Try again, and what has come so far is kept; "
        "hfclip.load has the same weights from the Hub."
    )
