"""Reads weight files of every kind that CLIPs come in, and runs nothing that is in them."""

import math
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from hfclip.archive import Saved, View, is_torchscript, read_archive, read_legacy, read_zip
from hfclip.config import ClipConfig
from hfclip.errors import (
    CheckpointError,
    ConfigError,
    HfclipError,
    WeightsMismatchError,
)
from hfclip.layouts import from_transformers
from hfclip.sources import Source

# Where trainers put the weights inside what they save, and what wrappers put before each name.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.")
_MAX_WRAPPERS = 4  # around one another; a file can hold a wrapper that holds itself
# What is a little short is told by names and shapes, when the model is built.
_MAX_SHORTFALL = 10
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
        tensors = _openai_names(_READERS[kind](path), path)
        if source.named_by_transformers:
            tensors = from_transformers(tensors)
    except HfclipError:
        raise
    except Exception as error:  # the libraries beneath raise many kinds for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: {_first_line(error)}. "
            "It is truncated or damaged; get it again."
        ) from error
    config = source.config or infer_config(tensors, path)
    _check_amount(config, tensors, path)
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


def adapted(config: ClipConfig, tensors: Mapping[str, Tensor]) -> ClipConfig:
    """The configuration with the sizes that fine-tuning may have changed, read off the tensors.

    These are the image's side (by the number of positions), the context and the vocabulary.
    """
    changes = {}
    positions = tensors.get(
        "visual.attnpool.positional_embedding"
        if config.is_resnet
        else "visual.positional_embedding"
    )
    if positions is not None and len(positions) != config.image_positions:
        changes["image_resolution"] = _grid(positions) * (config.vision_patch_size or 32)
    for name, key in _RESIZABLE.items():
        if key in tensors:
            changes[name] = len(tensors[key])
    return ClipConfig(**{**config.to_dict(), **changes})


_RESIZABLE = {"context_length": "positional_embedding", "vocab_size": "token_embedding.weight"}


def _check_amount(config: ClipConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses a small file that would make a huge model, before memory is asked for."""
    held = sum(tensor.numel() for tensor in tensors.values())
    if config.parameter_count > _MAX_SHORTFALL * held:
        raise WeightsMismatchError(
            f"{path} holds {held:,} numbers, far from the {config.parameter_count:,} parameters of "
            "its configuration. Give the config.json that belongs to these weights."
        )


def _infer_vit(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = tensors["visual.conv1.weight"].shape  # (W, 3, patch, patch)
    grid = _grid(tensors["visual.positional_embedding"])
    return {
        "image_resolution": patches[-1] * grid,
        "vision_layers": _count(tensors, "visual.transformer.resblocks."),
        "vision_width": patches[0],
        "vision_patch_size": patches[-1],
    }


def _infer_resnet(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    grid = _grid(tensors["visual.attnpool.positional_embedding"])
    return {
        "image_resolution": grid * 32,
        "vision_layers": tuple(_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _grid(positions: Tensor) -> int:
    """Patches per side: there is a row for each patch and one more."""
    return math.isqrt(max(positions.shape[0] - 1, 0))


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
        return "legacy PyTorch state dict"
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


def _state_dict(saved: Saved) -> dict[str, Tensor]:
    """The tensors among what was saved."""
    content = _unwrap(saved.content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"{saved.path} holds {_described(content)}, not a state dict. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    foreign = [key for key, value in content.items() if not isinstance(value, View)]
    if foreign:
        raise CheckpointError(
            f"{saved.path} holds {_some(foreign)} among its tensors; a state dict has tensors "
            f"alone, or lies under one of {_some(_WRAPPERS)}. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    return {str(key): saved.tensor(str(key), view) for key, view in content.items()}


def _unwrap(content: Any) -> Any:
    for _ in range(_MAX_WRAPPERS):
        inner = [content[key] for key in _WRAPPERS if isinstance(content, dict) and key in content]
        if not inner or not isinstance(inner[0], dict):
            break
        content = inner[0]
    return content


def _described(content: Any) -> str:
    kinds = {dict: "an empty dictionary", View: "a lone tensor", list: "a list", tuple: "a tuple"}
    return kinds.get(type(content), "no tensors")


def _some(names: Collection[object]) -> str:
    shown = [repr(name)[:60] for name in list(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "safetensors file": safetensors.torch.load_file,
    "PyTorch state dict": lambda path: _state_dict(read_zip(path)),
    "legacy PyTorch state dict": lambda path: _state_dict(read_legacy(path)),
    "TorchScript archive": read_archive,
}


def _openai_names(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Takes wrappers' prefixes off the names and leaves out what is no weight."""
    for prefix in _PREFIXES * 2:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    odd = [key for key in tensors if not key.isprintable()]
    if odd:
        raise CheckpointError(
            f"{path} names a tensor {_some(odd)}, which no weights are named; the file is damaged "
            "or was made to mislead. Get it again."
        )
    weights = {key: value for key, value in tensors.items() if key not in _NOT_WEIGHTS}
    if not weights:
        raise CheckpointError(f"{path} holds no weights. Export them again, or get the file again.")
    return weights


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
