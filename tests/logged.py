"""Collects what the code of a test logs.

pytest's plugin for it looks at all loggers six times a test. The packages that the test processes
import have 500, so that takes a millisecond each time a test runs.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Log(logging.Handler):
    """The messages that reached the root logger, with their tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))

    @property
    def text(self) -> str:
        return "\n".join(self.messages)

    @contextmanager
    def at_level(self, level: int) -> Iterator[None]:
        """Also collects what is logged from this level on."""
        root = logging.getLogger()
        before = root.level
        root.setLevel(level)
        try:
            yield
        finally:
            root.setLevel(before)


@pytest.fixture
def log() -> Iterator[Log]:
    collected = Log()
    logging.getLogger().addHandler(collected)
    yield collected
    logging.getLogger().removeHandler(collected)
