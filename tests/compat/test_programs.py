"""Every program gives the same values with hfclip as with clip-anytorch."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from half_precision import fast_half_precision
from torch import Tensor, nn

from . import programs
from .copies import copied
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
    with fast_half_precision() if dtype == "float16" or program.mixed else nullcontext():
        expected = silently(lambda: outcome(program, their_world))
        found = outcome(program, World(standin, weights(kind), kind, DTYPES[dtype], ours))
    assert_tell_something(expected)
    assert len(found) == len(expected)
    for value, other in zip(found, expected, strict=True):
        assert_same(value, other, DTYPES[dtype])


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("package", ["real", "standin"])
def test_programs_get_exact_copies_of_a_loaded_model(
    package: str,
    kind: str,
    weights: Callable[[str], str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    world = World(request.getfixturevalue(package), weights(kind), kind, torch.float16, tmp_path)
    (model, _), (other, _) = silently(lambda: [world.load(), world.load()])
    name = "visual.conv1.weight"
    model.get_parameter(name).requires_grad_(False)
    twin = copied(model)
    assert model.get_parameter(name) is not twin.get_parameter(name)
    for found, expected in ((twin, model), (copied(other), other)):
        assert_same_modules(found, expected)
        memory = {tensor.data_ptr() for tensor in expected.state_dict().values()}
        assert memory.isdisjoint(t.data_ptr() for t in found.state_dict().values())


def assert_same_modules(found: nn.Module, expected: nn.Module) -> None:
    """Raises unless both have the same classes, attributes and values in the same order."""
    modules = zip(found.named_modules(), expected.named_modules(), strict=True)
    for (name, module), (other_name, other) in modules:
        assert (name, type(module)) == (other_name, type(other))
        assert list(vars(module)) == list(vars(other))
        assert [*module._modules] == [*other._modules]
        for ours, theirs in (
            (module._parameters, other._parameters),
            (module._buffers, other._buffers),
        ):
            assert list(ours) == list(theirs)
            for key, tensor in ours.items():
                assert tensor is theirs[key] is None or same_tensors(tensor, theirs[key])
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                assert same_tensors(value, vars(other)[key])
            elif not isinstance(value, dict):
                assert value == vars(other)[key]


def same_tensors(found: Any, expected: Any) -> bool:
    return (
        type(found) is type(expected)
        and found.dtype == expected.dtype
        and found.stride() == expected.stride()
        and found.requires_grad == expected.requires_grad
        and torch.equal(found, expected)
    )


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
