"""Reads weight files of every kind that CLIPs come in, and runs nothing that is in them."""

import math
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from hfclip.checkpoints.archive import Saved, is_torchscript, read_archive, read_legacy, read_zip
from hfclip.checkpoints.names import Naming, describe_foreign, find_foreign, find_naming, list_names
from hfclip.checkpoints.safe_unpickle import View
from hfclip.config import ClipConfig
from hfclip.errors import (
    CheckpointError,
    ConfigError,
    HfclipError,
    WeightsMismatchError,
)
from hfclip.layouts.files import Source
from hfclip.layouts.transformers import from_transformers

# Where trainers put the weights inside what they save.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
_MAX_WRAPPERS = 4  # around one another; a file can hold a wrapper that holds itself
# What open_clip's trainer saves; its models use GELU unless their names end in -quickgelu.
_OPEN_CLIP_TRAINING = {"name", "epoch", "optimizer", "state_dict"}
_MAX_NAME = 255  # characters; those of a CLIP's names are under a hundred
# A file may lack this factor of its parameters: missing names are reported when the model is built.
_MAX_SHORTFALL = 10

_INFERRED = "the CLIP that its shapes describe"
_ASSUMED = (
    "OpenAI's activation (QuickGELU), heads of width 64, and OpenAI's preprocess: the file does "
    "not say; base= (--base) names the model that it was fine-tuned from"
)


@dataclass(frozen=True)
class Checkpoint:
    """A CLIP on disk: its configuration and its tensors by OpenAI's names.

    Attributes:
        path: The weight file.
        format: The kind of the file, in words.
        config: The configuration.
        tensors: The tensors, which belong to the process unless the source may be mapped.
        prefix: What stands before each name in the file.
        config_origin: Where the configuration comes from, in words.
        assumed: What neither the file nor its source says, in words; None if nothing.
    """

    path: Path
    format: str
    config: ClipConfig
    tensors: Mapping[str, Tensor]
    prefix: str = ""
    config_origin: str = "its configuration"
    assumed: str | None = None


class _Content(NamedTuple):
    """What a weight file holds: its tensors, and the names of what a trainer saved beside them."""

    tensors: dict[str, Tensor]
    beside: frozenset[str] = frozenset()


def read_checkpoint(source: Source) -> Checkpoint:
    """Reads a weight file and its configuration.

    The tensors are read into memory, so that the file may be overwritten afterwards. Only a
    safetensors file whose source says so is mapped instead.

    Without a configuration the numbers are inferred from the shapes, which is possible for
    OpenAI's own models only: weights do not tell the activation or the preprocess.

    Raises:
        UnsafeCheckpointError: The file asks for code to be run; nothing was.
        CheckpointError: The file is missing, empty, truncated, damaged, of an unknown kind, or is
            written by another program at the same time.
        WeightsMismatchError: Its tensors are not those of one CLIP.
        ConfigError: The config.json is refused.
    """
    path = source.weights
    kind = _detect(path)
    try:
        content = _read(source, kind)
        tensors, naming = _openai_names(content.tensors, path)
    except HfclipError:
        raise
    except Exception as error:  # the libraries beneath raise many kinds for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: {_first_line(error)}. "
            "It is truncated or damaged; get it again."
        ) from error
    config = _config(source, tensors)
    config_origin = source.config_origin if source.config else _INFERRED
    _check_amount(config, tensors, path, config_origin)
    if source.config is None and content.beside >= _OPEN_CLIP_TRAINING:
        _warn_of_open_clip(path)
    assumed = None if source.config else _ASSUMED
    return Checkpoint(path, kind, config, tensors, naming.prefix, config_origin, assumed)


def _config(source: Source, tensors: Mapping[str, Tensor]) -> ClipConfig:
    if source.config is None:
        return infer_config(tensors, source.weights)
    if not source.is_base:
        return source.config
    try:
        return adapted(source.config, tensors)
    except ConfigError as error:
        raise WeightsMismatchError(
            f"{source.weights} does not fit {source.config_origin}: with its sizes, {error}"
        ) from error


def _read(source: Source, kind: str) -> _Content:
    before = _state(source.weights)
    content = _READERS[kind](source)
    if _state(source.weights) != before:
        raise CheckpointError(
            f"{source.weights} changed while it was read: another program writes to it. Load it "
            "again once that program has finished."
        )
    return content


def _warn_of_open_clip(path: Path) -> None:
    warnings.warn(
        f"{path} was saved by open_clip's trainer and does not say which model it is. OpenAI's "
        "activation (QuickGELU) and preprocess are assumed, but most models of open_clip use "
        "GELU: say with base= (--base) what it was fine-tuned from.",
        stacklevel=4,  # the caller of `load`
    )


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> ClipConfig:
    """Reads the numbers of a CLIP off the shapes of its weights in OpenAI's layout.

    Raises:
        WeightsMismatchError: The tensors that tell are missing or of impossible shapes.
    """
    try:
        is_resnet = any(name.startswith(_RESNET) for name in tensors)
        vision = _infer_resnet(tensors) if is_resnet else _infer_vit(tensors)
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
        foreign = find_foreign(tensors)
        held = describe_foreign(foreign, []) if foreign else list_names(tensors)
        raise WeightsMismatchError(
            f"{path} has no config.json and its weights are not in OpenAI's layout: "
            f"{error.args[0]} is missing. The file holds {held}. Give the folder with its "
            "config.json."
        ) from error
    except (IndexError, ZeroDivisionError, ConfigError) as error:
        raise WeightsMismatchError(
            f"{path} has no config.json and its shapes are not those of an OpenAI CLIP: {error} "
            "Give the folder with its config.json."
        ) from error


