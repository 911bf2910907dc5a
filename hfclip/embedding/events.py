"""What the scheduler yields: the course of a run on several workers."""

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Given:
    """A part was given to a worker. `copy` says whether another worker has it, too."""

    worker: str
    part: int
    copy: bool


@dataclass(frozen=True)
class Finished:
    """A part is complete.

    Attributes:
        worker: The worker that was first.
        part: The part.
        result: What the worker reported.
        seconds: The time since this worker got the part.
    """

    worker: str
    part: int
    result: Any
    seconds: float


@dataclass(frozen=True)
class Repeated:
    """A part was encoded once more, because several workers had it."""

    worker: str
    part: int
    seconds: float


@dataclass(frozen=True)
class Retried:
    """An attempt has failed, and the part will be tried again.

    Attributes:
        worker: The worker.
        part: The part.
        reason: The reason.
        attempt: The number of attempts that have failed.
        pause: The time before the next attempt, in seconds.
        seconds: The time that the attempt took.
    """

    worker: str
    part: int
    reason: str
    attempt: int
    pause: float
    seconds: float


@dataclass(frozen=True)
class GivenUp:
    """A part is not tried again in this run."""

    part: int
    reason: str
    attempts: int


@dataclass(frozen=True)
class Resting:
    """A worker or a node gets no part for some seconds, because it failed several times."""

    name: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """The run stops, because several parts in succession were given up."""

    reason: str


@dataclass(frozen=True)
class Tick:
    """The state after some reports.

    Attributes:
        workers: The workers that are known.
        busy: Those with a part.
        resting: Those that rest.
        waiting: The parts that no worker has.
        running: The parts that a worker has.
    """

    workers: int
    busy: int
    resting: int
    waiting: int
    running: int


Event: TypeAlias = Given | Finished | Repeated | Retried | GivenUp | Resting | Stopped | Tick
