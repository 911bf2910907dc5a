"""Reads weight files of all kinds that are used for CLIPs, without running code from them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hfclip.checkpoints.archive import Saved, read_archive, read_legacy, read_zip
from hfclip.checkpoints.assembly import (
    LEGACY_STATE_DICT,
    SAFETENSORS,
    STATE_DICT,
    TORCHSCRIPT,
    Assembled,
    Content,
    assemble,
    quote_names,
)
from hfclip.checkpoints.safe_unpickle import View
from hfclip.checkpoints.tensors import read_tensors
from hfclip.errors import CheckpointError
from hfclip.layouts.files import Source

# The keys under which trainers save the weights.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
_MAX_WRAPPERS = 4  # nested wrappers; a wrapper in a file can hold itself


@dataclass(frozen=True)
class Checkpoint(Assembled[Tensor]):
    """The configuration and the tensors of a weight file, by OpenAI's names: see `Assembled`."""


def read_checkpoint(source: Source) -> Checkpoint:
    """Reads a weight file, or all of its shards, and its configuration.

    The tensors are read into memory, so the file may be overwritten afterwards. A safetensors file
    is mapped if its source allows it. Shards are read one after the other, each straight into the
    memory that the model uses.

    Without a configuration, the shapes give the sizes, and the activation and the preprocess are
    assumed to be OpenAI's.

    Raises:
        UnsafeCheckpointError: The file asks to run code; no code was run.
        CheckpointError: The file is missing, empty, truncated, damaged, of an unknown kind, or is
            written by another program at the same time.
        WeightsMismatchError: The tensors are not those of one CLIP, or a shard does not hold the
            tensors that its index lists.
        ConfigError: The config.json is invalid.
    """
    return Checkpoint(**vars(assemble(source, _READERS)))


def _read_safetensors(path: Path, mapped: bool) -> Content[Tensor]:
    return Content(read_tensors(path, mapped=mapped))


def _read_saved(saved: Saved) -> Content[Tensor]:
    """Reads the tensors of the saved state dict."""
    content = _unwrap(saved.content, saved.path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"{saved.path} holds {_described(content)}, not a state dict. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    foreign = [key for key, value in content.items() if not isinstance(value, View)]
    if foreign:
        raise CheckpointError(
            f"{saved.path} holds {quote_names(foreign)} among its tensors. A state dict holds only "
            f"tensors, and a file may hold it under {', '.join(map(repr, _WRAPPERS))}. "
            "Save the weights with torch.save(model.state_dict(), ...)."
        )
    tensors = saved.tensors({str(key): view for key, view in content.items()})
    beside = frozenset(map(str, saved.content)) if content is not saved.content else frozenset()
    return Content(tensors, beside)


def _unwrap(content: Any, path: Path) -> Any:
    """Finds the state dict in the content of a trainer's file.

    Raises:
        CheckpointError: Two keys of one dictionary hold tensors.
    """
    for _ in range(_MAX_WRAPPERS):
        wrappers = [key for key in _WRAPPERS if isinstance(_item(content, key), dict)]
        holding = [key for key in wrappers if _holds_tensors(content[key])]
        if len(holding) > 1:
            raise CheckpointError(
                f"{path} holds tensors under {' and under '.join(map(repr, holding))}, and a "
                "single state dict is expected. Save the weights of one: "
                "torch.save(model.state_dict(), ...)."
            )
        if not wrappers:
            break
        content = content[(holding or wrappers)[0]]
    return content


def _item(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _holds_tensors(content: dict[Any, Any], depth: int = _MAX_WRAPPERS) -> bool:
    """Returns whether a dictionary or a wrapper in it holds tensors."""
    if any(isinstance(value, View) for value in content.values()):
        return True
    inner = [_item(content, key) for key in _WRAPPERS] if depth else []
    return any(isinstance(value, dict) and _holds_tensors(value, depth - 1) for value in inner)


def _described(content: Any) -> str:
    kinds = {dict: "an empty dictionary", View: "a single tensor", list: "a list", tuple: "a tuple"}
    return kinds.get(type(content), "no tensors")


_READERS: dict[str, Callable[[Path, bool], Content[Tensor]]] = {
    SAFETENSORS: _read_safetensors,
    STATE_DICT: lambda path, _: _read_saved(read_zip(path)),
    LEGACY_STATE_DICT: lambda path, _: _read_saved(read_legacy(path)),
    TORCHSCRIPT: lambda path, _: Content(read_archive(path)),
}
