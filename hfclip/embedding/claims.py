"""Locks on object storage, which has no locks of its own.

A process that wants a lock writes a small file, its claim, into the folder of the lock, and then
lists the folder. It holds the lock if no claim of another process excludes it; otherwise it removes
its claim and tries again. Of two processes that try at once, at least one sees the claim of the
other, so both never hold the lock. This needs a listing that shows files as soon as they are
written, which Amazon S3, Google Cloud Storage, Azure and MinIO guarantee, and no other feature.

A holder renews its claim every minute. A claim that was not renewed for ten minutes, by the clock
of the server, is abandoned and is removed by the next process. The claim of a process that has
ended on this machine is removed at once.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hfclip.data.remote_folder import RemoteFolder
from hfclip.errors import DataError

# Seconds after which a claim is renewed, and after which one counts as abandoned.
_RENEWAL = 60.0
_ABANDONED = 600.0
# Seconds after which a process says what it waits for, and the longest pause between two tries.
_SILENT = 5.0
_PAUSE = 2.0
_EXCLUSIVE, _SHARED = "exclusive", "shared"


@dataclass
class _Held:
    """A claim of this process.

    Attributes:
        name: The name of its file.
        is_shared: Whether other shared holders are accepted.
        renewed: When it was written last, in seconds since 1970.
        ended: Is set when it need not be renewed any more.
        writing: Is held while it is written or removed.
    """

    name: str
    is_shared: bool
    renewed: float
    ended: threading.Event
    writing: threading.Lock


class Claim:
    """A lock on object storage, shared or exclusive, with the methods of `locks.Lock`."""

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._held: _Held | None = None
        self._other = ""

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def take(self, *, shared: bool = False, patience: float = 0.0) -> bool:
        """Takes the lock, or changes a lock that is held, and returns whether that succeeded.

        Args:
            shared: Whether other shared holders are accepted.
            patience: How long to wait for other holders, in seconds.

        Raises:
            DataError: A request fails, or a lock that was held has been lost.
        """
        if self._held is not None and self._held.is_shared == shared:
            self.check()
            return True
        began, told = time.monotonic(), False
        while not self._try(shared):
            waited = time.monotonic() - began
            if waited >= patience:
                return False
            if waited >= _SILENT and not told:
                told = True
                warnings.warn(
                    f"Waits for {self._folder.url_of(self._name)}, which {self.holder()} holds."
                    f"{self.advice()}",
                    stacklevel=2,
                )
            # By chance, so that two processes do not try at the same time again.
            time.sleep(min(random.uniform(0.1, _PAUSE), patience - waited))  # noqa: S311
        return True

    def release(self) -> None:
        """Releases the lock. Does nothing if it is not held."""
        held, self._held = self._held, None
        if held is not None:
            with held.writing:
                held.ended.set()
            self._folder.remove(held.name)

    def holder(self) -> str:
        """Describes the process that holds the lock, for errors."""
        facts = self._facts(self._other) if self._other else {}
        return str(facts.get("holder", "another process"))

    def advice(self) -> str:
        """Returns how a lock of a process that is dead ends, as a sentence after a space."""
        if not self._other:
            return ""
        return (
            f" If that process is dead, its lock ends {_ABANDONED / 60:.0f} minutes after its last "
            f"sign of life; to end it now, delete {self._folder.url_of(self._other)}."
        )

    def check(self) -> None:
        """Checks that the lock has not been lost.

        Raises:
            DataError: This process or its connection was stopped for too long.
        """
        if self._held is not None and time.time() - self._held.renewed > _ABANDONED:
            raise DataError(
                f"The lock {self._folder.url_of(self._name)} could not be renewed for "
                f"{_ABANDONED / 60:.0f} minutes, so another process may hold it. Run the same "
                "command again."
            )

    def _try(self, shared: bool) -> bool:
        kind = _SHARED if shared else _EXCLUSIVE
        before = self._held
        name = f"{self._name}/{kind}-{uuid.uuid4().hex}"
        self._folder.write(name, self._text())
        held = _Held(name, shared, time.time(), threading.Event(), threading.Lock())
        own = {name} if before is None else {name, before.name}
        try:
            self._other = self._excluding(name, own, shared)
        except BaseException:
            self._folder.remove(name)
            raise
        self.release()
        if self._other:
            self._folder.remove(name)
            return False
        self._held = held
        threading.Thread(target=self._renew, args=(held,), daemon=True).start()
        return True

    def _excluding(self, name: str, own: set[str], shared: bool) -> str:
        """Returns the name of a claim that excludes the own one, or "" if there is none."""
        found = self._folder.files(self._name)
        files = {f"{self._name}/{short}": file for short, file in found.items()}
        if name not in files:
            raise DataError(
                f"{self._folder.url_of(self._name)} does not list a file that was written just "
                "now, so hfclip cannot keep two runs apart there. Use another storage."
            )
        now = files[name].changed
        for other, file in files.items():
            is_shared = other.startswith(f"{self._name}/{_SHARED}-")
            if other in own or (shared and is_shared):
                continue
            if _is_abandoned(file.changed, now) or _has_ended(self._facts(other)):
                self._folder.remove(other)
                continue
            return other
        return ""

    def _text(self) -> bytes:
        facts = {
            "holder": f"process {os.getpid()} on {socket.gethostname()}, since {self._since}",
            "machine": _machine(),
            "process": os.getpid(),
            "started": _started(os.getpid()),
        }
        return json.dumps(facts).encode()

    def _facts(self, name: str) -> dict[str, Any]:
        """Returns what a claim says about its process; nothing if it is gone or damaged."""
        try:
            facts = json.loads(self._folder.read(name) or b"{}")
        except ValueError:
            return {}
        return facts if isinstance(facts, dict) else {}

    def _renew(self, held: _Held) -> None:
        """Writes the claim again until it is released. A failed request is tried again."""
        while not held.ended.wait(_RENEWAL):
            with held.writing:
                # Another process may hold the lock after such a long time.
                if held.ended.is_set() or time.time() - held.renewed > _ABANDONED:
                    return
                try:
                    self._folder.write(held.name, self._text())
                except DataError:
                    continue
                held.renewed = time.time()


def _is_abandoned(changed: float | None, now: float | None) -> bool:
    """Returns whether a claim is too old. A server that tells no times keeps all claims."""
    return changed is not None and now is not None and now - changed > _ABANDONED


def _machine() -> str | None:
    """Returns what identifies this machine since it started, or None where that is not known.

    Processes in different containers do not see each other, so the container is part of it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return None


def _started(process: int) -> str | None:
    """Returns when a process started, or None if there is none, or if that is not known."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def _has_ended(facts: dict[str, Any]) -> bool:
    """Returns whether a claim is of a process on this machine that has ended."""
    machine, process, started = (facts.get(name) for name in ("machine", "process", "started"))
    if machine is None or started is None or machine != _machine():
        return False
    return isinstance(process, int) and _started(process) != started
