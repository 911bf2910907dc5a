"""Locks between processes. The system releases them when a process ends, also if it is killed."""

import errno
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO

# Errors of file systems without locks: the program goes on without them.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
# Windows locks ranges of bytes: a shared holder locks one of them, an exclusive holder all. They
# lie behind the text, because Windows does not let others read a locked range.
_FIRST, _SHARES = 2**20, 256
_PAUSE = 0.05


class Lock:
    """A lock on a file, shared or exclusive, that is released at the end of a `with` block.

    Two locks on one file exclude each other within a process, too. A fork of the process holds
    the lock with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Lock":
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

        Where the file system has no locks it returns True.

        Args:
            shared: Whether other shared holders are accepted.
            patience: How long to wait for other holders, in seconds.

        Raises:
            OSError: The file of the lock cannot be written.
        """
        end = time.monotonic() + patience
        while not self._try(shared):
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE)
        self._sign()
        return True

    def release(self) -> None:
        """Releases the lock. Does nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def holder(self) -> str:
        """Describes the process that took the lock last, for errors."""
        try:
            return self._path.read_text(encoding="utf-8").strip() or "another process"
        except (OSError, UnicodeDecodeError):
            return "another process"

    def advice(self) -> str:
        """Returns how the lock of a dead process ends: "", because the system ends it."""
        return ""

    def check(self) -> None:
        """Checks that the lock has not been lost, which the system never lets happen."""

    def _try(self, shared: bool) -> bool:
        if os.name == "nt":  # it cannot change a lock that is held
            self.release()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("r+b" if self._path.exists() else "w+b", buffering=0)
        try:
            _lock(self._file.fileno(), shared)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return True
            self.release()
            if error.errno in _HELD:
                return False
            raise
        return True

    def _sign(self) -> None:
        if self._file is None:
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode()
        self._file.seek(0)
        self._file.write(text)
        self._file.truncate(len(text))


def _lock(descriptor: int, shared: bool) -> None:
    if os.name == "nt":
        _lock_on_windows(descriptor, shared)
    else:
        import fcntl  # noqa: PLC0415  # Windows has no such module

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _lock_on_windows(descriptor: int, shared: bool) -> None:
    """Locks one byte of the range, or the whole range."""
    import msvcrt  # noqa: PLC0415  # only Windows has this module

    locking, kind = msvcrt.locking, msvcrt.LK_NBLCK  # type: ignore[attr-defined,unused-ignore]
    if not shared:
        os.lseek(descriptor, _FIRST, os.SEEK_SET)
        locking(descriptor, kind, _SHARES)
        return
    for place in range(_SHARES):
        os.lseek(descriptor, _FIRST + place, os.SEEK_SET)
        try:
            locking(descriptor, kind, 1)
        except OSError:
            if place == _SHARES - 1:
                raise
        else:
            return
