"""What a benchmark is: its section of the report and how its cases are made.

A module of this folder becomes a name on the command line in two lines of `__main__`: its import,
and its `BENCHMARK` in the list there. Its engines are tasks as `benchmarks.child` runs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Case
from benchmarks.report import Section


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        cache: The folder where random weights and pictures are kept.
        models: Names of releases, or None for those that the benchmark chooses itself.
    """

    cache: Path
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Benchmark:
    """One name on the command line, which is that of its section.

    Attributes:
        section: What is measured, what is claimed, and how it is to be read.
        cases: Writes what the engines read, unless it is there, and gives one case for each
            engine and group. It runs in the process that measures: it imports no torch.
        rounds: How often each case runs, unless the command line says otherwise.
        warms_up: Whether a round that is not counted goes before, which brings programs and weights
            into the page cache; not where what is measured begins after they were read.
    """

    section: Section
    cases: Callable[[Options], Sequence[Case]]
    rounds: int = 3
    warms_up: bool = True
