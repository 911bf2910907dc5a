"""The place of a collection: a folder on this machine, or a URL such as `s3://bucket/collection`.

All modules that read or write a collection do it through a store. Files are named by paths relative
to the collection, with forward slashes, such as ".hfclip/plan.parquet". A store can be pickled, so
processes on other machines open the same collection; credentials come from the environment there.
"""

import errno
import hashlib
import io
import os
import shutil
import tempfile
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hfclip.atomic import synced, write_text
from hfclip.data.remote_folder import RemoteFolder
from hfclip.data.urls import is_remote, without_local_protocol
from hfclip.embedding.claims import Claim
from hfclip.embedding.locks import Lock
from hfclip.errors import CacheError

HIDDEN = ".hfclip"
# Seconds after which the copy of an earlier version of a file is removed.
_OLD = 86_400


class StoredFile(NamedTuple):
    """A file of a collection.

    Attributes:
        size: The size in bytes, or None if it is not known.
        version: A text that changes with the file.
    """

    size: int | None
    version: str


class Store(ABC):
    """The files of a collection.

    All methods raise DataError if a request for a URL fails, and OSError if the disk cannot be read
    or written. Those that read a file raise FileNotFoundError if it does not exist.
    """

    @abstractmethod
    def __str__(self) -> str:
        """Returns the path or the URL as a person has given it."""

    @property
    @abstractmethod
    def folder(self) -> Path | None:
        """The folder on this machine, or None for a URL."""

    @property
    @abstractmethod
    def caches(self) -> tuple[Path, ...]:
        """Folders on this machine for files that are made of the collection, the best first."""

    @abstractmethod
    def prepare(self) -> None:
        """Makes the folder. Raises DataError if files cannot be written at the URL."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Returns the names of the files and folders in a folder; none if it does not exist."""

    @abstractmethod
    def files(self, folder: str = "") -> dict[str, StoredFile]:
        """Returns the files in a folder by their names; none if it does not exist."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Returns the content of a file."""

    @abstractmethod
    def source(self, name: str) -> Path | io.BytesIO:
        """Returns what a reader of some of a file's bytes opens.

        It is the path on this machine; of a remote file it is the content, from one request.
        """

    @abstractmethod
    def copy(self, name: str) -> Path:
        """Returns the path of a file on this machine. A remote file is copied once and kept."""

    @abstractmethod
    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        """Writes a file whole or not at all: `fill` writes it at a temporary path first."""

    @abstractmethod
    def write_text(self, name: str, text: str) -> None:
        """Writes a small file in UTF-8, whole or not at all. Line ends stay as they are."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file. Does nothing if it does not exist."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Returns the path or URL of a file, for people."""

    @abstractmethod
    def lock(self, name: str) -> Lock | Claim:
        """Returns one of the locks of those who write the collection, such as "planning"."""

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """Yields a folder on this machine for temporary files."""


# What functions accept as the place of a collection.
AnyStore: TypeAlias = "Store | str | os.PathLike[str]"


def open_store(out: AnyStore) -> Store:
    """Returns the store of a path or a URL, and a store as it is. Reads and writes nothing.

    Raises:
        DataError: The URL has a password or a token in it, or chains several protocols.
    """
    if isinstance(out, Store):
        return out
    name = os.fspath(out)
    return _RemoteStore(name) if is_remote(name) else _LocalStore(without_local_protocol(name))


