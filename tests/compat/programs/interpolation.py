"""Weights as vectors: mixed, averaged, added and subtracted by name."""

# The type checker does not know the base classes, because `clip` is an argument.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, valid-type"

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..world import World, program


def noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Returns normal random numbers that repeat after 4,099, to draw fewer for large tables."""
    numbers = torch.randn(min(shape.numel(), 4_099), generator=generator)
    return numbers.repeat(-(-shape.numel() // 4_099))[: shape.numel()].view(shape)


def tuned(model: Any, seed: int) -> dict[str, Tensor]:
    """Returns a state dict as after some training, different for each seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.02 * noise(tensor.shape, generator).to(tensor.dtype)
        if tensor.is_floating_point() and "running" not in name
        else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def evaluate(model: Any, preprocess: Any, world: World) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(world.images(preprocess), world.tokens())[0]
    return logits


@program()
def wise_ft(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    zero_shot, fine_tuned = copy.deepcopy(model.state_dict()), tuned(model, 1)
    assert set(zero_shot) == set(fine_tuned)
    results = []
    for alpha in (0.0, 0.5, 1.0):
        theta = {key: (1 - alpha) * zero_shot[key] + alpha * fine_tuned[key] for key in zero_shot}
        model.load_state_dict(theta)
        results.append(evaluate(model, preprocess, world))
    return results


@program(half=False)
def model_soup(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    ingredients = [tuned(model, seed) for seed in range(3)]
    soup = {
        name: sum(state[name] for state in ingredients) / 3
        if tensor.is_floating_point()
        else tensor
        for name, tensor in ingredients[0].items()
    }
    model.load_state_dict(soup)
    return evaluate(model, preprocess, world)


@program(half=False)
def task_arithmetic(clip: Any, world: World) -> Any:
    """Task vectors: one added, one forgotten, and those too small trimmed (TIES)."""
    model, preprocess = world.load()
    base = copy.deepcopy(model.state_dict())
    states = [tuned(model, seed) for seed in (1, 2)]
    first, second = ({name: state[name] - base[name] for name in base} for state in states)
    edited = {}
    for name, tensor in base.items():
        vector = first[name] - 0.5 * second[name]
        small = vector.abs() < vector.abs().float().mean()
        edited[name] = tensor + vector.masked_fill(small, 0).to(tensor.dtype)
    model.load_state_dict(edited)
    return evaluate(model, preprocess, world)


@program(half=False)
def moving_average_teacher(clip: Any, world: World) -> Any:
    """A moving average of the student is its teacher."""
    model, preprocess = world.load()
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, tokens = world.images(preprocess), world.tokens()
    losses = []
    for _ in range(2):
        target = teacher(images, tokens)[0].float().softmax(-1)
        loss = F.cross_entropy(model(images.flip(-1), tokens)[0].float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(teacher.parameters(), model.parameters(), strict=True):
                ours.mul_(0.9).add_(theirs, alpha=0.1)
        losses.append(loss)
    return losses, evaluate(teacher, preprocess, world)


@program(half=False)
def spherical_interpolation(clip: Any, world: World) -> Any:
    model, preprocess = world.load()
    base, other = copy.deepcopy(model.state_dict()), tuned(model, 4)
    mixed = {}
    for name, tensor in base.items():
        if not tensor.is_floating_point() or not tensor.dim():
            mixed[name] = tensor
            continue
        a, b = tensor.float().flatten(), other[name].float().flatten()
        angle = F.cosine_similarity(a, b, dim=0).clamp(-1, 1).acos().clamp(min=1e-3)
        between = ((0.6 * angle).sin() * a + (0.4 * angle).sin() * b) / angle.sin()
        mixed[name] = between.view_as(tensor).to(tensor.dtype)
    model.load_state_dict(mixed, strict=True)
    return evaluate(model, preprocess, world)


@program(half=False)
def towers_of_two_models(clip: Any, world: World) -> Any:
    """A locked image tower (LiT) beside the text tower of another run, by prefix."""
    model, preprocess = world.load()
    state = tuned(model, 5)
    text_only = {name: value for name, value in state.items() if not name.startswith("visual.")}
    missing, unexpected = model.load_state_dict(text_only, strict=False)
    return sorted(missing), unexpected, evaluate(model, preprocess, world)


@program(half=False)
def shrunk_and_perturbed(clip: Any, world: World) -> Any:
    """Flat parameter vectors, as sharpness measures take them."""
    model, preprocess = world.load()
    vector = torch.nn.utils.parameters_to_vector(p.float() for p in model.parameters())
    generator = torch.Generator().manual_seed(3)
    vector = 0.9 * vector + 0.01 * noise(vector.shape, generator)
    offset = 0
    for parameter in model.parameters():
        part = vector[offset : offset + parameter.numel()]
        parameter.data = part.view_as(parameter).to(parameter.dtype)
        offset += parameter.numel()
    return vector[::10_007], evaluate(model, preprocess, world)
