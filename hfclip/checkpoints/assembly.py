"""Reads the configuration and the tensors of a model, as tensors of torch or arrays of NumPy.

Imports no torch: the caller gives the readers of the weight files.
"""

import math
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hfclip.checkpoints.names import Naming, describe_misfit, find_naming
from hfclip.checkpoints.shapes import Array, adapted, infer_config
from hfclip.config import ClipConfig
from hfclip.errors import (
    CheckpointError,
    ConfigError,
    HfclipError,
    WeightsMismatchError,
)
from hfclip.layouts.files import Source
from hfclip.layouts.labels import LabelSet
from hfclip.layouts.transformers import from_transformers

SAFETENSORS = "safetensors file"
STATE_DICT = "PyTorch state dict"
LEGACY_STATE_DICT = "legacy PyTorch state dict"
TORCHSCRIPT = "TorchScript archive"

# The keys of open_clip's trainer. Its models use GELU unless their names end in -quickgelu.
_OPEN_CLIP_TRAINING = {"name", "epoch", "optimizer", "state_dict"}
_MAX_NAME = 255  # characters; the names of a CLIP have under 100
# Largest ratio of the model's parameters to the numbers in the file. Smaller differences are
# reported by name when the model is built.
_MAX_SHORTFALL = 10

_INFERRED = "the configuration inferred from its shapes"
_ASSUMED = (
    "OpenAI's activation (QuickGELU), heads of width 64, and OpenAI's preprocess: the file does "
    "not specify them; base= (--base) names the model that it was fine-tuned from"
)

_T = TypeVar("_T", bound=Array)


@dataclass(frozen=True)
class Assembled(Generic[_T]):
    """The configuration and the tensors of a weight file, by OpenAI's names.

    Attributes:
        path: The weight file, or the index of the shards.
        format: A description of the file's kind, such as "safetensors file".
        config: The configuration.
        tensors: The tensors, in memory unless the source allows mapping.
        prefix: The text before each name in the file.
        config_origin: A description of the configuration's origin.
        assumed: A description of the values that neither the file nor its source specifies, or
            None.
        labels: The labels and templates of a fine-tuned model, or None.
    """

    path: Path
    format: str
    config: ClipConfig
    tensors: Mapping[str, _T]
    prefix: str = ""
    config_origin: str = "its configuration"
    assumed: str | None = None
    labels: LabelSet | None = None


class Content(NamedTuple, Generic[_T]):
    """The tensors of a weight file, and the keys that a trainer saved beside the state dict."""

    tensors: dict[str, _T]
    beside: frozenset[str] = frozenset()


# Reads a file; the second argument says whether it may be mapped.
Reader = Callable[[Path, bool], Content[_T]]


def assemble(source: Source, readers: Mapping[str, Reader[_T]]) -> Assembled[_T]:
    """Reads a weight file, or all of its shards, and its configuration.

    Shards are read one after the other. Without a configuration, the shapes give the sizes, and the
    activation and the preprocess are assumed to be OpenAI's.

    Args:
        source: The files.
        readers: The reader of each kind of weight file.

    Raises:
        CheckpointError: The file is missing, empty, truncated, damaged, of an unknown kind, or is
            written by another program at the same time.
        WeightsMismatchError: The tensors are not those of one CLIP, or a shard does not hold the
            tensors that its index lists.
        ConfigError: The config.json is invalid.
    """
    path = source.weights
    kind, content = _read(source, readers)
    with _damage_reported(path, kind):
        tensors, naming = _openai_names(content.tensors, path)
    config = _config(source, tensors)
    config_origin = source.config_origin if source.config else _INFERRED
    _check_amount(config, tensors, path, config_origin)
    if source.config is None and content.beside >= _OPEN_CLIP_TRAINING:
        _warn_of_open_clip(path)
    assumed = None if source.config else _ASSUMED
    return Assembled(
        path, kind, config, tensors, naming.prefix, config_origin, assumed, source.labels
    )


def _config(source: Source, tensors: Mapping[str, Array]) -> ClipConfig:
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


def _read(source: Source, readers: Mapping[str, Reader[_T]]) -> tuple[str, Content[_T]]:
    """Reads the weight file or all shards. Returns a description of the kind, and the tensors.

    The files are compared with their state before the first was read, so that shards of two models
    are never mixed.
    """
    before = {path: _state(path) for path in source.weight_files}
    if not source.shards:
        kind, content = _read_file(source.weights, readers, mapped=source.mapped)
    else:
        kind, content = _read_shards(source, readers)
    for path, state in before.items():
        if _state(path) != state:
            raise CheckpointError(
                f"{path} changed while it was read: another program writes to it. Load it "
                "again when that program has finished."
            )
    return kind, content


