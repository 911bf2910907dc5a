"""Every program gives the same values with hfclip as with clip-anytorch."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from half_precision import fast_half_precision
from torch import Tensor

from . import programs
from .world import DTYPES, PROGRAMS, Program, World, outcome, silently

# Most values are identical; another memory layout may change the order of a sum.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

RUNS = [
    pytest.param(program, kind, dtype, id=f"{program.name}-{kind}-{dtype}")
    for program in PROGRAMS
    for kind in program.kinds
    for dtype in program.dtypes
    if dtype != "bfloat16"
    or kind == program.kinds[0]  # one architecture is enough in bfloat16, to save time
]


def test_there_are_many_programs_of_many_kinds() -> None:
    assert len(PROGRAMS) >= 60
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)
    assert {program.name.split(".")[0] for program in PROGRAMS} == set(programs.__all__)


@pytest.mark.parametrize(("program", "kind", "dtype"), RUNS)
def test_a_program_gives_the_values_of_clip(
    program: Program,
    kind: str,
    dtype: str,
    real: ModuleType,
    standin: ModuleType,
    weights: Callable[[str], str],
    tmp_path: Path,
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    their_world = World(real, weights(kind), kind, DTYPES[dtype], theirs)
    with fast_half_precision() if dtype == "float16" else nullcontext():
        expected = silently(lambda: outcome(program, their_world))
        found = outcome(program, World(standin, weights(kind), kind, DTYPES[dtype], ours))
    assert_tell_something(expected)
    assert len(found) == len(expected)
    for value, other in zip(found, expected, strict=True):
        assert_same(value, other, DTYPES[dtype])


def assert_tell_something(values: list[Any]) -> None:
    """Raises if the values are missing, not finite or constant: these do not test the model."""
    assert values
    numbers = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
    assert all(value.isfinite().all() for value in numbers)
    assert not numbers or any(value.numel() == 1 or value.std() > 0 for value in numbers)


def assert_same(found: Any, expected: Any, computed_in: torch.dtype) -> None:
    if not isinstance(expected, Tensor):
        assert found == expected
        return
    assert found.shape == expected.shape
    assert found.is_floating_point() == expected.is_floating_point()
    if not expected.is_floating_point():
        assert torch.equal(found.long(), expected.long())
        return
    assert found.dtype == expected.dtype
    difference = (found.double() - expected.double()).norm()
    relative = difference / expected.double().norm().clamp(min=1e-12)
    assert relative <= TOLERANCES[computed_in], f"relative difference {relative:.1e}"
