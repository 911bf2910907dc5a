"""Turns the paths, captions and keys in lists and tables into items."""

import posixpath
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfclip.data.records import UnusableRowError
from hfclip.data.references import FileImage, RemoteImage, beside
from hfclip.data.remote import FileInfo, list_folder, pinned
from hfclip.data.rows import captions_of, text_of
from hfclip.data.urls import asks_much, is_remote, redacted, without_local_protocol
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location, key_of, picture_item
from hfclip.errors import DataError

# Folders whose listings are kept while a list names files in them.
_FOLDERS_KEPT = 8


@dataclass(frozen=True)
class Roles:
    """The columns in use. None where there is none."""

    image: str | None
    caption: str | None
    key: str | None


@dataclass
class NamedPictures:
    """The pictures that a list or table names.

    Attributes:
        file: The list or table.
    """

    file: Location
    _folders: OrderedDict[str, dict[str, FileInfo] | None] = field(default_factory=OrderedDict)

    def item(self, path: str, key: str | None = None, text: str | None = None) -> Item:
        """Returns the item of a picture that the file names.

        Args:
            path: A path relative to the folder of the file, an absolute path, or a URL.
            key: The key of the item; None for the path.
            text: The caption.
        """
        key = self._key(path) if key is None else key
        try:
            image = beside(self.file.where, path)
            if not isinstance(image, FileImage):
                image = RemoteImage(pinned(image.url))
        except DataError as error:
            return Item(key, None, text, error=str(error))
        if isinstance(image, FileImage):
            return picture_item(key, image, text=text)
        if asks_much(image.url):
            return picture_item(key, image, text=text)
        folder, _, name = image.url.rpartition("/")
        listing = self._listing(folder)
        if listing is not None and name not in listing:
            return Item(key, None, text, error="no such file")
        return picture_item(key, image, listing[name] if listing else None, text)

    def _key(self, path: str) -> str:
        path = path.strip()
        if is_remote(path):
            return redacted(path)
        path = without_local_protocol(path).replace("\\", "/")
        if path.startswith("/"):
            return key_of(posixpath.normpath(path))
        parent = self.file.key.rpartition("/")[0]
        if not self.file.is_remote:
            return key_of(posixpath.normpath(f"{parent}/{path}" if "/" in self.file.key else path))
        return f"{parent}/{key_of(posixpath.normpath(path))}"

    def _listing(self, folder: str) -> dict[str, FileInfo] | None:
        """Returns the files of a remote folder, or None if it cannot be listed."""
        if folder not in self._folders:
            try:
                entries = list_folder(folder)
            except DataError:
                self._folders[folder] = None
            else:
                self._folders[folder] = {
                    entry.name: entry.info for entry in entries if not entry.is_folder
                }
            if len(self._folders) > _FOLDERS_KEPT:
                self._folders.popitem(last=False)
        self._folders.move_to_end(folder)
        return self._folders[folder]


def row_key(cells: Mapping[str, Any], roles: Roles, otherwise: str) -> str:
    """Returns the key of a row.

    Raises:
        UnusableRowError: The key is missing or not text.
    """
    if roles.key is None:
        return otherwise
    value = cells.get(roles.key)
    key = "" if value is None else unicode_text(text_of(value, "key"), "key").strip()
    if not key:
        raise UnusableRowError("the key is empty")
    return key


def row_text(cells: Mapping[str, Any], roles: Roles) -> str | None:
    """Returns the first caption of a row, or None if there is none.

    Raises:
        UnusableRowError: The caption is not text.
    """
    value = None if roles.caption is None else cells.get(roles.caption)
    if value is None or (isinstance(value, list | str) and not value):
        return None
    if isinstance(value, str) and not value.strip():
        return None
    return unicode_text(captions_of(value)[0], "text")


def unicode_text(text: str, what: str) -> str:
    """Returns a text that can be stored.

    Raises:
        UnusableRowError: It has half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableRowError(f"the {what} has characters that are not Unicode") from None
    return text


def text_item(key: str, text: str | None, mtime_ns: int | None) -> Item:
    """Returns the item of a text without white space around it."""
    text = (text or "").strip()
    if not text:
        return Item(key, None, None, mtime_ns=mtime_ns, error="the text is empty")
    return Item(key, None, text, len(text.encode()), mtime_ns)


def path_of(value: object) -> str:
    """Returns the path of a picture in a cell.

    Raises:
        UnusableRowError: The cell holds no path.
    """
    if value is None:
        raise UnusableRowError("the picture is missing")
    return unicode_text(text_of(value, "path of the picture"), "path of the picture")


def changed_with(info: FileInfo) -> int | None:
    """Returns a number that changes with the time or the size of a table."""
    return None if info.mtime_ns is None else info.mtime_ns + (info.size or 0)
