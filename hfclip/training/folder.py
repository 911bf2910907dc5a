"""The folder of a training: one process at a time, and one training for ever."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hfclip.atomic import synced, write_text
from hfclip.errors import TrainingError
from hfclip.training.checkpoints import clear_unfinished, remove_checkpoints

CHECKPOINTS = "checkpoints"
_TRAINING_FILE = "training.json"
_LOCK_FILE = ".lock"


@contextmanager
def opened(folder: Path, identity: Mapping[str, Any]) -> Iterator[bool]:
    """Opens the folder of a training, new or begun, and yields whether it is finished.

    No other process can train in the folder meanwhile. The lock ends with the process.

    Args:
        folder: The folder of the training.
        identity: What decides the result: see `hfclip.training.checkpoints.State`.

    Raises:
        TrainingError: The folder holds something else or a training that differs, or another
            process trains in it.
    """
    if _prepare(folder, identity):
        yield True
        return
    lock = FileLock(folder / CHECKPOINTS / _LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TrainingError(
            f"Another process trains in {folder}. Wait for its end, or name another folder."
        ) from None
    try:
        clear_unfinished(folder / CHECKPOINTS)
        yield _prepare(folder, identity)  # the process that had the lock may have finished
    finally:
        lock.release()


def _prepare(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Notes the identity in a new folder, or compares it, and returns whether it is finished."""
    path = folder / CHECKPOINTS / _TRAINING_FILE
    if not path.is_file():
        _check_empty(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, identity, finished=False)
        return False
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        earlier, finished = values["identity"], bool(values["finished"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error}). Remove {folder}, or name another folder."
        ) from error
    differing = differences(earlier, identity)
    if differing:
        raise TrainingError(
            f"{folder} holds another training: {'; '.join(differing)}. Give the same base, data "
            "and settings to go on with it, or name another folder."
        )
    return finished


def finish(folder: Path, identity: Mapping[str, Any]) -> None:
    """Notes that a training is finished, and removes its checkpoints."""
    for path in folder.iterdir():
        synced(path)
    _write(folder / CHECKPOINTS / _TRAINING_FILE, identity, finished=True)
    remove_checkpoints(folder / CHECKPOINTS)


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two identities, in words."""
    words = {
        "base": "its base is another",
        "data": "its data is other",
        "keep": "its --keep differs",
    }
    found = [words[name] for name in words if earlier.get(name) != now.get(name)]
    theirs, ours = dict(earlier.get("settings", {})), dict(now.get("settings", {}))
    return found + [
        f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def _check_empty(folder: Path) -> None:
    if folder.is_file():
        raise TrainingError(f"{folder} is a file. Name a folder that is new or empty.")
    others = folder.is_dir() and sorted(
        path.name for path in folder.iterdir() if path.name != CHECKPOINTS
    )
    if others:
        raise TrainingError(
            f"{folder} holds {others[0]} and no training of hfclip. Name a folder that is new or "
            "empty."
        )


def _write(path: Path, identity: Mapping[str, Any], *, finished: bool) -> None:
    write_text(path, json.dumps({"identity": identity, "finished": finished}, indent=2) + "\n")
