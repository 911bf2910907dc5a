"""Decides which worker encodes which part, and what happens after a failure.

The scheduler knows the workers only through a `Crew`. It does not import Ray, so a simulation of a
cluster runs the same code. Its rules:

- A part that fails is tried again after a growing pause, and first on other nodes. It comes before
  new parts, so that the run does not wait for it at the end, unless nothing else succeeds either.
  After a number of failures it is given up, and the others go on.
- A part whose worker dies is tried again after the new parts. A part that kills its worker several
  times is given up. A node that is taken away is no fault of the part.
- When no part is left to give, a part that takes much longer than the others is given to another
  worker, too. The result that arrives first counts.
- A worker or a node that fails several times in succession rests for a growing time.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from hfclip.embedding.crew import Crew, Done, Failed, Joined, Lost, Report
from hfclip.embedding.events import (
    Event,
    Finished,
    Given,
    GivenUp,
    Repeated,
    Resting,
    Retried,
    Stopped,
    Tick,
)

# Seconds for which a failed part waits for a worker on another node.
_ELSEWHERE = 60.0


@dataclass(frozen=True)
class Policy:
    """The limits of the scheduler. Times are in seconds.

    Attributes:
        attempts: Failures after which a part is given up.
        deaths: Deaths of its worker after which a part is given up.
        losses: Nodes that may be taken away under a part before it is given up.
        pause: The pause after the first failure of a part. Each further failure doubles it.
        longest_pause: The longest pause of a part, and the longest rest of a worker or node.
        slow: A part is late from this multiple of the usual time on.
        least: The time before which no part is late.
        copies: Workers that may have one part at the same time.
        streak: Failures in succession after which a worker rests. A node rests after this number,
            and at least twice the number of its workers.
        rest: The first rest. Each further failure doubles it.
        hopeless: Parts given up in succession after which the run stops.
        drought: The time without a complete part after which the run stops, if at least
            `hopeless` attempts failed in it.
        tick: The longest time between two events.
    """

    attempts: int = 8
    deaths: int = 3
    losses: int = 20
    pause: float = 10.0
    longest_pause: float = 600.0
    slow: float = 2.0
    least: float = 10.0
    copies: int = 3
    streak: int = 3
    rest: float = 5.0
    hopeless: int = 5
    drought: float = 1_800.0
    tick: float = 1.0


def run_parts(
    sizes: Mapping[int, int], crew: Crew, policy: Policy | None = None
) -> Iterator[Event]:
    """Gives parts to workers until each one is complete or given up, and yields what happens.

    Args:
        sizes: The number of inputs of each part, by the number of the part, in the order of work.
        crew: The workers.
        policy: The limits.
    """
    return _Run(sizes, crew, policy or Policy()).events()


@dataclass
class _Record:
    """What has happened to a part that is not finished."""

    failures: int = 0
    deaths: int = 0
    losses: int = 0
    nodes: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)

    @property
    def attempts(self) -> int:
        return self.failures + self.deaths + self.losses


@dataclass(frozen=True)
class _Work:
    part: int
    since: float


class _Run:
    def __init__(self, sizes: Mapping[int, int], crew: Crew, policy: Policy) -> None:
        self._sizes, self._crew, self._policy = sizes, crew, policy
        self._fresh = deque(sizes)
        self._retries: list[tuple[float, int]] = []  # (due, part), ascending
        self._open = {part: _Record() for part in sizes}
        self._working: dict[str, _Work] = {}
        self._idle: dict[str, None] = {}  # a set that keeps its order
        self._node_of: dict[str, str] = {}
        self._nodes: Counter[str] = Counter()
        self._streaks: Counter[str] = Counter()  # failures in succession of workers and nodes
        self._rests: dict[str, float] = {}  # the end of the rest of a worker or node
        self._rates: list[float] = []  # seconds for an input, of each finished part, ascending
        self._given_up = 0  # since the last complete part
        self._failures, self._since = 0, crew.now()  # also since then

    def events(self) -> Iterator[Event]:
        while self._open:
            now = self._crew.now()
            yield from self._assign(now)
            for report in self._crew.wait(self._patience(now)):
                yield from self._handle(report)
            if (reason := self._hopeless()) is not None:
                yield Stopped(reason)
                return
            yield self._state()

    def _hopeless(self) -> str | None:
        """Returns why the run shall stop, or None."""
        if self._given_up >= self._policy.hopeless:
            return f"{self._given_up} parts in succession were given up"
        seconds = self._crew.now() - self._since
        if seconds >= self._policy.drought and self._failures >= self._policy.hopeless:
            return (
                f"no part was completed in {seconds:,.0f} s, and {self._failures} attempts failed"
            )
        return None

    # Giving parts.

    def _assign(self, now: float) -> Iterator[Event]:
        late: list[int] | None = None
        resting = self._resting(now)
        for worker in list(self._idle):
            if worker in resting or self._node_of[worker] in resting:
                continue
            part = self._next(self._node_of[worker], now)
            if part is None:
                late = self._late(now) if late is None else late
                part = late.pop() if late else None
            if part is None:
                if not self._fresh and not self._is_due(now):
                    return  # there is nothing for the others either
                continue
            record = self._open[part]
            copy = bool(record.holders)
            del self._idle[worker]
            record.holders.add(worker)
            self._working[worker] = _Work(part, now)
            self._crew.give(worker, part)
            yield Given(worker, part, copy)

    def _resting(self, now: float) -> set[str]:
        """Returns the workers and nodes that rest. A worker also rests while its node does."""
        self._rests = {name: until for name, until in self._rests.items() if until > now}
        return set(self._rests)

    def _is_due(self, now: float) -> bool:
        """Returns whether a part may be tried again now, on some node."""
        return bool(self._retries) and self._retries[0][0] <= now

    def _next(self, node: str, now: float) -> int | None:
        """Returns a part to try again, or a new one, for a worker on a node.

        A part that has failed comes before the new ones, so that the run does not wait for it at
        the end. While no part is completed, new ones come first: something is wrong for all, and
        each attempt would count against a part.
        """
        if self._fresh and self._failures >= self._policy.hopeless:
            return self._fresh.popleft()
        for place, (due, part) in enumerate(self._retries):
            if due > now:
                break
            if self._fresh and self._open[part].deaths:
                continue  # it may kill workers that others need
            if self._may_try(node, part) or now - due >= _ELSEWHERE:
                del self._retries[place]
                return part
        return self._fresh.popleft() if self._fresh else None

    def _may_try(self, node: str, part: int) -> bool:
        """Returns whether a part has not failed on this node, or has failed on all of them."""
        failed = self._open[part].nodes
        return node not in failed or self._nodes.keys() <= failed

    def _late(self, now: float) -> list[int]:
        """Returns the parts that another worker shall have, too, the latest last."""
        newest: dict[int, _Work] = {}
        for work in self._working.values():
            if work.part in self._open and work.since >= newest.get(work.part, work).since:
                newest[work.part] = work
        works = list(newest.values())
        late = [
            work
            for work, start in zip(works, self._late_from(works), strict=True)
            if now >= start and len(self._open[work.part].holders) < self._policy.copies
        ]
        return [work.part for work in sorted(late, key=lambda work: -work.since)]

    def _late_from(self, works: Collection[_Work]) -> list[float]:
        """Returns the time from which each part is late. It runs at each event of a long run."""
        if not self._rates:
            return [float("inf")] * len(works)
        rate, sizes = self._rates[len(self._rates) // 2], self._sizes
        least, slow = self._policy.least, self._policy.slow
        return [work.since + max(least, slow * (rate * sizes[work.part])) for work in works]

    def _patience(self, now: float) -> float:
        """Returns the seconds until there may be something to give."""
        times = [now + self._policy.tick]
        if self._idle:
            times += [due for due, _ in self._retries[:1] if due > now]
            times += [until for until in self._rests.values() if until > now]
            if not self._fresh:
                starts = self._late_from(self._working.values())
                times += [start for start in starts if start > now]
        return min(times) - now

    # Reports.

    def _handle(self, report: Report) -> Iterator[Event]:
        if isinstance(report, Joined):
            self._join(report)
        elif isinstance(report, Done):
            yield from self._done(report)
        elif isinstance(report, Failed):
            yield from self._failed(report)
        else:
            yield from self._lost(report)

    def _join(self, report: Joined) -> None:
        self._forget(report.worker)
        self._node_of[report.worker] = report.node
        self._nodes[report.node] += 1
        self._idle[report.worker] = None

    def _forget(self, worker: str) -> str | None:
        """Removes a worker, and returns its node if it was known."""
        node = self._node_of.pop(worker, None)
        self._idle.pop(worker, None)
        if node is not None:
            self._nodes[node] -= 1
            if not self._nodes[node]:
                del self._nodes[node]
        return node

    def _taken_back(self, worker: str) -> tuple[_Work | None, _Record | None]:
        """Ends the work of a worker. The record is None if the part is finished."""
        work = self._working.pop(worker, None)
        record = self._open.get(work.part) if work is not None else None
        if record is not None:
            record.holders.discard(worker)
        return work, record

    def _done(self, report: Done) -> Iterator[Event]:
        work, record = self._taken_back(report.worker)
        seconds = self._crew.now() - work.since if work is not None else 0.0
        self._idle[report.worker] = None
        for name in (report.worker, self._node_of[report.worker]):
            self._streaks.pop(name, None)
            self._rests.pop(name, None)
        insort(self._rates, seconds / max(1, self._sizes[report.part]))
        if record is None:
            yield Repeated(report.worker, report.part, seconds)
            return
        del self._open[report.part]
        self._given_up, self._failures, self._since = 0, 0, self._crew.now()
        yield Finished(report.worker, report.part, report.result, seconds)

    def _failed(self, report: Failed) -> Iterator[Event]:
        work, record = self._taken_back(report.worker)
        node = self._node_of[report.worker]
        self._idle[report.worker] = None
        if report.again:
            yield from self._troubled(report.worker, node, report.reason)
        if work is None or record is None:
            return
        record.failures += 1
        record.nodes.add(node)
        is_last = not report.again or record.failures >= self._policy.attempts
        pause = min(
            self._policy.longest_pause, self._policy.pause * 2.0 ** min(record.failures - 1, 60)
        )
        yield from self._again(report.worker, work, record, report.reason, pause, is_last)

    def _lost(self, report: Lost) -> Iterator[Event]:
        work, record = self._taken_back(report.worker)
        node = self._forget(report.worker)
        if not report.node_lost and node is not None:
            yield from self._troubled(report.worker, node, report.reason)
        if work is None or record is None:
            return
        if report.node_lost:
            record.losses += 1
        else:
            record.deaths += 1
            if node is not None:
                record.nodes.add(node)
        limits = self._policy
        is_last = record.deaths >= limits.deaths or record.losses >= limits.losses
        yield from self._again(report.worker, work, record, report.reason, 0.0, is_last)

    def _again(
        self, worker: str, work: _Work, record: _Record, reason: str, pause: float, is_last: bool
    ) -> Iterator[Event]:
        """Plans the next attempt of a part, or gives it up. Another worker with it goes on."""
        now = self._crew.now()
        if is_last and not record.holders:
            del self._open[work.part]
            self._given_up += 1
            yield GivenUp(work.part, reason, record.attempts)
            return
        if not record.holders:
            insort(self._retries, (now + pause, work.part))
        yield Retried(worker, work.part, reason, record.attempts, pause, now - work.since)

    def _troubled(self, worker: str, node: str, reason: str) -> Iterator[Event]:
        """Counts a failure of a worker and its node, which rest after several of them."""
        of_node = max(self._policy.streak, 2 * self._nodes[node]) if node in self._nodes else 0
        limits = {worker: self._policy.streak, node: of_node or self._policy.streak}
        now = self._crew.now()
        self._failures += 1
        for name, limit in limits.items():
            self._streaks[name] += 1
            if self._streaks[name] < limit:
                continue
            seconds = self._policy.rest * 2.0 ** min(self._streaks[name] - limit, 60)
            seconds = min(seconds, self._policy.longest_pause)
            self._rests[name] = now + seconds
            yield Resting(name, reason, seconds)

    def _state(self) -> Tick:
        resting, node_of = self._resting(self._crew.now()), self._node_of
        waiting = len(self._fresh) + len(self._retries)
        return Tick(
            workers=len(node_of),
            busy=len(self._working),
            resting=sum(name in resting or node_of[name] in resting for name in self._idle)
            if resting
            else 0,
            waiting=waiting,
            running=len(self._open) - waiting,
        )
