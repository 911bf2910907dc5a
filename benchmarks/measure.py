"""Runs each case in a fresh process. The engines take turns, so that drift affects all of them.

The measuring process does not import torch: a child starts with the memory of its parent, which
would count as the peak memory of the child.
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
# The longest run embeds 20,000 pictures.
TIMEOUT = 1800
# Share of the cores' time above which other programs disturb a run.
CALM = 0.1


@dataclass(frozen=True)
class Case:
    """One engine at one task.

    Attributes:
        group: Cases of the same group are compared, such as those of one model.
        engine: Name of the engine in the tables.
        task: `module:function` of a generator, as `benchmarks.child` runs it.
        arguments: Arguments of the function.
    """

    group: str
    engine: str
    task: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lap:
    """One step of a run.

    Attributes:
        seconds: Duration of the step.
        resident: Bytes of memory held at its end.
        peak: Largest number of bytes held until its end.
        figure: Number that the task itself computed, if any.
    """

    seconds: float
    resident: int
    peak: int
    figure: float | None = None

    @property
    def found(self) -> float:
        """Returns the figure; raises ValueError if there is none."""
        if self.figure is None:
            raise ValueError("this lap has no figure; its task yields (name, figure) for one")
        return self.figure


Sample = Mapping[str, Lap]


@dataclass
class Result:
    """Samples of a case, or the reason why there are none.

    Attributes:
        case: The case.
        samples: One for each round.
        others: For each sample, the share of the cores' time that other programs had; empty if
            unknown.
        not_installed: The package that the engine needs and that is not installed.
        not_here: The feature that the engine needs and that this machine does not have.
        failure: Last line that a failed run wrote.
    """

    case: Case
    samples: list[Sample] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    not_installed: str = ""
    not_here: str = ""
    failure: str = ""

    @property
    def absence(self) -> str:
        """Says why there are no samples; empty if there are some."""
        if self.not_installed:
            return f"not installed: {self.not_installed}"
        if self.not_here:
            return f"not on this machine: {self.not_here}"
        return f"failed: {self.failure}" if self.failure else ""


def measure(
    cases: Sequence[Case], rounds: int, patience: float = 0, *, warms_up: bool = True
) -> list[Result]:
    """Runs every case once in each round and shows a progress bar.

    A case that fails is not run again.

    Args:
        cases: The cases.
        rounds: Number of rounds.
        patience: Seconds for which a run waits for other programs to finish, and is repeated if
            they disturb it.
        warms_up: Whether to run a first round that is not counted.
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
    """Starts each round with another case, so that no case always follows the same one."""
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
    """Repeats a disturbed run until `patience` seconds have passed, whatever it measured.

    Returns:
        The answer of the run that other programs disturbed least, and their share.
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
            env={**os.environ, "HF_HUB_OFFLINE": "1"},  # no run waits for a network
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
