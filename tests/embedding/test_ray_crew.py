"""The engine with a module in place of Ray, whose calls return when a test says so."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from tqdm import tqdm

from hfclip.embedding import ray as engine
from hfclip.embedding.cluster import Share
from hfclip.embedding.crew import Done, Failed, Joined, Lost
from hfclip.embedding.events import Finished
from hfclip.embedding.nodes import Failure, Place, Refusal, Task
from hfclip.embedding.ray_crew import RayCrew
from hfclip.embedding.ray_session import Session
from hfclip.embedding.records import Record


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class ActorUnavailableError(RayError):
    pass


class Errors:
    RayError, ActorDiedError = RayError, ActorDiedError
    ActorUnavailableError = ActorUnavailableError


@dataclass(eq=False)
class Call:
    """A call of an actor, which has returned if it has a result."""

    actor: "Actor"
    name: str
    arguments: tuple[Any, ...]
    result: list[Any] = field(default_factory=list)


class Method:
    def __init__(self, actor: "Actor", name: str) -> None:
        self._actor, self._name = actor, name

    def options(self, **_: object) -> "Method":
        return self

    def remote(self, *arguments: Any) -> Call:
        call = Call(self._actor, self._name, arguments)
        self._actor.calls.append(call)
        return call


class Actor:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.killed = False

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def answer(self, name: str, result: Any) -> None:
        """Lets the oldest open call of a method return, or raise."""
        call = next(call for call in self.calls if call.name == name and not call.result)
        call.result.append(result)


class FakeRay:
    """The module ray, which is the class of its actors, too."""

    exceptions = Errors

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.alive = {"n1", "n2"}
        self.options: dict[str, Any] = {}

    def remote(self, *arguments: Any, **options: Any) -> Any:
        """Returns a decorator of classes if there are options, else a new actor."""
        if options:
            self.options = options
            return lambda kind: self
        self.actors.append(Actor())
        return self.actors[-1]

    def wait(
        self, calls: Sequence[Call], num_returns: int, timeout: float
    ) -> tuple[list[Call], list[Call]]:
        ready = [call for call in calls if call.result][:num_returns]
        return ready, [call for call in calls if call not in ready]

    def get(self, call: Call) -> Any:
        if isinstance(call.result[0], Exception):
            raise call.result[0]
        return call.result[0]

    def kill(self, actor: Actor) -> None:
        actor.killed = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": name in self.alive} for name in ("n1", "n2")]


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


def crew_of(ray: FakeRay, workers: int = 1) -> RayCrew:
    return RayCrew(ray, cast("Task", None), Share(workers, 2, 0.5, workers), lambda: None)


def begun(ray: FakeRay, workers: int = 1) -> RayCrew:
    """Returns a crew whose workers are ready."""
    crew = crew_of(ray, workers)
    for number, actor in enumerate(list(ray.actors)):
        actor.answer("place", Place(f"n{number + 1}", f"host-{number + 1}", 100 + number))
    assert crew.wait(0) == []
    for actor in list(ray.actors):
        actor.answer("begin", None)
    joined = [Joined(f"worker-{number}", f"n{number}") for number in range(1, workers + 1)]
    assert crew.wait(0) == joined
    return crew


def test_actors_get_their_share_and_ray_repeats_nothing(ray: FakeRay) -> None:
    crew_of(ray, 3)
    assert len(ray.actors) == 3
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (2, 0.5)
    assert (ray.options["max_restarts"], ray.options["max_task_retries"]) == (0, 0)


def test_results_and_failures_are_reported_with_their_part(ray: FakeRay) -> None:
    crew = begun(ray, 2)
    crew.give("worker-1", 7)
    crew.give("worker-2", 8)
    ray.actors[0].answer("encode", "written")
    ray.actors[1].answer("encode", Failure("no space", again=False))
    assert crew.wait(0) == [
        Done("worker-1", 7, "written"),
        Failed("worker-2", 8, "no space", again=False),
    ]
    assert crew.host("worker-2") == "worker-2 (host-2)"
    assert crew.host("n1") == "host-1"


def test_a_worker_that_dies_is_replaced_whichever_of_its_calls_fails_first(ray: FakeRay) -> None:
    crew = begun(ray)
    crew.give("worker-1", 7)
    crew._next_poll = 0.0
    crew.wait(0)
    first = ray.actors[0]
    first.answer("progress", (7, 64, 1))
    crew.wait(0)
    assert crew.progress == {7: (64, 1)}
    crew._next_poll = 0.0
    crew.wait(0)
    first.answer("encode", ActorDiedError("killed"))
    first.answer("progress", ActorDiedError("killed"))
    assert crew.wait(0) == [Lost("worker-1", "its process died", node_lost=False)]
    assert first.killed
    assert crew.progress == {}
    ray.actors[1].answer("place", Place("n2", "host-2", 300))
    crew.wait(0)
    ray.actors[1].answer("begin", None)
    assert crew.wait(0) == [Joined("worker-1", "n2")]


@pytest.mark.parametrize(
    ("error", "alive", "reason"),
    [
        (ActorUnavailableError(), {"n1", "n2"}, "its process cannot be reached"),
        (ActorDiedError(), {"n2"}, "its process died"),
    ],
)
def test_a_node_that_is_taken_away_is_no_fault_of_the_part(
    ray: FakeRay, error: Exception, alive: set[str], reason: str
) -> None:
    crew = begun(ray)
    crew.give("worker-1", 7)
    ray.alive = alive
    ray.actors[0].answer("encode", error)
    assert crew.wait(0) == [Lost("worker-1", reason, node_lost=True)]


def test_a_worker_that_refuses_keeps_its_place_and_gets_no_work(ray: FakeRay) -> None:
    crew = crew_of(ray, 2)
    for number, actor in enumerate(list(ray.actors)):
        actor.answer("place", Place(f"n{number}", f"host-{number}", 1))
    crew.wait(0)
    ray.actors[0].answer("begin", Refusal("torch is 1.2", again=False))
    ray.actors[1].answer("begin", None)
    assert crew.wait(0) == [Joined("worker-2", "n1")]
    assert (crew.refused, crew.refusals) == (1, {"host-0": "torch is 1.2"})
    assert len(ray.actors) == 2
    assert not ray.actors[0].killed


def test_a_worker_that_cannot_begin_now_is_asked_again_after_a_pause(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("hfclip.embedding.ray_crew.time.monotonic", lambda: now[0])
    crew = crew_of(ray)
    actor = ray.actors[0]
    actor.answer("place", Place("n1", "host", 1))
    crew.wait(0)
    actor.answer("begin", Refusal("the Hub is unreachable", again=True))
    for pause in (1.0, 2.0, 4.0):
        crew.wait(0)
        asked = len(actor.calls)
        now[0] += pause - 0.1
        crew.wait(0)
        assert len(actor.calls) == asked
        now[0] += 0.2
        crew.wait(0)
        assert len(actor.calls) == asked + 1
        actor.answer("begin", Refusal("the Hub is unreachable", again=True))
    assert crew.refused == 0


def test_closing_kills_all_actors(ray: FakeRay) -> None:
    crew = begun(ray, 2)
    crew.close()
    assert [actor.killed for actor in ray.actors] == [True, True]


def test_a_part_counts_whose_worker_died_after_writing_it(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Record(number=1, size=100, rows=4, errors=1, sha256="0" * 64)
    events = [Finished("worker-2", 0, None, 0.1), Finished("worker-2", 1, written, 2.0)]
    monkeypatch.setattr(engine, "run_parts", lambda sizes, crew: iter(events))
    with tqdm(disable=True) as bar:
        session = cast("Session", None)
        run = engine._Run(session, crew_of(ray), bar, threading.Event(), {0: 7, 1: 4}, False)
        assert run.encode().inputs == 11
