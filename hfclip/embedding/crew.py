"""The workers of a run as the scheduler sees them, and what they report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True)
class Joined:
    """A worker is ready, for the first time or after it was replaced."""

    worker: str
    node: str


@dataclass(frozen=True)
class Done:
    """A worker has written its part, and is ready again."""

    worker: str
    part: int
    result: Any = None


@dataclass(frozen=True)
class Failed:
    """A worker could not encode its part, and is ready again.

    Attributes:
        worker: The worker.
        part: The part.
        reason: The reason, as a sentence.
        again: Whether another attempt may succeed.
    """

    worker: str
    part: int
    reason: str
    again: bool = True


@dataclass(frozen=True)
class Lost:
    """A worker has ended, with or without a part. The crew replaces it if it can.

    Attributes:
        worker: The worker.
        reason: The reason, as a sentence.
        node_lost: Whether its node was taken away.
    """

    worker: str
    reason: str
    node_lost: bool = False


Report: TypeAlias = Joined | Done | Failed | Lost


class Crew(Protocol):
    """The workers, as the scheduler sees them."""

    def give(self, worker: str, part: int) -> None:
        """Starts a part on a worker that is ready. Returns at once."""

    def wait(self, seconds: float) -> Sequence[Report]:
        """Returns what has happened. Waits at most this time if nothing has."""

    def now(self) -> float:
        """Returns the time in seconds, from any beginning."""
