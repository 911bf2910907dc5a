"""Runs the workers of a run as actors of Ray, and reports to the scheduler what happens to them.

An actor that ends is replaced by a new one, which Ray places on any node with room. Ray itself
repeats no call, because the scheduler counts the failures of each part.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hfclip.embedding.cluster import Share
from hfclip.embedding.crew import Done, Failed, Joined, Lost, Report
from hfclip.embedding.nodes import Failure, Place, Refusal, Task, Worker
from hfclip.embedding.ray_session import first_line

# How many workers are asked for their progress at once, and how often, in seconds.
_POLLED, _POLLING = 16, 1.0
# How often the cluster must answer, in seconds.
_CHECKED = 2.0
# Pauses in seconds before a worker that could not begin is asked again, or replaced.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class _Call(NamedTuple):
    """A call of an actor that has not returned."""

    worker: str
    kind: Literal["place", "begin", "encode", "progress"]
    part: int = -1


@dataclass
class _Member:
    """An actor.

    Attributes:
        actor: Ray's handle.
        place: Where it runs, or None while it waits for room.
        failures: How often it could not begin, in succession.
        refusal: Why it may not work, or None. It stays and keeps its place, so that no new worker
            starts on a node that differs.
    """

    actor: Any
    place: Place | None = None
    failures: int = 0
    refusal: str | None = None


@dataclass
class RayCrew:
    """The actors of a run. It is a `Crew`.

    Attributes:
        ray: The module ray, which is connected to a cluster.
        task: What the workers must know.
        share: How many workers there are, and what each of them asks for.
        check_alive: Raises EngineError if the cluster is gone.
        refusals: For the host of each node that refused, the reason.
        progress: For each part in work, its inputs and errors until now.
    """

    ray: Any
    task: Task
    share: Share
    check_alive: Callable[[], None]
    refusals: dict[str, str] = field(default_factory=dict)
    progress: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._class = self.ray.remote(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 1},
        )(Worker)
        self._members: dict[str, _Member] = {}
        self._calls: dict[Any, _Call] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._reports: list[Report] = []
        self._polls, self._next_poll, self._next_check = 0, 0.0, 0.0
        for number in range(self.share.workers):
            self._start(f"worker-{number + 1}", 0)

    @property
    def loading(self) -> int:
        """The number of workers that Ray has placed and that are not ready yet."""
        return sum(call.kind == "begin" for call in self._calls.values())

    @property
    def refused(self) -> int:
        """The number of workers that may not work."""
        return sum(member.refusal is not None for member in self._members.values())

    def host(self, name: str) -> str:
        """Returns the machine of a worker or a node, as people call it."""
        places = [member.place for member in self._members.values() if member.place is not None]
        for place in places:
            if place.node == name:
                return place.host
        member = self._members.get(name)
        return f"{name} ({member.place.host})" if member and member.place else name

    def now(self) -> float:
        """Returns the time in seconds."""
        return time.monotonic()

    def give(self, worker: str, part: int) -> None:
        """Starts a part on a worker that is ready."""
        actor = self._members[worker].actor
        self._calls[actor.encode.remote(part)] = _Call(worker, "encode", part)

    def wait(self, seconds: float) -> Sequence[Report]:
        """Returns what has happened. Waits at most this time if nothing has."""
        if time.monotonic() >= self._next_check:
            self.check_alive()
            self._next_check = time.monotonic() + _CHECKED
        self._run_due()
        self._poll()
        if self._calls:
            ready, _ = self.ray.wait(list(self._calls), num_returns=1, timeout=seconds)
            if ready:
                every = list(self._calls)
                ready, _ = self.ray.wait(every, num_returns=len(every), timeout=0)
        else:
            time.sleep(seconds)
            ready = []
        for reference in ready:
            if (call := self._calls.pop(reference, None)) is not None:  # not of a replaced worker
                self._take(reference, call)
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Ends the workers. What they write becomes whole or is left out."""
        self._calls.clear()
        self._later.clear()
        for member in self._members.values():
            self._kill(member)
        self._members.clear()

    def _start(self, worker: str, failures: int) -> None:
        """Creates the actor of a worker. Ray starts it when a node has room."""
        actor = self._class.remote(self.task)
        self._members[worker] = _Member(actor, failures=failures)
        self._calls[actor.place.remote()] = _Call(worker, "place")

    def _begin(self, worker: str) -> None:
        actor = self._members[worker].actor
        self._calls[actor.begin.remote()] = _Call(worker, "begin")

    def _take(self, reference: Any, call: _Call) -> None:
        """Turns the result of a call into reports and further calls."""
        member = self._members[call.worker]
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            if call.kind != "progress":
                self._replace(call, member, error)
            return
        if call.kind == "place":
            member.place = result
            self._begin(call.worker)
        elif call.kind == "begin":
            self._has_begun(call.worker, member, result)
        elif call.kind == "encode":
            self.progress.pop(call.part, None)
            if isinstance(result, Failure):
                report: Report = Failed(call.worker, call.part, result.reason, result.again)
            else:
                report = Done(call.worker, call.part, result)
            self._reports.append(report)
        elif result is not None:
            part, inputs, errors = result
            if any(other.part == part for other in self._calls.values()):
                self.progress[part] = (inputs, errors)

    def _has_begun(self, worker: str, member: _Member, refusal: Refusal | None) -> None:
        place = member.place
        if place is None:
            return
        if refusal is None:
            member.failures = 0
            self._reports.append(Joined(worker, place.node))
        elif refusal.again:
            self._after_pause(member, lambda: self._begin(worker))
            self.refusals[place.host] = refusal.reason
        else:
            member.refusal = refusal.reason
            self.refusals[place.host] = refusal.reason

    def _replace(self, call: _Call, member: _Member, error: Exception) -> None:
        """Replaces an actor that has ended or cannot be reached."""
        worker = call.worker
        self.check_alive()
        self._calls = {
            reference: other for reference, other in self._calls.items() if other.worker != worker
        }
        self._kill(member)
        reason = _reason(error)
        if call.kind == "encode":
            self.progress.pop(call.part, None)
            node_lost = self._is_gone(member.place, error)
            self._reports.append(Lost(worker, reason, node_lost=node_lost))
            self._start(worker, 0)
            return
        self.refusals[member.place.host if member.place else "a node"] = reason
        self._after_pause(member, lambda: self._start(worker, member.failures))

    def _is_gone(self, place: Place | None, error: Exception) -> bool:
        """Returns whether the node of a worker was taken away.

        Its node reports that a process has died. Without a report the worker cannot be reached.
        """
        if isinstance(error, self.ray.exceptions.ActorUnavailableError):
            return True
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        return place is not None and place.node not in alive

    def _after_pause(self, member: _Member, action: Callable[[], None]) -> None:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**member.failures)
        member.failures += 1
        self._later.append((time.monotonic() + pause, action))

    def _run_due(self) -> None:
        now = time.monotonic()
        due = [action for when, action in self._later if when <= now]
        self._later = [(when, action) for when, action in self._later if when > now]
        for action in due:
            action()

    def _poll(self) -> None:
        """Asks some workers for their progress, in turns."""
        if time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + _POLLING
        busy = [call.worker for call in self._calls.values() if call.kind == "encode"]
        asked = {call.worker for call in self._calls.values() if call.kind == "progress"}
        for place in range(min(_POLLED, len(busy))):
            worker = busy[(self._polls + place) % len(busy)]
            if worker not in asked:
                actor = self._members[worker].actor
                reference = actor.progress.options(concurrency_group="control").remote()
                self._calls[reference] = _Call(worker, "progress")
        self._polls += _POLLED

    def _kill(self, member: _Member) -> None:
        try:
            self.ray.kill(member.actor)
        except (self.ray.exceptions.RayError, ValueError):  # it has ended, or the cluster has
            return


# What Ray's errors mean for a person.
_MEANINGS = {
    "ActorDiedError": "its process died",
    "ActorUnavailableError": "its process cannot be reached",
    "OutOfMemoryError": "its node had no memory left",
    "NodeDiedError": "its node is gone",
}


def _reason(error: Exception) -> str:
    """Returns what has happened to a worker, in a few words."""
    name = type(error).__name__
    return _MEANINGS.get(name) or f"its process ended ({name}: {first_line(error)})"
