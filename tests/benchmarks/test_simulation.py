"""The simulated cluster, in runs that can be followed by hand, and the real scheduler in them.

A part of 100 inputs takes 12 seconds: 10 at 10 inputs a second, and 2 for its plan and its upload.
The workers are ready after 30 seconds.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.cluster import HEADER, SCENARIOS, Job, Outcome, main, simulate
from benchmarks.simulation import Cluster, SimulatedCrew
from hfclip.embedding.crew import Done, Joined, Lost
from hfclip.embedding.scheduling import Policy

PAIR = Cluster(workers=2, node_size=1, rate=10, start=30, overhead=2, patience=60)
ALONE = replace(PAIR, workers=1)
MANY = Cluster(workers=40, node_size=4, rate=10, start=30, overhead=2)


def seconds(outcome: Outcome) -> tuple[float, ...]:
    """Returns the time of a run, and the useful, lost and idle time of its workers."""
    hours = (outcome.hours, outcome.useful_hours, outcome.lost_hours, outcome.idle_hours)
    return tuple(round(3_600 * value, 6) for value in hours)


def small(cluster: Cluster, parts: int = 4, **others: Any) -> Job:
    return Job(cluster, parts, 100, **others)


def test_two_workers_share_four_parts() -> None:
    outcome = simulate(small(PAIR))
    assert seconds(outcome) == (54, 48, 0, 60)
    assert outcome.ideal_hours * 3_600 == pytest.approx(20)
    assert (outcome.complete, outcome.given_up, outcome.pending) == (4, 0, 0)
    assert (outcome.attempts, outcome.copies, outcome.twice) == (4, 0, 0)


def test_a_part_that_kills_its_worker_is_given_up_after_three_deaths() -> None:
    # worker-1 dies at 36. worker-0 does two more parts, gets this one at 66 and dies at 72. Then
    # worker-1, back since 66, gets it and dies at 78.
    outcome = simulate(small(replace(PAIR, killing=frozenset({1}))))
    assert seconds(outcome) == (78, 36, 18, 102)
    assert (outcome.complete, outcome.given_up, outcome.attempts) == (3, 1, 6)
    assert outcome.most_attempts == 1


def test_a_part_that_always_fails_is_given_up_after_eight_attempts() -> None:
    # Pauses of 10, 20, ..., 320 and 600 seconds; the worker rests less.
    outcome = simulate(small(replace(ALONE, failing=frozenset({0})), parts=1))
    assert seconds(outcome) == (30 + 8 * 12 + 630 + 600, 0, 96, 1_260)
    assert (outcome.complete, outcome.given_up, outcome.attempts) == (0, 1, 8)


def test_a_short_outage_delays_an_upload_and_a_long_one_fails_the_attempt() -> None:
    # The upload waits from 42 to 75.
    assert seconds(simulate(small(replace(ALONE, outages=((35, 40),)), 1))) == (75, 45, 0, 30)
    # It fails at 102. The next attempt begins at 112, waits until 135 and takes 12 seconds.
    outcome = simulate(small(replace(ALONE, outages=((35, 100),)), 1))
    assert seconds(outcome) == (147, 35, 72, 40)
    assert (outcome.complete, outcome.attempts, outcome.most_attempts) == (1, 2, 2)
    # An outage in the middle of an attempt is not noticed.
    assert seconds(simulate(small(replace(ALONE, outages=((35, 5),)), 1))) == (42, 12, 0, 30)


def test_a_killed_driver_costs_the_parts_that_are_not_complete() -> None:
    # Parts 2 and 3 have run for 3 seconds at 45. The workers are back at 75.
    outcome = simulate(small(PAIR, restarts=(45,)))
    assert seconds(outcome) == (87, 48, 6, 120)
    assert (outcome.complete, outcome.attempts) == (4, 6)


@pytest.mark.parametrize("trouble", ["failing", "killing"])
def test_the_run_stops_when_everything_fails(trouble: str) -> None:
    every: Any = {trouble: frozenset(range(20))}
    outcome = simulate(small(replace(PAIR, **every), 20))
    assert outcome.stopped is not None
    assert outcome.stopped.startswith("no part was completed in 1,8")
    assert outcome.complete == 0
    assert outcome.given_up + outcome.pending == 20
    assert outcome.hours == pytest.approx(0.5, abs=0.01)


def test_a_node_that_is_taken_away_ends_all_its_workers_and_another_comes() -> None:
    crew = SimulatedCrew(replace(PAIR, node_size=2, losses=0.5, replacement=300), {0: 100})
    assert list(crew.wait(30)) == [Joined("worker-0", "node-0"), Joined("worker-1", "node-0")]
    reason = "the node was taken away"
    assert list(crew.wait(1e9)) == [
        Lost("worker-0", reason, node_lost=True),
        Lost("worker-1", reason, node_lost=True),
    ]
    taken = crew.now()
    assert list(crew.wait(1e9)) == [Joined("worker-0", "node-1"), Joined("worker-1", "node-1")]
    assert crew.now() == taken + 330


def test_the_clock_stops_at_the_next_report_and_never_beyond_the_wait() -> None:
    crew = SimulatedCrew(ALONE, {0: 100})
    assert (list(crew.wait(29)), crew.now()) == ([], 29)
    assert (list(crew.wait(5)), crew.now()) == ([Joined("worker-0", "node-0")], 30)
    crew.give("worker-0", 0)
    assert (list(crew.wait(1e9)), crew.now()) == ([Done("worker-0", 0)], 42)
    assert crew.busy == 12


@pytest.mark.parametrize("trouble", ["deaths", "losses"])
def test_no_part_is_lost_with_workers_and_nodes(trouble: str) -> None:
    # A worker or node lasts 6 minutes on average, a part takes 12 seconds.
    outcome = simulate(small(replace(MANY, **{trouble: 10.0}), 2_000))  # type: ignore[arg-type]
    assert (outcome.complete, outcome.given_up, outcome.pending) == (2_000, 0, 0)
    assert outcome.attempts > 2_000
    assert outcome.useful_hours == pytest.approx(2_000 * 12 / 3_600)
    assert 0 < outcome.lost_hours < 0.1 * outcome.useful_hours


def test_second_attempts_shorten_a_run_with_slow_attempts() -> None:
    slow = replace(MANY, stragglers=0.01, straggling=50)
    outcome = simulate(small(slow, 2_000))
    without = simulate(small(slow, 2_000, policy=replace(Policy(), slow=float("inf"))))
    assert outcome.copies > 0
    assert (without.copies, without.twice) == (0, 0)
    assert without.lost_hours == pytest.approx(0)
    assert outcome.complete == without.complete == 2_000
    assert outcome.hours < 0.8 * without.hours


def test_the_seed_determines_the_run() -> None:
    job = SCENARIOS["all"].job(MANY, 1_000, 100)
    assert simulate(job) == simulate(job)
    other = replace(job, cluster=replace(job.cluster, seed=1))
    assert simulate(other) != simulate(job)
    assert simulate(other).complete + simulate(other).given_up == 1_000


def test_a_scenario_places_its_failures_by_the_size_of_the_job() -> None:
    job = SCENARIOS["all"].job(MANY, 600, 100)  # ideally 150 seconds
    assert job.cluster.failing == frozenset({200})
    assert job.cluster.killing == frozenset({300})
    assert list(job.cluster.outages) == [(60, 600)]
    assert list(job.restarts) == [135]
    assert (job.cluster.spread, job.cluster.deaths, job.cluster.losses) == (0.2, 0.5, 0.5)


SIZE = ["--workers", "4", "--parts", "20", "--part-size", "100", "--rate", "10"]


def test_the_command_prints_a_table() -> None:
    answer = CliRunner().invoke(main, ["even", *SIZE])
    assert answer.exit_code == 0, answer.output
    assert answer.output == (
        f"{HEADER}\n| all workers are equally fast, and nothing fails | 0.03 | 1.80 x | 0 | 0 | 0 "
        "| 0.0 (0.0%) | 0.0 (33.3%) |\n"
    )


def test_the_command_prints_json() -> None:
    answer = CliRunner().invoke(main, ["even", "restart", *SIZE, "--json"])
    assert answer.exit_code == 0, answer.output
    first, second = map(json.loads, answer.output.splitlines())
    assert (first["scenario"], first["hours"], first["complete"]) == ("even", 0.025, 20)
    assert (second["scenario"], second["complete"]) == ("restart", 20)
