"""Ends the program a few seconds after Ctrl-C, even if Python loses the KeyboardInterrupt.

Python raises KeyboardInterrupt in whatever code the main thread runs. It is lost in a `__del__`, in
a weakref callback (imports run many), and in code that catches every exception. It is late if the
main thread waits in native code, such as a DNS lookup.
"""

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

STATUS = 128 + signal.SIGINT
MESSAGE = "Interrupted."

# Seconds after the signal. This is long enough for an interrupted download, which removes its
# unfinished file in milliseconds.
REPEAT_AFTER = 2.0
END_AFTER = 4.0

_left_to_program = threading.Event()


def watch() -> None:
    """Watches for SIGINT until the process ends. Call it once, in the main thread.

    If the program is still running `REPEAT_AFTER` seconds after the signal, raises
    KeyboardInterrupt again. After `END_AFTER` seconds, ends the process with status 130. If the
    parent process ignores SIGINT, as a shell does for background jobs, it stays ignored.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_sigint, args=(reader,), daemon=True).start()


@contextmanager
def left_to_program() -> Iterator[None]:
    """Leaves SIGINT to the program, which ends by itself, for example after a step of training."""
    _left_to_program.set()
    try:
        yield
    finally:
        _left_to_program.clear()


def is_behind(error: BaseException) -> bool:
    """Returns whether an error is a KeyboardInterrupt or was raised while one was handled.

    For example, Python converts a KeyboardInterrupt during the creation of a class to a
    RuntimeError.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt):
            return True
        link = link.__cause__ or link.__context__
    return False


def leave() -> NoReturn:
    """Ends the process with status 130, without waiting for threads.

    With `sys.exit`, Python would kill itself with SIGINT if the KeyboardInterrupt has passed
    through an `exec`.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader or this process has closed it
            stream.flush()
    os._exit(STATUS)


def _end_after_sigint(reader: socket.socket) -> None:
    # Each signal writes its number.
    while reader.recv(1) != bytes([signal.SIGINT]) or _left_to_program.is_set():
        pass
    time.sleep(REPEAT_AFTER)
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # also interrupts a system call of the main thread
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(END_AFTER - REPEAT_AFTER)
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(STATUS)
