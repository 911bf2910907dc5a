"""A cluster in memory. It drives the scheduler of `hfclip embed --engine ray` with its own clock.

Only the workers are simulated: their speeds, deaths, nodes and storage. What is given to which
worker, tried again, given to a second worker or given up is decided by the scheduler itself. The
same seed gives the same run.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from hfclip.embedding.crew import Done, Failed, Joined, Lost, Report

_HOUR = 3_600.0
_DEAD = "the process of the worker was killed"
_GONE = "the node was taken away"
_UNREACHABLE = "the storage does not answer"


@dataclass(frozen=True)
class Cluster:
    """The machines and what goes wrong on them. Times are in seconds.

    Attributes:
        workers: The number of workers.
        node_size: The number of workers on a node.
        rate: Inputs a second of a worker on a node of average speed.
        spread: The standard deviation of the logarithm of the speed of a node.
        variety: The standard deviation of the logarithm of the cost of a part.
        start: From the start of a worker until it is ready: imports, and loading the model.
        overhead: The time of each part that is no encoding: its plan, and its upload.
        stragglers: The share of attempts that are slow for no reason of their own.
        straggling: How many times as long such an attempt takes.
        deaths: How often an hour the process of a worker is killed.
        losses: How often an hour a node is taken away.
        replacement: The time until another node takes its place.
        failing: The parts that always fail.
        killing: The parts that kill their worker.
        outages: When the storage of the parts does not answer: pairs of a beginning and a length.
        patience: How long a worker tries to reach that storage before its attempt fails.
        seed: The seed of all random numbers.
    """

    workers: int = 1_000
    node_size: int = 8
    rate: float = 40.0
    spread: float = 0.0
    variety: float = 0.0
    start: float = 30.0
    overhead: float = 2.0
    stragglers: float = 0.0
    straggling: float = 10.0
    deaths: float = 0.0
    losses: float = 0.0
    replacement: float = 300.0
    failing: frozenset[int] = frozenset()
    killing: frozenset[int] = frozenset()
    outages: tuple[tuple[float, float], ...] = ()
    patience: float = 90.0
    seed: int = 0


@dataclass
class _Node:
    name: str
    speed: float


@dataclass
class _Worker:
    """A worker. `life` counts its starts and ends, so that events of an earlier life are ignored.

    Attributes:
        name: Its name, which it keeps when it is replaced.
        node: The node on which it runs.
        life: The number of its starts and ends.
        ready: Whether it has joined.
        since: When it got the part that it has; None if it has none.
    """

    name: str
    node: _Node
    life: int = 0
    ready: bool = False
    since: float | None = None


@dataclass
class SimulatedCrew:
    """The workers of a simulated cluster, as a `hfclip.embedding.scheduling.Crew`.

    Attributes:
        cluster: The cluster.
        sizes: The number of inputs of each part.
        busy: The seconds for which workers have had parts.
    """

    cluster: Cluster
    sizes: Mapping[int, int]
    busy: float = 0.0
    _clock: float = 0.0
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._order = itertools.count()
        self._random = Random(f"{self.cluster.seed} cluster")  # noqa: S311  # no secret
        costs = Random(f"{self.cluster.seed} parts")  # noqa: S311  # no secret
        self._costs = {part: _factor(costs, self.cluster.variety) for part in self.sizes}
        self._names = itertools.count()
        self._workers: dict[str, _Worker] = {}
        count, size = self.cluster.workers, self.cluster.node_size
        for first in range(0, count, size):
            node = self._new_node()
            workers = [_Worker(f"worker-{n}", node) for n in range(first, min(first + size, count))]
            self._workers |= {worker.name: worker for worker in workers}
            for worker in workers:
                self._start(worker, self.cluster.start)
            self._plan_loss(workers)

    # What the scheduler calls.

    def give(self, worker: str, part: int) -> None:
        """Starts a part on a worker that is ready."""
        own = self._workers[worker]
        own.since = self._clock
        seconds, report = self._attempt(own, part)
        self._after(seconds, partial(self._end_attempt, own, own.life, report))

    def wait(self, seconds: float) -> Sequence[Report]:
        """Moves the clock to the next reports, or by `seconds` if there are none before."""
        until = self._clock + seconds
        while self._queue and self._queue[0][0] <= (self._clock if self._reports else until):
            self._clock, _, happen = heapq.heappop(self._queue)
            happen()
        if not self._reports:
            self._clock = until
        found, self._reports = self._reports, []
        return found

    def now(self) -> float:
        """Returns the simulated time in seconds."""
        return self._clock

    # What happens to all.

    def end(self) -> None:
        """Ends all workers, as when the process of the scheduler is killed. Others start."""
        for worker in self._workers.values():
            self._stop(worker)
            self._start(worker, self.cluster.start)
        self._reports = []

    # What happens to a worker.

    def _attempt(self, worker: _Worker, part: int) -> tuple[float, Report | None]:
        """Returns how long an attempt takes and its report; None if the worker dies of it."""
        cluster = self.cluster
        seconds = self.sizes[part] * self._costs[part] / (cluster.rate * worker.node.speed)
        if self._random.random() < cluster.stragglers:
            seconds *= cluster.straggling
        seconds += cluster.overhead
        # The storage is asked for the part at the beginning, and gets it at the end.
        before = self._outage(self._clock)
        after = self._outage(self._clock + before + seconds)
        unreachable = Failed(worker.name, part, _UNREACHABLE)
        if before > cluster.patience:
            return cluster.patience, unreachable
        if part in cluster.killing:
            return before + seconds / 2, None
        if part in cluster.failing:
            return before + seconds, Failed(worker.name, part, f"part {part} always fails")
        if after > cluster.patience:
            return before + seconds + cluster.patience, unreachable
        return before + seconds + after, Done(worker.name, part)

    def _outage(self, time: float) -> float:
        """Returns the seconds until the storage answers, at a time: 0 if it does."""
        ends = [begin + length for begin, length in self.cluster.outages if begin <= time]
        return max(0.0, max(ends, default=0.0) - time)

    def _end_attempt(self, worker: _Worker, life: int, report: Report | None) -> None:
        if worker.life != life:
            return
        if report is None:
            self._die(worker, life)
            return
        self._count(worker)
        self._reports.append(report)

    def _join(self, worker: _Worker, life: int) -> None:
        if worker.life != life:
            return
        worker.ready = True
        self._reports.append(Joined(worker.name, worker.node.name))
        if self.cluster.deaths:
            lived = self._random.expovariate(self.cluster.deaths / _HOUR)
            self._after(lived, partial(self._die, worker, life))

    def _die(self, worker: _Worker, life: int) -> None:
        if worker.life == life:
            self._lose(worker, _DEAD, node_lost=False)
            self._start(worker, self.cluster.start)

    def _plan_loss(self, workers: Sequence[_Worker]) -> None:
        if self.cluster.losses:
            lasted = self._random.expovariate(self.cluster.losses / _HOUR)
            self._after(lasted, partial(self._take_node, workers))

    def _take_node(self, workers: Sequence[_Worker]) -> None:
        """Takes a node away. Its workers start again on another node, some time later."""
        node = self._new_node()
        for worker in workers:
            self._lose(worker, _GONE, node_lost=True)
            worker.node = node
            self._start(worker, self.cluster.replacement + self.cluster.start)
        self._plan_loss(workers)

    def _lose(self, worker: _Worker, reason: str, *, node_lost: bool) -> None:
        if worker.ready:
            self._reports.append(Lost(worker.name, reason, node_lost))
        self._stop(worker)

    def _stop(self, worker: _Worker) -> None:
        self._count(worker)
        worker.ready = False
        worker.life += 1

    def _start(self, worker: _Worker, seconds: float) -> None:
        self._after(seconds, partial(self._join, worker, worker.life))

    def _count(self, worker: _Worker) -> None:
        """Ends the time for which a worker has a part."""
        if worker.since is not None:
            self.busy += self._clock - worker.since
            worker.since = None

    def _new_node(self) -> _Node:
        speed = _factor(self._random, self.cluster.spread)
        return _Node(f"node-{next(self._names)}", speed)

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self._clock + seconds, next(self._order), happen))


def _factor(random: Random, deviation: float) -> float:
    """Returns a random factor with a median of 1, whose logarithm has the given deviation."""
    return math.exp(random.gauss(0.0, deviation)) if deviation else 1.0
