"""Ends a long run after a step or a batch when a person or the system asks for it."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
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
