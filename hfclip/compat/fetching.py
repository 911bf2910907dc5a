"""Downloads files from URLs that contain the sha256 of the file, like OpenAI's URLs."""

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
_ATTEMPTS = 5  # failed requests in a row without a new byte
_PAUSE = 0.5  # seconds; doubles with each failed request


def default_root() -> Path:
    """Returns the folder where `clip` stores its files."""
    return Path("~/.cache/clip").expanduser()


def fetch(url: str, root: Path) -> Path:
    """Returns the path of the file in `root`, downloading it unless a verified copy exists.

    Raises:
        IntegrityError: The URL contains no sha256, or the downloaded file has another sha256.
        NetworkError: The download fails.
        CacheError: The file cannot be written.
    """
    digest, target = _digest(url), root / _file_name(url)
    if target.exists() and not target.is_file():
        raise CacheError(f"{target} exists and is not a regular file. Move or remove it.")
    if target.is_file():
        if integrity.matches(target, digest):
            return target
        warnings.warn(
            f"{target} exists, but its sha256 is not {digest.value}; downloading it again.",
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
            f"{target} cannot be written: {error.strerror or error}. Check the free space and the "
            "permissions of the folder, or use another folder."
        ) from error
    return target


def _digest(url: str) -> Digest:
    parts = urlsplit(url).path.split("/")
    digest = integrity.digest_named(parts[-2].lower()) if len(parts) > 1 else None
    if digest is None or digest.kind != "sha256":
        raise IntegrityError(
            f"{url} does not contain a sha256. Expected .../<64 hexadecimal digits>/<file>, as in "
            "OpenAI's URLs. Download the file yourself and pass its path to load."
        )
    return digest


def _file_name(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in {"", ".", ".."}:
        raise IntegrityError(f"{url} has no file name. Expected .../<sha256>/<file>.")
    return name


def _fetch_verified(url: str, digest: Digest, path: Path) -> None:
    """Completes the file. Starts again if a resumed file has the wrong sha256."""
    resumed = path.exists()
    _complete(url, path)
    if integrity.compute(path, "sha256") != digest.value and resumed:
        path.unlink()
        _complete(url, path)
    actual = integrity.compute(path, "sha256")
    if actual != digest.value:
        path.unlink()
        raise IntegrityError(
            f"The file from {url} has the sha256 {actual}, but the URL says {digest.value}. The "
            "file was removed. The server or the network delivers wrong bytes."
        )


def _complete(url: str, path: Path) -> None:
    """Requests the missing bytes, until the file is complete or `_ATTEMPTS` requests fail."""
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
            if start and error.code == 416:  # the file is complete already
                return
            raise
    with response:
        # A server without range support sends the whole file.
        resumes = start > 0 and response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (start if resumes else 0) if length else None
        with path.open("ab" if resumes else "wb") as file, _bar(path, total, file.tell()) as bar:
            _copy(response, file, bar)
        if total is not None and path.stat().st_size < total:
            raise ConnectionError(f"received {path.stat().st_size} of {total} bytes")


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
        f"{url} cannot be downloaded: {reason}. Try again to resume the download, or use "
        "hfclip.load, which gets the same weights from the Hub."
    )
