"""The scheduler with workers of a script and a clock that stands still between events."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from hfclip.embedding.crew import Done, Failed, Joined, Lost, Report
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
from hfclip.embedding.scheduling import Policy, run_parts

# Answers a part that was given: the seconds until the answer, and the answer.
Answer = Callable[[str, int, int], tuple[float, Sequence[Report]]]


@dataclass
class Script:
    """A crew whose workers answer as a function says.

    Attributes:
        nodes: The node of each worker.
        answer: Gets the worker, the part, and how often that part was given before.
        given: Each (time, worker, part), in order.
    """

    nodes: dict[str, str]
    answer: Answer
    time: float = 0.0
    given: list[tuple[float, str, int]] = field(default_factory=list)
    coming: list[tuple[float, Report]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coming = [(0.0, Joined(worker, node)) for worker, node in self.nodes.items()]

    def give(self, worker: str, part: int) -> None:
        before = sum(other == part for _, _, other in self.given)
        self.given.append((self.time, worker, part))
        seconds, reports = self.answer(worker, part, before)
        self.coming += [(self.time + seconds, report) for report in reports]

    def wait(self, seconds: float) -> Sequence[Report]:
        end = self.time + seconds
        self.coming.sort(key=lambda each: each[0])
        if not self.coming or self.coming[0][0] > end:
            self.time = end
            return []
        self.time = max(self.time, self.coming[0][0])
        now = [report for due, report in self.coming if due <= self.time]
        self.coming = self.coming[len(now) :]
        return now

    def now(self) -> float:
        return self.time


def done(seconds: float) -> Answer:
    return lambda worker, part, before: (seconds, [Done(worker, part, f"{worker}:{part}")])


def run(script: Script, parts: Iterable[int], policy: Policy | None = None) -> list[Event]:
    """Runs until the end, and returns the events that are no ticks."""
    found: list[Event] = []
    for event in run_parts(dict.fromkeys(parts, 10), script, policy):
        assert script.time < 100_000, "the run does not end"
        if not isinstance(event, Tick):
            found.append(event)
    return found


def of(kind: type, events: Iterable[Event]) -> list[int]:
    return [event.part for event in events if isinstance(event, kind)]  # type: ignore[union-attr]


TWO = {"a": "north", "b": "south"}


def test_each_part_is_given_once_and_in_order() -> None:
    script = Script(TWO, done(5.0))
    events = run(script, range(7))
    assert [(time, part) for time, _, part in script.given] == [
        *((0.0, 0), (0.0, 1), (5.0, 2), (5.0, 3), (10.0, 4), (10.0, 5), (15.0, 6)),
    ]
    assert sorted(of(Finished, events)) == list(range(7))
    results = {event.part: event.result for event in events if isinstance(event, Finished)}
    assert results[0] == "a:0"
    assert script.time == 20.0


def test_ticks_count_workers_and_parts() -> None:
    script = Script(TWO, done(5.0))
    events = list(run_parts(dict.fromkeys(range(3), 1), script))
    ticks = [event for event in events if isinstance(event, Tick)]
    assert ticks[0] == Tick(workers=2, busy=0, resting=0, waiting=3, running=0)
    assert ticks[1] == Tick(workers=2, busy=2, resting=0, waiting=1, running=2)
    assert ticks[-1] == Tick(workers=2, busy=0, resting=0, waiting=0, running=0)


def test_nothing_to_do_ends_at_once() -> None:
    assert run(Script({}, done(1.0)), []) == []


def test_a_failure_is_tried_again_after_a_pause_and_on_another_node() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part == 0 and worker == "a":
            return 1.0, [Failed(worker, part, "no space")]
        return 4.0, [Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(4))
    retried = next(event for event in events if isinstance(event, Retried))
    assert retried == Retried("a", 0, "no space", attempt=1, pause=10.0, seconds=1.0)
    assert script.given[-1] == (11.0, "b", 0)  # "a" is ready, too, but the part failed there
    assert sorted(of(Finished, events)) == [0, 1, 2, 3]


def test_a_part_that_always_fails_is_given_up_while_there_are_new_parts() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        return 10.0, [Failed(worker, part, "down") if part == 0 else Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(400))
    tries = [time for time, _, part in script.given if part == 0]
    assert len(tries) == 8
    assert tries[:3] == [0.0, 20.0, 50.0]  # after pauses of 10 and 20 seconds
    assert of(GivenUp, events) == [0]
    assert tries[-1] < 1_400.0  # the others take 2,000 seconds
    assert len(of(Finished, events)) == 399
    assert script.time == pytest.approx(2_035, abs=20)


def test_new_parts_come_first_while_nothing_succeeds() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        return 20.0, [Failed(worker, part, "down") if script.time < 300.0 else Done(worker, part)]

    script = Script({f"w{number}": f"n{number}" for number in range(10)}, answer)
    events = run(script, range(200))
    during = [part for time, _, part in script.given if time < 300.0]
    assert len(during) > 50
    assert max(during.count(part) for part in during) == 1
    assert not of(GivenUp, events)
    assert sorted(of(Finished, events)) == list(range(200))


def test_a_late_part_gets_another_worker_also_while_a_failed_one_pauses() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part == 8 and before < 2:
            return 10.0, [Failed(worker, part, "down")]
        return (1_000.0 if part == 9 and not before else 10.0), [Done(worker, part)]

    script = Script(TWO, answer)
    run(script, range(10), Policy(pause=200.0))
    assert [(time, part) for time, _, part in script.given[8:]] == [
        *((40.0, 8), (40.0, 9), (60.0, 9), (310.0, 8), (780.0, 8)),
    ]


def test_a_failed_part_waits_a_minute_at_most_for_another_node() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if worker == "b":
            return 1_000.0, [Done(worker, part)]
        return 1.0, [Done(worker, part) if before else Failed(worker, part, "once")]

    script = Script(TWO, answer)
    run(script, [0, 1])
    assert [each for each in script.given if each[2] == 0] == [(0.0, "a", 0), (71.0, "a", 0)]


def test_pauses_double_and_a_part_is_given_up_after_its_attempts() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        report = Failed(worker, part, "down") if part == 1 else Done(worker, part)
        return 1.0, [report]

    policy = Policy(attempts=5, pause=10.0, longest_pause=35.0, streak=100)
    events = run(Script({"a": "north"}, answer), range(3), policy)
    assert [event.pause for event in events if isinstance(event, Retried)] == [10, 20, 35, 35]
    assert events[-1] == GivenUp(1, "down", 5)
    assert of(Finished, events) == [0, 2]


def test_a_failure_that_no_attempt_repairs_is_given_up_and_no_fault_of_a_worker() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        bad = part % 2 == 0
        report = Failed(worker, part, "too large", again=False) if bad else Done(worker, part)
        return 1.0, [report]

    events = run(Script({"a": "north"}, answer), range(6))
    assert of(GivenUp, events) == [0, 2, 4]
    assert of(Finished, events) == [1, 3, 5]
    assert not [event for event in events if isinstance(event, Resting)]


def test_a_part_that_kills_its_worker_three_times_is_given_up() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part == 2:
            return 1.0, [Lost(worker, "killed"), Joined(worker, TWO[worker])]
        return 1.0, [Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(8))
    assert [part for _, _, part in script.given].count(2) == 3
    assert GivenUp(2, "killed", 3) in events
    assert sorted(of(Finished, events)) == [0, 1, 3, 4, 5, 6, 7]


def test_a_worker_that_is_killed_five_times_loses_no_part() -> None:
    kills = [0, 1, 2, 3, 4]

    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part in kills and not before:
            return 1.0, [Lost(worker, "killed"), Joined(worker, "north")]
        return 1.0, [Done(worker, part)]

    events = run(Script({"a": "north"}, answer), range(9))
    assert of(Retried, events) == kills
    assert sorted(of(Finished, events)) == list(range(9))


def test_nodes_that_are_taken_away_do_not_count_against_a_part() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if before < 10:
            fresh = f"w{before + 1}"
            return 1.0, [Lost(worker, "spot", node_lost=True), Joined(fresh, f"node of {fresh}")]
        return 1.0, [Done(worker, part)]

    events = run(Script({"w0": "node of w0"}, answer), [0])
    assert len(of(Retried, events)) == 10
    assert of(Finished, events) == [0]
    assert not [event for event in events if isinstance(event, Resting)]
    events = run(Script({"w0": "node of w0"}, answer), [0], Policy(losses=4))
    assert of(GivenUp, events) == [0]


def test_a_late_part_gets_a_second_worker_when_nothing_else_is_left() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        return (500.0 if part == 0 and not before else 20.0), [Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(4), Policy(slow=3.0))
    # The usual time is 20 s; part 0 is late after 60 s, when "b" has done the others.
    assert script.given[-1] == (60.0, "b", 0)
    assert Given("b", 0, copy=True) in events
    assert events[-1] == Finished("b", 0, None, 20.0)
    assert script.time == 80.0


def test_the_usual_time_grows_with_the_number_of_inputs() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        return (1_000.0 if part == 9 else 20.0), [Done(worker, part)]

    script = Script(TWO, answer)
    # 20 s for 10 inputs are usual, so 100 inputs may take 600 s.
    list(run_parts({9: 100, 1: 10, 2: 10}, script, Policy(slow=3.0)))
    assert script.given[-1] == (600.0, "b", 9)


def test_the_second_result_of_a_part_is_reported_as_repeated() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part == 0:
            return (65.0 if not before else 10.0), [Done(worker, part)]
        return (20.0 if part < 4 else 100.0), [Done(worker, part)]

    script = Script({"a": "north", "b": "south", "c": "east"}, answer)
    events = run(script, range(5))
    assert Given("b", 0, copy=True) in events
    assert of(Finished, events).count(0) == 1
    assert of(Repeated, events) == [0]


def test_a_failed_copy_leaves_the_part_to_the_other_worker() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if part == 0 and not before:
            return 100.0, [Done(worker, part)]
        if part == 0:
            return 1.0, [Lost(worker, "killed")]
        return 20.0, [Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(3))
    assert [part for _, _, part in script.given].count(0) == 2
    assert events[-1] == Finished("a", 0, None, 100.0)


def test_a_worker_that_fails_in_succession_rests_longer_each_time() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if worker == "a":
            return 1.0, [Failed(worker, part, "broken GPU")]
        return 1.0, [Done(worker, part)]

    script = Script(TWO, answer)
    events = run(script, range(60), Policy(streak=3, rest=5.0))
    rests = [event.seconds for event in events if isinstance(event, Resting) and event.name == "a"]
    assert rests == [5.0, 10.0, 20.0, 40.0]
    times = [time for time, worker, _ in script.given if worker == "a"]
    assert times == [0.0, 1.0, 2.0, 8.0, 19.0, 40.0]
    assert sorted(of(Finished, events)) == list(range(60))


def test_a_success_ends_the_succession_of_failures() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        bad = part % 3 != 2 and not before
        return 1.0, [Failed(worker, part, "now and then") if bad else Done(worker, part)]

    events = run(Script({"a": "north"}, answer), range(9))
    assert not [event for event in events if isinstance(event, Resting)]
    assert sorted(of(Finished, events)) == list(range(9))


def test_a_node_rests_when_all_its_workers_fail() -> None:
    nodes = {"a1": "bad", "a2": "bad", "b": "good"}

    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        if nodes[worker] == "bad":
            return 1.0, [Failed(worker, part, "disk")]
        return 1.0, [Done(worker, part)]

    script = Script(nodes, answer)
    events = run(script, range(30), Policy(streak=3, rest=50.0))
    names = [event.name for event in events if isinstance(event, Resting)]
    assert names[0] == "bad"  # four failures of two workers
    assert {name for name in names if name != "bad"} <= {"a1", "a2"}
    assert sorted(of(Finished, events)) == list(range(30))


def test_storage_that_is_down_for_minutes_costs_no_part() -> None:
    script = Script(TWO, done(1.0))

    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        down = 30.0 <= script.time < 330.0
        return 2.0, [Failed(worker, part, "down") if down else Done(worker, part)]

    script.answer = answer
    events = run(script, range(100))
    assert not of(GivenUp, events)
    assert sorted(of(Finished, events)) == list(range(100))
    assert script.time < 600.0


def test_a_run_in_which_every_part_is_given_up_stops() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        return 1.0, [Failed(worker, part, "wrong", again=False)]

    events = run(Script({"a": "north"}, answer), range(1_000), Policy(hopeless=5))
    assert of(GivenUp, events) == [0, 1, 2, 3, 4]
    assert events[-1] == Stopped("5 parts in succession were given up")


def test_a_run_in_which_every_attempt_fails_stops_after_half_an_hour() -> None:
    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        report = Done(worker, part) if part < 2 else Failed(worker, part, "unknown")
        return 10.0, [report]

    script = Script(TWO, answer)
    events = run(script, range(1_000), Policy(drought=1_800.0))
    assert sorted(of(Finished, events)) == [0, 1]
    assert isinstance(events[-1], Stopped)
    assert "no part was completed in 1,80" in events[-1].reason
    assert 1_810.0 <= script.time < 1_815.0


def test_without_workers_it_ticks() -> None:
    events = run_parts({0: 1}, Script({}, done(1.0)), Policy(tick=7.0))
    script_ticks = [next(events) for _ in range(3)]
    assert script_ticks == [Tick(workers=0, busy=0, resting=0, waiting=1, running=0)] * 3


@pytest.mark.parametrize("workers", [1, 7, 50])
def test_random_failures_lose_no_part_and_finish_none_twice(workers: int) -> None:
    draw = random.Random(workers)  # noqa: S311  # no secrets
    nodes = {f"w{number}": f"n{number % 5}" for number in range(workers)}

    def answer(worker: str, part: int, before: int) -> tuple[float, list[Report]]:
        fate, seconds = draw.random(), draw.uniform(1, 30)
        if fate < 0.05:
            return seconds, [Failed(worker, part, "failed")]
        if fate < 0.1:
            return seconds, [
                Lost(worker, "gone", node_lost=fate < 0.07),
                Joined(worker, nodes[worker]),
            ]
        return (seconds * 20 if fate > 0.95 else seconds), [Done(worker, part)]

    events = run(Script(nodes, answer), range(300), Policy(deaths=6))
    finished, given_up = of(Finished, events), of(GivenUp, events)
    assert sorted(finished + given_up) == list(range(300))
    assert len(given_up) <= 1
