"""Simulates `hfclip embed --engine ray` on 1,000 workers, with failures.

    python -m benchmarks.cluster

prints a table of scenarios. The scheduler is the real one; see `benchmarks.simulation` for what is
simulated. Options change the size, or describe a scenario of your own.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import click

from benchmarks.simulation import Cluster, SimulatedCrew
from hfclip.embedding.scheduling import (
    Event,
    Finished,
    Given,
    GivenUp,
    Policy,
    Repeated,
    Retried,
    Stopped,
    run_parts,
)

_HOUR, _MINUTE = 3_600.0, 60.0

# Measured on 2 cores of an AMD EPYC of family 25 (results/encode.md, results/preprocess.md):
# ViT-B/32 in bfloat16 with batches of 16, and JPEG files of 640 x 480 decoded on both cores.
ENCODED, DECODED = 45.7, 2 * 550.0
RATE = 1 / (1 / ENCODED + 1 / DECODED)
"""Images a second of a worker with 2 cores, which decode and compute in turns."""

PARTS, PART_SIZE = 20_000, 5_000


@dataclass(frozen=True)
class Job:
    """What is simulated.

    Attributes:
        cluster: The cluster and its failures.
        parts: The number of parts.
        part_size: The number of inputs of a part.
        policy: The limits of the scheduler.
        restarts: When the process of the scheduler is killed and started again, in seconds.
    """

    cluster: Cluster
    parts: int = PARTS
    part_size: int = PART_SIZE
    policy: Policy = Policy()
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        hours: The time until all parts were complete or given up.
        ideal_hours: The time without starts, uploads and failures, on workers of average speed.
        complete: The number of complete parts.
        given_up: The number of parts that were given up.
        pending: The number of parts that are left, because the run stopped.
        attempts: The number of times that a part was given to a worker.
        copies: Those of them while another worker had the part.
        twice: The number of parts that two workers completed.
        most_attempts: The largest number of attempts of a complete part.
        useful_hours: Worker-hours of attempts whose part was used.
        lost_hours: Worker-hours of other attempts.
        idle_hours: Worker-hours without a part: starts, rests, absence, and the wait at the end.
        stopped: Why the run stopped before its end, or None.
    """

    hours: float
    ideal_hours: float
    complete: int
    given_up: int
    pending: int
    attempts: int
    copies: int
    twice: int
    most_attempts: int
    useful_hours: float
    lost_hours: float
    idle_hours: float
    stopped: str | None


class _Tally:
    """Counts events."""

    def __init__(self, parts: int) -> None:
        self.attempts = dict.fromkeys(range(parts), 0)
        self.complete: set[int] = set()
        self.given_up: set[int] = set()
        self.copies = self.twice = 0
        self.useful = 0.0
        self.stopped: str | None = None

    def add(self, event: Event) -> None:
        """Counts an event."""
        if isinstance(event, Given):
            self.attempts[event.part] += 1
            self.copies += event.copy
        elif isinstance(event, Finished):
            if event.part in self.complete:
                raise RuntimeError(f"part {event.part} was finished twice")
            self.complete.add(event.part)
            self.useful += event.seconds
        elif isinstance(event, Repeated):
            self.twice += 1
        elif isinstance(event, GivenUp):
            self.given_up.add(event.part)
        elif isinstance(event, Stopped):
            self.stopped = event.reason


def simulate(job: Job) -> Outcome:
    """Simulates a run from the first start to the last part."""
    sizes = dict.fromkeys(range(job.parts), job.part_size)
    crew = SimulatedCrew(job.cluster, sizes)
    tally = _Tally(job.parts)
    for end in (*job.restarts, math.inf):
        tally.given_up.clear()  # another start tries them again
        rest = {part: size for part, size in sizes.items() if part not in tally.complete}
        for event in run_parts(rest, crew, job.policy):
            tally.add(event)
            if crew.now() >= end:
                crew.end()
                break
        else:
            break
    crew.end()  # counts the work on second attempts that nobody needs any more
    total = job.cluster.workers * crew.now()
    return Outcome(
        hours=crew.now() / _HOUR,
        ideal_hours=job.parts * job.part_size / job.cluster.rate / job.cluster.workers / _HOUR,
        complete=len(tally.complete),
        given_up=len(tally.given_up),
        pending=job.parts - len(tally.complete) - len(tally.given_up),
        attempts=sum(tally.attempts.values()),
        copies=tally.copies,
        twice=tally.twice,
        most_attempts=max((tally.attempts[part] for part in tally.complete), default=0),
        useful_hours=tally.useful / _HOUR,
        lost_hours=(crew.busy - tally.useful) / _HOUR,
        idle_hours=(total - crew.busy) / _HOUR,
        stopped=tally.stopped,
    )
