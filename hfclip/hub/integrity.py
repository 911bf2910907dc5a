"""Compares files with their published hashes, and records the result.

Hashing a model takes longer than loading it. A verified file is not hashed again while its device,
inode, size, modification time and change time stay the same. The kernel sets the change time, so it
changes even if a program restores the modification time of a modified file.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import constants

logger = logging.getLogger(__name__)

_CHUNK = 4 * 2**20
_WORTH_A_BAR = 2**29


class Digest(NamedTuple):
    """A published hash: the sha256 of a large file, or the git blob id of a small one."""

    kind: Literal["sha256", "git"]
    value: str


class Record(NamedTuple):
    """The recorded hash of a file, and the file's state when it was hashed."""

    digest: Digest
    state: tuple[int, ...]


def digest_named(value: str) -> Digest | None:
    """Returns the hash in a name of the cache, with its kind from its length, or None."""
    kinds: dict[int, Literal["sha256", "git"]] = {64: "sha256", 40: "git"}
    kind = kinds.get(len(value))
    is_hex = all(character in "0123456789abcdef" for character in value)
    return Digest(kind, value) if kind and is_hex else None


def compute(path: Path, kind: Literal["sha256", "git"]) -> str:
    """Hashes a file, with a progress bar for a large file on a terminal."""
    from tqdm import tqdm  # noqa: PLC0415  # a recorded hash needs no bar

    size = path.stat().st_size
    hasher = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size)  # noqa: S324
    bar = tqdm(
        total=size,
        desc=f"verifying {path.name}",
        unit="B",
        unit_scale=True,
        disable=None if size > _WORTH_A_BAR else True,
    )
    with path.open("rb", buffering=0) as file, bar:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            bar.update(len(chunk))
    return hasher.hexdigest()


def matches(path: Path, digest: Digest, *, again: bool = False) -> bool:
    """Returns whether a file has a hash, from its record if there is one and `again` is False."""
    before = _state(path)
    if not again and recall(path) == Record(digest, before):
        return True
    if compute(path, digest.kind) != digest.value:
        return False
    if _state(path) == before:  # else another program wrote to it
        note(_record_file(path), json.dumps([*digest, *before]))
    return True


def identify(path: Path, names: Iterable[str]) -> Digest | None:
    """Hashes a file and finds its hash among names; records it like `matches`.

    Args:
        path: The file.
        names: File names, some of which are hashes.

    Returns:
        The file's hash if it is among the names, else None.
    """
    named = {digest for name in names if (digest := digest_named(name))}
    before = _state(path)
    for kind in ("sha256", "git"):
        if not any(digest.kind == kind for digest in named):
            continue
        digest = Digest(kind, compute(path, kind))
        if digest in named:
            if _state(path) == before:
                note(_record_file(path), json.dumps([*digest, *before]))
            return digest
    return None


def is_verified(path: Path) -> bool:
    """Returns whether a file was verified and has not changed since, without hashing it."""
    record = recall(path)
    return record is not None and record.state == _state(path)


def recall(path: Path) -> Record | None:
    """Returns the record of a file, or None."""
    try:
        kind, value, *state = json.loads(_record_file(path).read_bytes())
        return Record(Digest(kind, value), tuple(state))
    except (OSError, ValueError, TypeError):
        return None


def note(path: Path, text: str) -> None:
    """Writes a text file atomically. A failure is only logged: a record only saves time."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text)
        unfinished.replace(path)
    except OSError as error:
        logger.debug("%s could not be written: %s", path, error)


def _record_file(path: Path) -> Path:
    """Returns the record's path, outside the Hub's cache because its client owns that."""
    name = hashlib.sha256(os.fsencode(Path(os.path.abspath(path)))).hexdigest()  # noqa: PTH100
    return Path(constants.HF_HOME) / "hfclip" / "verified" / name


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
