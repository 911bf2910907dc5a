"""Decides when Ctrl-C and SIGTERM take effect: after a step or a batch, or after a tensor."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds after a Ctrl-C in which another one is the same: `torchrun` repeats it to its processes.
_SAME = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_request(unit: str = "step", message: str | None = None) -> Iterator[threading.Event]:
    """Yields an event that is set by Ctrl-C and by SIGTERM, which then do not interrupt.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python has no
    signals, the event is never set.

    Args:
        unit: The unit of work after which the run ends, for the message.
        message: What happens instead, as a sentence.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and first and now - first[0] > _SAME:
            signal.default_int_handler(number, frame)
        if not first:
            first.append(now)
            text = message or f"Ends after this {unit}."
            sys.stderr.write(f"\n{text} Press Ctrl-C again to end at once.\n")
        event.set()

    earlier: dict[signal.Signals, Any] = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as for jobs in the background
            earlier[number] = signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_deferred() -> Iterator[Callable[[], None]]:
    """Defers Ctrl-C in a block whose code would lose the KeyboardInterrupt.

    Yields a function that handles a Ctrl-C that has come. The end of the block does so, too.
    Outside the main thread, and if the handler is not written in Python, nothing is deferred.
    """
    handler = signal.getsignal(signal.SIGINT)
    received: list[tuple[int, FrameType | None]] = []

    def deliver() -> None:
        if received and callable(handler):
            handler(*received.pop())

    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield deliver
        return
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield deliver
    finally:
        signal.signal(signal.SIGINT, handler)
        deliver()
