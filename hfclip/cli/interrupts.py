"""Ends the program a few seconds after Ctrl-C, also where Python loses the KeyboardInterrupt.

Python raises KeyboardInterrupt wherever the main thread is. It is lost if that is a `__del__` or a
weakref callback (imports run many), or code that catches everything; and it comes late if the main
thread waits in native code, as in a DNS lookup.
"""

import _thread
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

STATUS = 128 + signal.SIGINT
MESSAGE = "Interrupted."

# Seconds after the signal. An interrupted download removes its unfinished file in milliseconds.
REPEAT_AFTER = 2.0
END_AFTER = 4.0


def watch() -> None:
    """Watches for SIGINT until the process ends; call it once, in the main thread.

    Where the program is still running `REPEAT_AFTER` seconds after the signal, KeyboardInterrupt is
    raised again; after `END_AFTER` seconds the process ends with status 130. A SIGINT that the
    parent process has switched off, as a shell does for background jobs, stays off.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_sigint, args=(reader,), daemon=True).start()


def is_behind(error: BaseException) -> bool:
    """Returns whether an error is a KeyboardInterrupt, or was raised while one was handled.

    Python itself turns a KeyboardInterrupt into a RuntimeError where it interrupts the making of a
    class.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt):
            return True
        link = link.__cause__ or link.__context__
    return False


def leave() -> NoReturn:
    """Ends the process with status 130, without waiting for threads.

    `sys.exit` would let Python kill itself with SIGINT instead, if the KeyboardInterrupt has passed
    through an `exec`.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed by the reader, or closed here
            stream.flush()
    os._exit(STATUS)


def _end_after_sigint(reader: socket.socket) -> None:
    while reader.recv(1) != bytes([signal.SIGINT]):  # each signal writes its number
        pass
    time.sleep(REPEAT_AFTER)
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # wakes the main thread from a system call as well
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(END_AFTER - REPEAT_AFTER)
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(STATUS)
