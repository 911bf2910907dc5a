"""Defines a benchmark: its section of the report and its cases.

To add a benchmark, write a module that ends in a `BENCHMARK`, and add it to the list in `__main__`.
Its engines are tasks that `benchmarks.child` runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Case
from benchmarks.report import Section


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        cache: Folder that keeps random weights and pictures.
        models: Names of releases, or None for the choice of the benchmark.
    """

    cache: Path
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Its name on the command line is the name of its section.

    Attributes:
        section: Its measures, targets, method and notes.
        cases: Writes the files that the engines read, unless they exist, and returns one case for
            each engine and group. It runs in the measuring process and must not import torch.
        rounds: Number of rounds, unless the command line gives another.
        warms_up: Whether a first round is not counted. It brings programs and weights into the page
            cache, which is needed if the measured time includes reading them.
    """

    section: Section
    cases: Callable[[Options], Sequence[Case]]
    rounds: int = 3
    warms_up: bool = True
