"""Reads weight files of every kind that CLIPs come in, and runs nothing that is in them."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hfclip.archive import is_torchscript, read_archive
from hfclip.config import ClipConfig
from hfclip.errors import (
    CheckpointError,
    ConfigError,
    HfclipError,
    UnsafeCheckpointError,
    WeightsMismatchError,
)
from hfclip.sources import Source

# Where trainers put the weights inside what they save, and what wrappers put before each name.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.")
# OpenAI's archives hold these beside the weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Checkpoint:
    """A CLIP on disk: its configuration and its tensors in OpenAI's layout, mapped if possible."""

    path: Path
    format: str
    config: ClipConfig
    tensors: Mapping[str, Tensor]


def read_checkpoint(source: Source) -> Checkpoint:
    """Reads a weight file and its configuration.

    Without a config.json the configuration is inferred from the shapes, which is possible for
    OpenAI's own models only: weights do not tell the activation or the preprocess.

    Raises:
        UnsafeCheckpointError: The file asks for code to be run; nothing was.
        CheckpointError: The file is missing, empty, truncated, damaged or of an unknown kind.
        WeightsMismatchError: Its tensors are not a CLIP's in OpenAI's layout.
        ConfigError: The config.json is refused.
    """
    path = source.weights
    kind = _detect(path)
    try:
        tensors = _READERS[kind](path)
    except HfclipError:
        raise
    except Exception as error:  # the libraries beneath raise many kinds for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: {_first_line(error)}. "
            "It is truncated or damaged; get it again."
        ) from error
    tensors = _openai_names(tensors, path)
    if source.config is not None:
        config = ClipConfig.from_json(source.config)
    else:
        config = infer_config(tensors, path)
    return Checkpoint(path, kind, config, tensors)


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> ClipConfig:
    """Reads the numbers of a CLIP off the shapes of its weights in OpenAI's layout.

    Raises:
        WeightsMismatchError: The tensors that tell are missing or of impossible shapes.
    """
    try:
        vision = _infer_vit(tensors) if "visual.proj" in tensors else _infer_resnet(tensors)
        return ClipConfig(
            embed_dim=tensors["text_projection"].shape[1],
            **vision,
            context_length=tensors["positional_embedding"].shape[0],
            vocab_size=tensors["token_embedding.weight"].shape[0],
            transformer_width=tensors["ln_final.weight"].shape[0],
            transformer_heads=tensors["ln_final.weight"].shape[0] // 64,
            transformer_layers=_count(tensors, "transformer.resblocks."),
        )
    except KeyError as error:
        raise WeightsMismatchError(
            f"{path} has no config.json and its weights are not in OpenAI's layout: "
            f"{error.args[0]} is missing. Give the folder with its config.json."
        ) from error
    except (IndexError, ZeroDivisionError, ConfigError) as error:
        raise WeightsMismatchError(
            f"{path} has no config.json and its shapes are not those of an OpenAI CLIP: {error} "
            "Give the folder with its config.json."
        ) from error


def _infer_vit(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = tensors["visual.conv1.weight"].shape  # (W, 3, patch, patch)
    grid = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "image_resolution": patches[-1] * grid,
        "vision_layers": _count(tensors, "visual.transformer.resblocks."),
        "vision_width": patches[0],
        "vision_patch_size": patches[-1],
    }


def _infer_resnet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    grid = round((tensors["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "image_resolution": grid * 32,
        "vision_layers": tuple(_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow a prefix: the layers of a stack."""
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def _detect(path: Path) -> str:
    """Names the kind of a file by its first bytes; names and endings are not trusted."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened: {error.strerror or error}.") from error
    if not head:
        raise CheckpointError(f"{path} is empty; a download or a copy was cut off. Get it again.")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[8:] == b"{":
        return "safetensors file"
    if head.startswith(b"\x80"):
        return "PyTorch state dict"
    raise CheckpointError(
        f"{path} begins with {head[:8]!r}: neither safetensors, nor a PyTorch state dict, nor a "
        "TorchScript archive. If it is a page or a pointer, fetch the file that it stands for."
    )


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises many kinds for a damaged directory
        raise CheckpointError(
            f"{path} is a zip whose directory is damaged: {_first_line(error)}. "
            "It is most likely truncated; get it again."
        ) from error
    return "TorchScript archive" if is_torchscript(names) else "PyTorch state dict"


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        saved = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise UnsafeCheckpointError(
                f"{path} holds more than tensors, and what it names could run code; nothing was "
                f"run. Save the weights alone: torch.save(model.state_dict(), ...). "
                f"({_reason(error)})"
            ) from error
        raise
    return _unwrap(saved, path)


def _unwrap(saved: object, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
    if not isinstance(saved, Mapping) or not saved:
        raise CheckpointError(f"{path} holds a {type(saved).__name__}, not a state dict.")
    foreign = [key for key, value in saved.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{path} holds {', '.join(map(repr, foreign[:3]))} among its tensors; a state dict has "
            f"tensors alone, or lies under one of {', '.join(map(repr, _WRAPPERS))}."
        )
    return {str(key): value for key, value in saved.items()}


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "safetensors file": safetensors.torch.load_file,
    "PyTorch state dict": _read_state_dict,
    "TorchScript archive": read_archive,
}


def _openai_names(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Takes wrappers' prefixes off the names and leaves out what is no weight."""
    for prefix in _PREFIXES * 2:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    weights = {key: value for key, value in tensors.items() if key not in _NOT_WEIGHTS}
    if not weights:
        raise CheckpointError(f"{path} holds no tensors.")
    return weights


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _reason(error: BaseException) -> str:
    """The line of torch's long message that names the culprit."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "GLOBAL" in line or "global" in line), lines[0])[:200]