_RESNET = ("visual.layer", "visual.attnpool.")


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
    if positions is not None and _rows(positions) not in (0, config.image_positions):
        changes["image_resolution"] = _grid(positions) * (config.vision_patch_size or 32)
    for name, key in _RESIZABLE.items():
        if key in tensors and _rows(tensors[key]):
            changes[name] = _rows(tensors[key])
    return ClipConfig(**{**config.to_dict(), **changes})


_RESIZABLE = {"context_length": "positional_embedding", "vocab_size": "token_embedding.weight"}


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 0


def _check_amount(
    config: ClipConfig, tensors: Mapping[str, Tensor], path: Path, config_origin: str
) -> None:
    """Refuses a small file that would make a huge model, before memory is asked for."""
    held = sum(tensor.numel() for tensor in tensors.values())
    if config.parameter_count > _MAX_SHORTFALL * held:
        raise WeightsMismatchError(
            f"{path} holds {held:,} numbers, far from the {config.parameter_count:,} "
            f"parameters of {config_origin}. Give the config.json that belongs to these "
            "weights, or say with base= (--base) what they were fine-tuned from."
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


def _read_safetensors(source: Source) -> _Content:
    backend = "mmap" if source.mapped else "pread"
    return _Content(safetensors.torch.load_file(source.weights, backend=backend))


def _read_saved(saved: Saved) -> _Content:
    """Reads the tensors of the state dict among what was saved."""
    content = _unwrap(saved.content, saved.path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"{saved.path} holds {_described(content)}, not a state dict. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    foreign = [key for key, value in content.items() if not isinstance(value, View)]
    if foreign:
        raise CheckpointError(
            f"{saved.path} holds {_some(foreign)} among its tensors; a state dict has tensors "
            f"alone, or lies under one of {', '.join(map(repr, _WRAPPERS))}. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    tensors = saved.tensors({str(key): view for key, view in content.items()})
    beside = frozenset(map(str, saved.content)) if content is not saved.content else frozenset()
    return _Content(tensors, beside)


def _unwrap(content: Any, path: Path) -> Any:
    """Finds the state dict in what a trainer saved.

    Raises:
        CheckpointError: Two wrappers of one dictionary hold tensors each.
    """
    for _ in range(_MAX_WRAPPERS):
        wrappers = [key for key in _WRAPPERS if isinstance(_item(content, key), dict)]
        holding = [key for key in wrappers if _holds_tensors(content[key])]
        if len(holding) > 1:
            raise CheckpointError(
                f"{path} holds tensors under {' and under '.join(map(repr, holding))}; nothing "
                "tells which of them to load. Save the weights of one alone: "
                "torch.save(model.state_dict(), ...)."
            )
        if not wrappers:
            break
        content = content[(holding or wrappers)[0]]
    return content


def _item(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _holds_tensors(content: dict[Any, Any], depth: int = _MAX_WRAPPERS) -> bool:
    """Whether a state dict is there, or in a wrapper inside."""
    if any(isinstance(value, View) for value in content.values()):
        return True
    inner = [_item(content, key) for key in _WRAPPERS] if depth else []
    return any(isinstance(value, dict) and _holds_tensors(value, depth - 1) for value in inner)


def _described(content: Any) -> str:
    kinds = {dict: "an empty dictionary", View: "a lone tensor", list: "a list", tuple: "a tuple"}
    return kinds.get(type(content), "no tensors")


def _some(names: Collection[object]) -> str:
    shown = [repr(name)[:60] for name in list(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


_READERS: dict[str, Callable[[Source], _Content]] = {
    "safetensors file": _read_safetensors,
    "PyTorch state dict": lambda source: _read_saved(read_zip(source.weights)),
    "legacy PyTorch state dict": lambda source: _read_saved(read_legacy(source.weights)),
    "TorchScript archive": lambda source: _Content(read_archive(source.weights)),
}


def _openai_names(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], Naming]:
    """Names the tensors of the file's CLIP as OpenAI does, and leaves out what is no weight."""
    odd = [key for key in tensors if not key.isprintable() or len(key) > _MAX_NAME]
    if odd:
        raise CheckpointError(
            f"{path} names a tensor {_some(odd)}, which no weights are named; the file is damaged "
            "or was made to mislead. Get it again."
        )
    naming = find_naming(tensors.keys(), path)
    weights = {short: tensors[name] for short, name in naming.own_names(tensors).items()}
    if not weights:
        raise CheckpointError(f"{path} holds no weights. Export them again, or get the file again.")
    if naming.by_transformers:
        weights = from_transformers(weights)
    # open_clip can make a tensor of shape (1,) of the scale.
    scale = weights.get("logit_scale")
    if scale is not None and scale.shape == (1,):
        weights["logit_scale"] = scale.reshape(())
    return weights, naming


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
