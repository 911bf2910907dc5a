"""Writes folders and files as a whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hfclip.errors import ConfigError


@contextmanager
def written_whole(folder: Path, replaces: Collection[str] = ()) -> Iterator[Path]:
    """Yields a new folder beside `folder`, and moves its files to `folder` at the end.

    An error or an interruption before the end leaves `folder` unchanged. Files in `folder` with
    other names stay.

    Args:
        folder: The folder to write.
        replaces: The names of optional files that are removed from `folder` if the new folder does
            not have them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.part")
    part.mkdir()
    try:
        yield part
        if not folder.exists():
            part.rename(folder)
        else:
            written = {path.name for path in part.iterdir()}
            for path in sorted(part.iterdir()):
                path.replace(folder / path.name)
            for name in replaces:
                if name not in written:
                    (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file: synced to the disk under another name, then renamed.

    Line ends are written as they are. An error or an interruption leaves `path` unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Waits until a file or a folder is on the disk. Windows has no such call for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free(folder: Path, *, force: bool) -> None:
    """Raises an error if a new folder would overwrite files.

    Raises:
        ConfigError: The path is a file, or a folder that is not empty and `force` is False.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file. Name a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ConfigError(
            f"{folder} already holds {sorted(path.name for path in folder.iterdir())[0]}. Name a "
            "folder that is new or empty, or replace the files of the same names with --force "
            "(force=True in Python)."
        )
