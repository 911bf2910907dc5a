"""Locks between processes."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hfclip.embedding import locks
from hfclip.embedding.locks import Lock

HOLD = (
    "import sys, time; from pathlib import Path; from hfclip.embedding.locks import Lock\n"
    "lock = Lock(Path(sys.argv[1])); print(lock.take(shared=sys.argv[2] == 'shared'), flush=True)\n"
    "time.sleep(60)\n"
)


def holding(path: Path, kind: str = "exclusive") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_lock_that_another_process_holds_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lock"
    process = holding(path)
    with Lock(path) as lock:
        assert not lock.take()
        assert not lock.take(shared=True)
        assert re.fullmatch(
            rf"process {process.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", lock.holder()
        )
        end(process)
        assert lock.take()
        assert lock.holder().startswith(f"process {os.getpid()} on ")


def test_shared_locks_exclude_only_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holding(path, "shared")
    with Lock(path) as one, Lock(path) as other:
        assert one.take(shared=True)
        assert not other.take()
        one.release()
        assert not other.take()
        end(process)
        assert other.take()
        assert not one.take(shared=True)


def test_a_lock_changes_between_exclusive_and_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as one, Lock(path) as other:
        assert one.take()
        assert not other.take(shared=True)
        assert one.take(shared=True)
        assert other.take(shared=True)
        assert not one.take()
        other.release()
        assert one.take()


def test_a_process_waits_for_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as one, Lock(path) as other:
        assert one.take()
        began = time.monotonic()
        assert not other.take(patience=0.2)
        assert time.monotonic() - began >= 0.2
        timer = threading.Timer(0.2, one.release)
        timer.start()
        assert other.take(patience=30)
        timer.join()


def test_without_locks_in_the_file_system_the_program_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        def raising(descriptor: int, shared: bool) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(locks, "_lock", raising)

    with Lock(tmp_path / "lock") as lock:
        fail(errno.ENOLCK)
        assert lock.take()
        fail(errno.EWOULDBLOCK)
        assert not lock.take()
        fail(errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            lock.take()


def test_a_holder_that_left_no_name_is_another_process(tmp_path: Path) -> None:
    assert Lock(tmp_path / "lock").holder() == "another process"
    (tmp_path / "lock").write_bytes(b"\xff")
    assert Lock(tmp_path / "lock").holder() == "another process"
