"""Keeps the files of the label cache: HF_HOME/hfclip/labels/KEY.safetensors.

The least recently used files are removed when the folder exceeds `LIMIT`.
"""

import logging
import os
import time
import uuid
from pathlib import Path

from huggingface_hub import constants

logger = logging.getLogger(__name__)

# Maximum size of all entries together, in bytes.
LIMIT = 256 * 2**20
# Seconds after which an unfinished file counts as left by a killed process.
_ABANDONED = 3600


def read_entry(key: str) -> bytes | None:
    """Returns the content of an entry, or None if it cannot be read."""
    path = _path(key)
    try:
        return path.read_bytes()
    except OSError as error:
        logger.debug("%s cannot be used: %s", path, error)
        return None


def note_use(key: str) -> None:
    """Marks an entry as the most recently used one."""
    path = _path(key)
    try:
        os.utime(path)
    except OSError as error:  # a read-only home
        logger.debug("%s: its time cannot be updated: %s", path, error)


def write_entry(key: str, content: bytes) -> None:
    """Writes an entry atomically and removes old entries beyond `LIMIT`.

    Raises no error if the entry cannot be written; the labels are then encoded again next time.
    """
    path = _path(key)
    part = path.with_name(f"{key}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _trim(path.parent)
    except OSError as error:
        logger.debug("%s cannot be written: %s", path, error)
    finally:
        _remove(part)


def _path(key: str) -> Path:
    return Path(constants.HF_HOME) / "hfclip" / "labels" / f"{key}.safetensors"


def _trim(folder: Path) -> None:
    """Removes the least recently used entries, and unfinished files of killed processes."""
    for part in folder.glob("*.part"):
        if time.time() - _used(part) > _ABANDONED:
            _remove(part)
    total = 0
    for path in sorted(folder.glob("*.safetensors"), key=_used, reverse=True):
        total += _size(path)
        if total > LIMIT:
            _remove(path)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("%s cannot be removed: %s", path, error)