def _read_file(
    path: Path, readers: Mapping[str, Reader[_T]], *, mapped: bool
) -> tuple[str, Content[_T]]:
    kind = detect_kind(path)
    with _damage_reported(path, kind):
        return kind, readers[kind](path, mapped)


def _read_shards(source: Source, readers: Mapping[str, Reader[_T]]) -> tuple[str, Content[_T]]:
    tensors: dict[str, _T] = {}
    kinds = set()
    for shard in source.shards:
        kind, content = _read_file(shard.path, readers, mapped=source.mapped)
        kinds.add(kind)
        misfit = describe_misfit(content.tensors.keys(), sorted(shard.tensors))
        if misfit:
            raise WeightsMismatchError(
                f"{shard.path} does not hold the tensors that {source.weights.name} lists for it: "
                f"{misfit}. The files are of different versions; get all of them again."
            )
        tensors |= content.tensors
    count = len(source.shards)
    return f"{' or '.join(sorted(kinds))} in {count} shard{'s' * (count > 1)}", Content(tensors)


@contextmanager
def _damage_reported(path: Path, kind: str) -> Iterator[None]:
    """Turns the errors of the libraries, which are of many types, into a `CheckpointError`."""
    try:
        yield
    except HfclipError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a {kind}: {_first_line(error)}. "
            "The file is truncated or damaged; get it again."
        ) from error


def _warn_of_open_clip(path: Path) -> None:
    warnings.warn(
        f"{path} was saved by open_clip's trainer and does not specify its model. OpenAI's "
        "activation (QuickGELU) and preprocess are assumed, but most models of open_clip use "
        "GELU. Name the model that it was fine-tuned from with base= (--base).",
        stacklevel=5,  # the caller of `load`
    )


def _state(path: Path) -> tuple[int, int, int]:
    """Returns file attributes that change when a file is replaced or written to."""
    try:
        state = path.stat()
    except OSError as error:
        raise _unopened(path, error) from error
    return state.st_ino, state.st_size, state.st_mtime_ns


def _check_amount(
    config: ClipConfig, tensors: Mapping[str, Array], path: Path, config_origin: str
) -> None:
    """Raises an error for a small file with a huge model, before memory is allocated."""
    held = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if config.parameter_count > _MAX_SHORTFALL * held:
        raise WeightsMismatchError(
            f"{path} holds {held:,} numbers, but {config_origin} gives "
            f"{config.parameter_count:,} parameters. Give the config.json that belongs to these "
            "weights, or name the model that they were fine-tuned from with base= (--base)."
        )


def detect_kind(path: Path) -> str:
    """Returns the kind of a file from its first bytes. The file name is not trusted."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise _unopened(path, error) from error
    if not head:
        raise CheckpointError(f"{path} is empty: a download or copy stopped. Get it again.")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[8:] == b"{":
        return SAFETENSORS
    if head.startswith(b"\x80"):
        return LEGACY_STATE_DICT
    raise CheckpointError(
        f"{path} begins with {head[:8]!r}: it is neither a safetensors file, nor a PyTorch state "
        "dict, nor a TorchScript archive. If it is a web page or a Git LFS pointer, download the "
        "weight file itself."
    )


def _unopened(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be opened: {error.strerror or error}.")


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises many types for a damaged directory
        raise CheckpointError(
            f"{path} is a zip file with a damaged directory: {_first_line(error)}. "
            "The file is probably truncated; get it again."
        ) from error
    return TORCHSCRIPT if _is_torchscript(names) else STATE_DICT


def _is_torchscript(names: list[str]) -> bool:
    """Returns whether the entries of a zip file are those of a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in names)


def quote_names(names: Collection[object]) -> str:
    """Lists the first three names and the number of the others, for an error message."""
    shown = [repr(name)[:60] for name in list(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _openai_names(tensors: dict[str, _T], path: Path) -> tuple[dict[str, _T], Naming]:
    """Returns the weights of the file's CLIP by OpenAI's names, and their naming in the file."""
    odd = [key for key in tensors if not key.isprintable() or len(key) > _MAX_NAME]
    if odd:
        raise CheckpointError(
            f"{path} has the tensor names {quote_names(odd)}: too long or not printable. The file "
            "is damaged or manipulated; get it again."
        )
    naming = find_naming(tensors.keys(), path)
    weights = {short: tensors[name] for short, name in naming.own_names(tensors).items()}
    if not weights:
        raise CheckpointError(f"{path} holds no weights. Export them again, or get the file again.")
    if naming.by_transformers:
        weights = from_transformers(weights)
    # open_clip can save the scale with the shape (1,).
    scale = weights.get("logit_scale")
    if scale is not None and scale.shape == (1,):
        weights["logit_scale"] = scale.reshape(())
    return weights, naming


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
