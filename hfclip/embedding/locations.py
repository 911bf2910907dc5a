"""Names files and folders: by the key that people see, and by the path or URL that is read."""

import os
import stat
from dataclasses import dataclass
from typing import IO

from hfclip.data.references import FileImage, RemoteImage
from hfclip.data.remote import FileInfo, info_of, open_url, pinned
from hfclip.data.urls import check_url, is_remote, without_local_protocol
from hfclip.embedding.items import Item
from hfclip.images.formats import BEGINNING, RAW_ENDINGS, RAW_REASON, optional_decoder

# Files that may need the extra hfclip[heic].
_HEIC_ENDINGS = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder.

    Attributes:
        key: Its name in keys: the path or URL as it was given, with forward slashes.
        where: The absolute path, or the URL that is read. A URL of the Hub names a commit.
    """

    key: str
    where: str

    @property
    def is_remote(self) -> bool:
        """Whether the location is a URL."""
        return is_remote(self.where)

    @property
    def ending(self) -> str:
        """The ending of the file's name in lower case, such as ".jpg"."""
        return ending_of(self.where)

    def inside(self, path: str) -> "Location":
        """Returns a file or folder in this folder."""
        key = key_of(path) if self.key == "." else _joined(self.key, key_of(path))
        if self.is_remote:
            return Location(key, _joined(self.where, path))
        return Location(key, os.path.join(self.where, path))  # noqa: PTH118

    def info(self) -> FileInfo:
        """Returns the size and time of the file.

        Raises:
            OSError: The file does not exist or is not accessible.
            DataError: The request for a URL fails.
        """
        if self.is_remote:
            return info_of(self.where)
        found = os.stat(self.where)  # noqa: PTH116
        return FileInfo(found.st_size, found.st_mtime_ns)

    def open(self) -> IO[bytes]:
        """Opens the file for reading.

        Raises:
            OSError: The file does not exist or is not accessible.
            DataError: The request for a URL fails.
        """
        return open_url(self.where) if self.is_remote else open(self.where, "rb")  # noqa: PTH123


def locate(name: str) -> Location:
    """Returns the location of a path or URL that a person names.

    Raises:
        DataError: The URL has a password in it, or its repository does not exist.
    """
    if is_remote(name):
        check_url(name)
        protocol, _, path = name.partition("://")
        url = f"{protocol.lower()}://{path.rstrip('/')}"
        return Location(url, pinned(url))
    path = os.path.expanduser(without_local_protocol(name))  # noqa: PTH111
    absolute = os.path.abspath(path)  # noqa: PTH100  # keeps links
    return Location(key_of(os.path.normpath(path)), absolute)


def _joined(folder: str, path: str) -> str:
    return folder + path if folder.endswith("/") else f"{folder}/{path}"


def key_of(path: str) -> str:
    """Returns a path with forward slashes. Bytes that are not UTF-8 are escaped."""
    path = path.replace(os.sep, "/")
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def ending_of(name: str) -> str:
    """Returns the ending of a path or URL in lower case; of a URL without its query."""
    if "://" in name:
        name = name.partition("?")[0].partition("#")[0]
    stem, dot, ending = name.rpartition(".")
    is_ending = dot and "/" not in ending and os.sep not in ending and stem[-1:] not in ("", "/")
    return f".{ending.lower()}" if is_ending else ""


def picture_item(
    key: str, image: FileImage | RemoteImage, info: FileInfo | None = None, text: str | None = None
) -> Item:
    """Returns the item of a picture in a file of its own. Asks for the size of a local file.

    Args:
        key: The key of the item.
        image: The picture.
        info: The size and time of the picture, if they are known.
        text: The caption.
    """
    if isinstance(image, FileImage):
        try:
            found = os.stat(image.path)  # noqa: PTH116
        except FileNotFoundError:
            return Item(key, None, text, error="no such file")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            return Item(key, None, text, error=f"cannot be read ({reason})")
        info = FileInfo(found.st_size, found.st_mtime_ns)
        where = image.path
        if stat.S_ISDIR(found.st_mode):
            return Item(key, None, text, error="this is a folder; expected a picture")
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or device may never end
            return Item(key, None, text, error="this is a pipe or device; expected a picture")
    else:
        where = image.url
    size, mtime = info or (None, None)
    problem = _problem(where, image)
    return Item(key, None if problem else image, text, size, mtime, problem)


def _problem(where: str, image: FileImage | RemoteImage) -> str | None:
    """Returns why a picture of this name is not read, or None."""
    ending = ending_of(where)
    if ending in RAW_ENDINGS:
        return RAW_REASON
    return _heic_problem(image) if ending in _HEIC_ENDINGS else None


def _heic_problem(image: FileImage | RemoteImage) -> str | None:
    """Returns what to install if this HEIC file needs a decoder that is missing."""
    beginning = b"\0\0\0\0ftypheic"  # of a remote file the name decides
    if isinstance(image, FileImage):
        try:
            with open(image.path, "rb") as file:  # noqa: PTH123
                beginning = file.read(BEGINNING)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
    decoder = optional_decoder(beginning)
    if decoder is None:
        return None
    try:
        decoder.register()
    except ImportError:
        return f"{decoder.name} needs a decoder: {decoder.remedy}"
    return None
