"""Checkpoints: folders from which training goes on, to the bit.

A checkpoint is written beside its place, synced to the disk and renamed, so that a folder with the
name of a checkpoint is complete, whenever the process ends. An older one is removed afterwards.
"""

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hfclip.atomic import synced
from hfclip.checkpoints.tensors import read_tensors
from hfclip.errors import TrainingError
from hfclip.model import CLIP

_WEIGHTS_FILE = "model.safetensors"
_MOMENTS_FILE = "moments.safetensors"
_STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{9})")
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class State:
    """What a training knows beside its weights and moments, in JSON types.

    Attributes:
        identity: What must be the same when training goes on: the digests of base and data, and the
            settings that decide the result.
        step: The number of completed steps.
        chunk: The largest number of pictures or captions that a process encodes at once.
        seconds: The time of training in all runs.
        evaluations: The metrics before training and after each epoch, oldest first.
    """

    identity: dict[str, Any]
    step: int = 0
    chunk: int = 1
    seconds: float = 0.0
    evaluations: list[dict[str, Any]] = field(default_factory=list)


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest complete checkpoint in a folder, or None."""
    names = sorted(path.name for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return folder / names[-1] if names else None


def clear_unfinished(folder: Path) -> None:
    """Removes what processes left that ended while they wrote a checkpoint, or removed one."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints in a folder, complete or not."""
    for path in folder.glob("step-*"):
        _remove(path)
    clear_unfinished(folder)


def write_checkpoint(
    folder: Path,
    model: CLIP,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: State,
) -> Path:
    """Writes a checkpoint and removes the older ones.

    Args:
        folder: The folder of the checkpoints.
        model: The model.
        parameters: The parameters that are trained, by name.
        optimizer: Their optimizer.
        state: The state. Its step names the checkpoint.
    """
    path = folder / f"step-{state.step:09d}"
    if path.is_dir():  # the same state: training is a function of the step
        return path
    part = folder / f".{path.name}.{uuid.uuid4().hex[:12]}.part"
    part.mkdir(parents=True)
    moments = {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        for moment in _MOMENTS
    }
    _save(model.state_dict(), part / _WEIGHTS_FILE)
    _save(moments, part / _MOMENTS_FILE)
    (part / _STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
    for each in (*part.iterdir(), part):
        synced(each)
    part.rename(path)
    synced(folder)
    for older in folder.glob("step-*"):
        if older != path:
            _remove(older)
    return path


def read_state(path: Path) -> State:
    """Returns the state of a checkpoint.

    Raises:
        TrainingError: The file is damaged, or written by another version of hfclip.
    """
    try:
        values = json.loads((path / _STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(values, dict) or values.keys() != {each.name for each in fields(State)}:
        raise _damaged(path, f"{_STATE_FILE} has other fields")
    return State(**values)


def restore(
    path: Path | None,
    model: CLIP,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> list[Tensor]:
    """Copies the weights and moments of a checkpoint into a model and its optimizer.

    Args:
        path: The checkpoint. None leaves the weights as they are and sets the moments to 0, for
            a process that receives both from another one.
        model: The model.
        parameters: The parameters that are trained, by name.
        optimizer: Their optimizer.
        step: The number of completed steps.

    Returns:
        All tensors that a checkpoint holds, in the same order for the same model.

    Raises:
        TrainingError: A file is damaged.
    """
    moments: Mapping[str, Tensor] = {}
    try:
        if path is not None:
            weights = read_tensors(path / _WEIGHTS_FILE)
            moments = read_tensors(path / _MOMENTS_FILE)
            model.load_state_dict(weights)  # copies: the file may be removed
        for name, parameter in parameters.items():
            place = parameter.device if optimizer.defaults["fused"] else "cpu"
            state = {"step": torch.tensor(float(step), device=place)}
            for moment in _MOMENTS:
                kept = torch.zeros_like(parameter, requires_grad=False)
                if path is not None:
                    kept.copy_(moments[f"{name}.{moment}"])
                state[moment] = kept
            optimizer.state[parameter] = state
    except (OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    states = [optimizer.state[parameter] for parameter in parameters.values()]
    kept_moments = [state[moment] for state in states for moment in _MOMENTS]
    return [*model.state_dict().values(), *kept_moments]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(own, path)


def _remove(path: Path) -> None:
    """Removes a checkpoint. It loses its name first, so that no part of it counts as complete."""
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.old")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _damaged(path: Path | None, cause: object) -> TrainingError:
    return TrainingError(
        f"The checkpoint {path} cannot be read ({cause}). Remove it to train from the start."
    )
