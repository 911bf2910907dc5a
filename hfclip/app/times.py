"""Measures how long the last answers took."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

# Answers that are kept.
_KEPT = 500


class Row(NamedTuple):
    """The times of the last answers of one kind, in seconds."""

    kind: str
    number: int
    median: float
    longest: float


class Watch:
    """Measures the steps of one answer.

    Attributes:
        steps: The seconds of each step, by its name.
    """

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds the time of a `with` block to a step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - begun
            self.steps[name] = self.steps.get(name, 0.0) + taken

    @property
    def sentence(self) -> str:
        """The times in words, such as "34 ms: reading 12 ms, encoding the picture 22 ms"."""
        parts = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in self.steps.items())
        return f"{in_words(sum(self.steps.values()))}: {parts}"


class Times:
    """The times of the last answers of a page. It keeps no pictures and no texts."""

    def __init__(self) -> None:
        self._last: deque[tuple[str, float]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def add(self, kind: str, watch: Watch) -> None:
        """Adds an answer."""
        with self._lock:
            self._last.append((kind, sum(watch.steps.values())))

    def rows(self) -> list[Row]:
        """Returns a row for each kind of answer, in alphabetical order."""
        with self._lock:
            last = list(self._last)
        kinds = sorted({kind for kind, _ in last})
        seconds = {kind: [value for name, value in last if name == kind] for kind in kinds}
        return [
            Row(kind, len(values), median(values), max(values)) for kind, values in seconds.items()
        ]


def in_words(seconds: float) -> str:
    """Returns a time such as "34 ms" or "1.2 s"."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
