"""Measures each run in a fresh process, the engines taking turns so that drift hits all alike.

The process that measures imports no torch: what a child inherits on its start would otherwise
count as the least memory that it can be seen to need.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import machine

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 900
# The part of the cores' time beyond which other programs disturb a run.
CALM = 0.1


@dataclass(frozen=True)
class Case:
    """An engine at one task.

    Attributes:
        group: What is compared with each other, such as the name of a model.
        engine: Its name in the tables.
        task: `module:function` of a generator, as `benchmarks.child` runs it.
        arguments: What the function is given.
    """

    group: str
    engine: str
    task: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lap:
    """One leg of a run: its seconds, and the bytes held at its end and at most until then.

    `figure` is what the task found out in it, if it says so.
    """

    seconds: float
    resident: int
    peak: int
    figure: float | None = None

    @property
    def found(self) -> float:
        """The figure, of a lap that has one."""
        if self.figure is None:
            raise ValueError("this lap has no figure; its task yields (name, figure) for one")
        return self.figure


Sample = Mapping[str, Lap]


@dataclass
class Result:
    """What a case gave: one sample a round, or the reason why there is none.

    Attributes:
        case: What was run.
        samples: One a round.
        others: For each, the part of the cores' time that other programs had; empty if unknown.
        not_installed: What the engine lacks.
        not_here: What this machine lacks for it.
        failure: The last line that it wrote.
    """

    case: Case
    samples: list[Sample] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    not_installed: str = ""
    not_here: str = ""
    failure: str = ""

    @property
    def absence(self) -> str:
        """Why there are no samples, in words; empty if there are."""
        if self.not_installed:
            return f"not installed: {self.not_installed}"
        if self.not_here:
            return f"not on this machine: {self.not_here}"
        return f"failed: {self.failure}" if self.failure else ""


def measure(
    cases: Sequence[Case], rounds: int, patience: float = 0, *, warms_up: bool = True
) -> list[Result]:
    """Runs every case once a round, behind a progress bar.

    A case that fails is left out of the rounds that follow.

    Args:
        cases: What to run.
        rounds: How often.
        patience: Seconds for which a run waits for other programs to rest, and is repeated if
            they did not.
        warms_up: Whether a round that is not counted goes before the first.
    """
    results = [Result(case) for case in cases]
    numbers = range(0 if warms_up else 1, rounds + 1)
    with tqdm(total=len(cases) * len(numbers), unit="run", disable=None) as bar:
        for number in numbers:
            for result in _turns(results, number):
                bar.set_postfix_str(f"{result.case.group}: {result.case.engine}")
                if not result.absence:
                    _run_once(result, patience if number else 0, counted=number > 0)
                bar.update()
    return results


def _turns(results: list[Result], number: int) -> Iterator[Result]:
    """Begins each round with another case: none always runs after the same conditions."""
    first = number % max(len(results), 1)
    yield from results[first:]
    yield from results[:first]


def _run_once(result: Result, patience: float, *, counted: bool) -> None:
    answer, others = _least_disturbed(result.case, patience)
    result.not_installed = answer.get("not_installed", "")
    result.not_here = answer.get("not_here", "")
    result.failure = answer.get("failure", "")
    if result.absence:
        result.samples.clear()
        result.others.clear()
    elif counted:
        result.samples.append({name: Lap(**lap) for name, lap in answer["laps"].items()})
        result.others += [] if others is None else [others]


def _least_disturbed(case: Case, patience: float) -> tuple[dict[str, Any], float | None]:
    """Repeats a run that other programs disturbed, while patience lasts, whatever it measured.

    Returns:
        The answer of the run that had the fewest neighbours, and their share.
    """
    deadline = time.monotonic() + patience
    best: tuple[dict[str, Any], float | None] | None = None
    while best is None or ((best[1] or 0) > CALM and time.monotonic() < deadline):
        machine.wait_for_calm(CALM, deadline)
        neighbours = machine.Neighbours()
        attempt = _start(case), neighbours.share()
        if best is None or (attempt[1] or 0) < (best[1] or 0):
            best = attempt
        if "laps" not in attempt[0]:
            return attempt
    return best


def _start(case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.child", case.task, *case.arguments]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},  # nothing may wait for a network
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer after {TIMEOUT} s"}
    if done.returncode:
        return {"failure": _last_line(done.stderr) or f"exit status {done.returncode}"}
    answer: dict[str, Any] = json.loads(_last_line(done.stdout))
    return answer


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
