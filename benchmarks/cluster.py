"""Simulates `hfclip embed --engine ray` on 1,000 workers, with failures.

    python -m benchmarks.cluster

prints a table of scenarios. The scheduler is the real one; see `benchmarks.simulation` for what is
simulated. Options change the size, or describe a scenario of your own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import click

from benchmarks.simulation import Cluster, SimulatedCrew
from hfclip.embedding.events import Event, Finished, Given, GivenUp, Repeated, Stopped
from hfclip.embedding.scheduling import Policy, run_parts

_HOUR = 3_600.0

# Measured on 2 cores of an AMD EPYC of family 25 (results/encode.md, results/preprocess.md):
# ViT-B/32 in bfloat16 with batches of 16, and JPEG files of 640 x 480 decoded on both cores.
ENCODED, DECODED = 45.7, 2 * 550.0
RATE = 1 / (1 / ENCODED + 1 / DECODED)
"""Images a second of a worker with 2 cores, which decode and compute in turns."""

PARTS, PART_SIZE = 20_000, 5_000
OUTAGE = 10 * 60.0
"""Seconds for which the storage of the parts does not answer."""


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
    policy: Policy = field(default_factory=Policy)
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


@dataclass(frozen=True)
class Scenario:
    """What goes wrong.

    Attributes:
        title: A sentence about it, for the table.
        changes: Attributes of the cluster.
        bad_parts: Whether one part always fails, and another one always kills its worker.
        outage: When the storage of the parts stops answering for `OUTAGE`, as a share of the ideal
            time.
        restart: When the process of the scheduler is killed, as a share of the ideal time.
        copies: Whether parts that are late are given to a second worker.
    """

    title: str
    changes: Mapping[str, float] = field(default_factory=dict)
    bad_parts: bool = False
    outage: float | None = None
    restart: float | None = None
    copies: bool = True

    def job(self, cluster: Cluster, parts: int = PARTS, part_size: int = PART_SIZE) -> Job:
        """Returns the job of this scenario on a cluster."""
        ideal = parts * part_size / cluster.rate / cluster.workers
        cluster = replace(cluster, **self.changes)  # type: ignore[arg-type]  # all are numbers
        if self.bad_parts:
            failing, killing = frozenset({parts // 3}), frozenset({parts // 2})
            cluster = replace(cluster, failing=failing, killing=killing)
        if self.outage is not None:
            cluster = replace(cluster, outages=((self.outage * ideal, OUTAGE),))
        return Job(
            cluster=cluster,
            parts=parts,
            part_size=part_size,
            policy=Policy() if self.copies else replace(Policy(), slow=math.inf),
            restarts=() if self.restart is None else (self.restart * ideal,),
        )


_USUAL = {"spread": 0.2, "variety": 0.1, "stragglers": 0.002}
_DEATHS, _SPOT = {"deaths": 0.5}, {"losses": 0.5}

SCENARIOS: Mapping[str, Scenario] = {
    "even": Scenario("all workers are equally fast, and nothing fails"),
    "usual": Scenario(
        "nodes differ by 20%, parts by 10%, and 1 of 500 attempts takes 10 times as long", _USUAL
    ),
    "no-copies": Scenario("the same, without second attempts", _USUAL, copies=False),
    "deaths": Scenario("the usual, and each worker is killed every 2 hours", _USUAL | _DEATHS),
    "spot": Scenario(
        "the usual, and each node is taken away every 2 hours; another comes after 5 minutes",
        _USUAL | _SPOT,
    ),
    "bad-parts": Scenario(
        "the usual, 1 part always fails, and 1 always kills its worker", _USUAL, bad_parts=True
    ),
    "outage": Scenario(
        "the usual, and the storage of the parts does not answer for 10 minutes", _USUAL, outage=0.5
    ),
    "late-outage": Scenario("the same during the last parts", _USUAL, outage=1.0),
    "restart": Scenario(
        "the usual, and the driver is killed at half time and started again", _USUAL, restart=0.5
    ),
    "all": Scenario(
        "all of these",
        _USUAL | _DEATHS | _SPOT,
        bad_parts=True,
        outage=0.4,
        restart=0.9,
    ),
}

HEADER = (
    "| scenario | hours | against the ideal | parts given up | second attempts | parts done twice "
    "| worker-hours lost | worker-hours idle |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: "
    "| ---: |"
)


def row(title: str, outcome: Outcome) -> str:
    """Returns the row of a scenario in the table, in Markdown."""
    total = outcome.useful_hours + outcome.lost_hours + outcome.idle_hours
    cells = [
        title,
        f"{outcome.hours:.2f}",
        f"{outcome.hours / outcome.ideal_hours:.2f} x",
        f"{outcome.given_up + outcome.pending:,}",
        f"{outcome.copies:,}",
        f"{outcome.twice:,}",
        f"{outcome.lost_hours:.1f} ({outcome.lost_hours / total:.1%})",
        f"{outcome.idle_hours:.1f} ({outcome.idle_hours / total:.1%})",
    ]
    return f"| {' | '.join(cells)} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--workers", type=click.IntRange(min=1), default=1_000, show_default=True)
@click.option(
    "--node-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Workers on a node.",
)
@click.option("--parts", type=click.IntRange(min=1), default=PARTS, show_default=True)
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    default=PART_SIZE,
    show_default=True,
    help="Inputs of a part.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=round(RATE, 1),
    show_default=True,
    help="Inputs a second of a worker.",
)
@click.option(
    "--start",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="Seconds until a worker is ready.",
)
@click.option(
    "--overhead",
    type=click.FloatRange(min=0),
    default=2,
    show_default=True,
    help="Seconds of each part for its plan and its upload.",
)
@click.option(
    "--replacement",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="Seconds until a node takes the place of another.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=90,
    show_default=True,
    help="Seconds for which a worker tries to reach the storage before its attempt fails.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a scenario.")
def main(names: tuple[str, ...], parts: int, part_size: int, as_json: bool, **options: Any) -> None:
    """Simulate `hfclip embed --engine ray`: all scenarios, or those that are named.

    The scheduler is that of hfclip. Workers, nodes and storage are simulated. Times in the table
    are simulated, too; the same options give the same table.

    \b
    Examples:
      python -m benchmarks.cluster
      python -m benchmarks.cluster usual spot --workers 64 --rate 4000
    """  # noqa: D301  # \b is click's own mark
    if not as_json:
        click.echo(HEADER)
    for name in names or SCENARIOS:
        scenario = SCENARIOS[name]
        outcome = simulate(scenario.job(Cluster(**options), parts, part_size))
        if as_json:
            click.echo(json.dumps({"scenario": name, **asdict(outcome)}))
        else:
            click.echo(row(scenario.title, outcome))
        if outcome.stopped:
            click.echo(f"{name}: {outcome.stopped}; {outcome.pending:,} parts are left.", err=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.cluster")