class _LocalStore(Store):
    """A folder on this machine. A file is synced to the disk and then renamed."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def __str__(self) -> str:
        return str(self._folder)

    def __reduce__(self) -> tuple[type["_LocalStore"], tuple[Path]]:
        return _LocalStore, (self._folder.absolute(),)  # another process may be in another folder

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def caches(self) -> tuple[Path, ...]:
        owner = str(self._folder.resolve()).encode("utf-8", "surrogatepass")
        return self._folder / HIDDEN, _cache_of(owner)

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def names(self, folder: str = "") -> list[str]:
        try:
            return os.listdir(self._folder / folder)  # noqa: PTH208  # fast
        except FileNotFoundError:
            return []

    def files(self, folder: str = "") -> dict[str, StoredFile]:
        found = {}
        for name in self.names(folder):
            try:
                facts = os.stat(self._folder / folder / name)  # noqa: PTH116
            except FileNotFoundError:  # removed since it was listed
                continue
            found[name] = StoredFile(facts.st_size, f"{facts.st_size}|{facts.st_mtime_ns}")
        return found

    def exists(self, name: str) -> bool:
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def source(self, name: str) -> Path:
        return self._folder / name

    def copy(self, name: str) -> Path:
        return self._folder / name

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.part")
        try:
            fill(temporary)
            synced(temporary)
            temporary.replace(path)
            synced(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        write_text(self._folder / name, text)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def path(self, name: str) -> str:
        return str(self._folder / name)

    def lock(self, name: str) -> Lock:
        return Lock(self._folder / HIDDEN / f"{name}.lock")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        folder = self._folder / HIDDEN
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


class _RemoteStore(Store):
    """A folder at a URL. A file is written by one upload of its whole content."""

    def __init__(self, url: str) -> None:
        """Makes no request.

        Raises:
            DataError: The URL has a password or a token in it, or chains several protocols.
        """
        self._url = url
        self._folder = RemoteFolder(url)
        self._copies: Path | None = None

    def __str__(self) -> str:
        return self._url

    def __reduce__(self) -> tuple[type["_RemoteStore"], tuple[str]]:
        return _RemoteStore, (self._url,)

    @property
    def folder(self) -> None:
        return None

    @property
    def caches(self) -> tuple[Path, ...]:
        return (_cache_of(self._folder.url.encode()),)

    def prepare(self) -> None:
        self._folder.check_writable()

    def names(self, folder: str = "") -> list[str]:
        return self._folder.names(folder)

    def files(self, folder: str = "") -> dict[str, StoredFile]:
        found = self._folder.files(folder)
        return {name: StoredFile(file.size, file.version) for name, file in found.items()}

    def exists(self, name: str) -> bool:
        return self._folder.file(name) is not None

    def read(self, name: str) -> bytes:
        content = self._folder.read(name)
        if content is None:
            raise self._missing(name)
        return content

    def source(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.read(name))

    def copy(self, name: str) -> Path:
        file = self._folder.file(name)
        if file is None:
            raise self._missing(name)
        version = hashlib.sha256(file.version.encode()).hexdigest()[:16]
        stem, ending = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122
        try:
            return self._copied(name, self.caches[0], f"{stem}-", version + ending)
        except OSError as reason:
            if isinstance(reason, FileNotFoundError):
                raise
        try:
            if self._copies is None:
                self._copies = Path(tempfile.mkdtemp(prefix="hfclip-"))
                weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
            return self._copied(name, self._copies, f"{stem}-", version + ending)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise CacheError(f"{self.path(name)} cannot be copied here ({error}).") from error

    def write(self, name: str, fill: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory(prefix="hfclip-") as folder:
            temporary = Path(folder, "whole")
            fill(temporary)
            self._folder.write(name, temporary)

    def write_text(self, name: str, text: str) -> None:
        self._folder.write(name, text.encode())

    def remove(self, name: str) -> None:
        self._folder.remove(name)

    def path(self, name: str) -> str:
        return self._folder.url_of(name)

    def lock(self, name: str) -> Claim:
        return Claim(self._folder, f"{HIDDEN}/locks/{name}")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="hfclip-") as folder:
            yield Path(folder)

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path(name))

    def _copied(self, name: str, place: Path, start: str, end: str) -> Path:
        """Returns the copy of a file in a folder, and removes old copies of earlier versions."""
        path = place / f"{start}{end}"
        if path.exists():
            return path
        place.mkdir(parents=True, exist_ok=True)
        temporary = place / f".{start}{uuid.uuid4().hex[:12]}.part"
        try:
            if not self._folder.download(name, temporary):
                raise self._missing(name)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for other in (*place.glob(f"{start}*"), *place.glob(f".{start}*.part")):
            if other != path and time.time() - _changed(other) > _OLD:
                other.unlink(missing_ok=True)
        return path


def _cache_of(owner: bytes) -> Path:
    """Returns the folder in the Hub's cache for a collection."""
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_HOME) / "hfclip" / "matrices" / hashlib.sha256(owner).hexdigest()[:16]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed by another process
        return time.time()
