"""Lists the pictures of folders and patterns, on this machine and by URL, without opening them."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hfclip.data.contents import PARQUET_ENDINGS, TAR_ENDINGS
from hfclip.data.references import FileImage, RemoteImage
from hfclip.data.remote import FileInfo, glob_urls, kind_of, list_folder
from hfclip.data.tables import TABLE_ENDINGS
from hfclip.data.tars import expand_braces
from hfclip.data.urls import is_remote
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location, ending_of, key_of, locate, picture_item
from hfclip.errors import DataError
from hfclip.images.formats import PICTURE_ENDINGS, RAW_ENDINGS

_PICTURES = PICTURE_ENDINGS | RAW_ENDINGS
_has_magic = re.compile(r"[*?\[]").search


def is_picture_name(name: str) -> bool:
    """Returns whether a file has the ending of a picture, or of a RAW file of a camera."""
    return ending_of(name) in _PICTURES


def folder_items(folder: Location, *, may_be_empty: bool = False) -> Iterator[Item]:
    """Yields the pictures in and below a folder, sorted by path.

    Hidden files and folders, links to folders and files without the ending of a picture are left
    out. A folder inside that cannot be listed gives an item with an error.

    Args:
        folder: The folder.
        may_be_empty: Whether a folder without a picture is accepted.

    Raises:
        DataError: The folder holds no picture or cannot be listed.
    """
    others: list[str] = []
    walk = _remote_items(folder, others) if folder.is_remote else _local_items(folder, others)
    first = next(walk, None)
    if first is not None:
        yield first
        yield from walk
    elif not may_be_empty:
        raise DataError(_empty(folder, others))


def expand(source: str) -> Iterator[tuple[Location, FileInfo | None]]:
    """Yields the files and folders of a pattern, sorted by name for each alternative in braces.

    Raises:
        DataError: No file matches, or a name that the braces stand for does not exist.
    """
    is_any = False
    for name in expand_braces(source):
        if _has_magic(name):
            found = _glob_remote(name) if is_remote(name) else _glob_local(name)
        else:
            found = iter([(_existing(name, source), None)])
        for entry in found:
            is_any = True
            yield entry
    if not is_any:
        raise DataError(f"No file matches {source}.")


def is_pattern(source: str) -> bool:
    """Returns whether a source that does not exist itself is a pattern."""
    return bool(_has_magic(source)) or "{" in source


def exists(location: Location) -> str | None:
    """Returns "file" or "folder", or None if there is neither.

    Raises:
        DataError: The request for a URL fails.
    """
    if location.is_remote:
        return kind_of(location.where)
    path = Path(location.where)
    return "folder" if path.is_dir() else "file" if path.exists() else None


def _existing(name: str, source: str) -> Location:
    location = locate(name)
    if exists(location) is None:
        raise DataError(f"{name} does not exist; {source} stands for it among others.")
    return location


def _glob_local(pattern: str) -> Iterator[tuple[Location, None]]:
    expanded = os.path.expanduser(pattern)  # noqa: PTH111
    for name in sorted(glob.glob(expanded, recursive=True)):  # noqa: PTH207
        if "**" in pattern and Path(name).is_dir():  # it matches the files in these folders too
            continue
        yield locate(name), None


def _glob_remote(pattern: str) -> Iterator[tuple[Location, FileInfo | None]]:
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if _has_magic(part))
    folder, rest = locate("/".join(parts[:first]) + "/"), "/".join(parts[first:])
    shows_hidden = rest.startswith(".") or "/." in rest
    for path, is_folder, info in glob_urls(folder.where, rest):
        is_hidden = any(part.startswith(".") for part in path.split("/"))
        if (is_hidden and not shows_hidden) or (is_folder and "**" in rest):
            continue
        yield folder.inside(path), None if is_folder else info


def _local_items(folder: Location, others: list[str]) -> Iterator[Item]:
    for name in _sorted_names(folder.where, others):
        inside = folder.inside(name.rstrip("/"))
        if not name.endswith("/"):
            yield picture_item(inside.key, FileImage(inside.where))
            continue
        try:
            yield from _local_items(inside, others)
        except OSError as error:
            reason = error.strerror or error
            yield Item(inside.key, None, None, error=f"the folder cannot be listed ({reason})")


def _sorted_names(folder: str, others: list[str]) -> list[str]:
    """Returns the pictures in a folder, and the folders with a slash. This sorts as paths do."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(f"{entry.name}/")
            elif not is_picture_name(entry.name):
                _note(others, entry.path)
            elif entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
                names.append(entry.name)
    return sorted(names)


def _remote_items(folder: Location, others: list[str]) -> Iterator[Item]:
    entries = [(e.name + "/" * e.is_folder, e.info) for e in list_folder(folder.where)]
    for name, info in sorted(entries):
        inside = folder.inside(name.rstrip("/"))
        if name.startswith("."):
            continue
        if name.endswith("/"):
            yield from _remote_items(inside, others)
        elif is_picture_name(name):
            yield picture_item(inside.key, RemoteImage(inside.where), info)
        else:
            _note(others, inside.where)


def _note(others: list[str], path: str) -> None:
    """Notes the first file with inputs of another kind, for the error."""
    endings = (*TAR_ENDINGS, *PARQUET_ENDINGS, *TABLE_ENDINGS)
    if not others and path.lower().endswith(endings):
        others.append(path)


def _empty(folder: Location, others: list[str]) -> str:
    if not others:
        return f"{folder.key} holds no picture."
    name = key_of(others[0]).rpartition("/")[2]
    pattern = f"{folder.key.rstrip('/')}/**/*{ending_of(name)}"
    return f"{folder.key} holds no picture, but {name}. Give these files as '{pattern}'."
