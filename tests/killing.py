"""Kills a process at an operation on files or after a time, for tests of what a kill leaves."""

import os
import select
import signal
from collections.abc import Callable, Iterable
from typing import Any

# Replaces a function by one that counts its calls.
Counting = Callable[[Callable[..., Any]], Callable[..., Any]]


def killer(number: int) -> Counting:
    """Returns what replaces functions, so that the call with this number kills the process.

    The calls of all functions that it replaces count, from 1.
    """
    left = [number]

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    return killing


def replace(operations: Iterable[tuple[Any, str]], killing: Counting) -> None:
    """Replaces functions, each given as an object and the name of its attribute."""
    for owner, name in operations:
        setattr(owner, name, killing(getattr(owner, name)))


def end_after(process: int, seconds: float) -> None:
    """Waits for the end of a child process, and kills it after a time. Does not reap it."""
    watched = os.pidfd_open(process)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            os.kill(process, signal.SIGKILL)
    finally:
        os.close(watched)
