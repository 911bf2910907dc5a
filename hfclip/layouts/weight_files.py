"""The names of weight files: one file, or shards with an index, in each layout and variant.

An index is a JSON file that says which shard holds each tensor. Its content is not trusted.
"""

import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from hfclip.config import read_json
from hfclip.errors import ArgumentError, CheckpointError, ConfigError
from hfclip.layouts.files import (
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    OPEN_CLIP_PICKLE_FILE,
    OPEN_CLIP_WEIGHTS_FILE,
    PICKLE_FILE,
    WEIGHTS_FILE,
)

# open_clip before the others: in timm's repositories, the other names hold the image tower only.
# safetensors before the files of torch.save.
_LAYOUTS = (
    (OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_WEIGHTS_FILE),
    (CONFIG_FILE, WEIGHTS_FILE),
    (OPEN_CLIP_CONFIG_FILE, OPEN_CLIP_PICKLE_FILE),
    (CONFIG_FILE, PICKLE_FILE),
)
_VARIANT = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SHARD = re.compile(r"(?P<stem>[\w.-]*)-(?P<number>\d{1,6})-of-(?P<count>\d{1,6})(?P<suffix>\.\w+)")
_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_MAX_INDEX_BYTES = 2**20  # an index of the largest CLIP has 0.2 MiB
_MAX_SHARDS = 1000
_MAX_NAME = 255  # of a tensor or a file


class Choice(NamedTuple):
    """The two files that make a model: the configuration, and the weights or their index."""

    config: str
    weights: str


def choices(variant: str | None = None) -> list[Choice]:
    """Returns the files that make a model, the preferred ones first.

    Args:
        variant: The part of the weights' names that marks another dtype, such as "fp16".

    Raises:
        ArgumentError: The variant is not a part of a file name.
    """
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise ArgumentError(
            f"variant is {variant!r}; expected a part of a file name, such as 'fp16' for "
            "model.fp16.safetensors."
        )
    return [
        Choice(config, name)
        for config, weights in _LAYOUTS
        for name in (_weights_name(weights, variant), _index_name(weights, variant))
    ]


def existing_choices(names: Set[str], variant: str | None = None) -> list[Choice]:
    """Returns the choices whose two files are among the names, the preferred ones first."""
    return [choice for choice in choices(variant) if set(choice) <= names]


def config_of(weights: str) -> str | None:
    """Returns the configuration of a standard weight file, shard or index, or None."""
    for config, standard in _LAYOUTS:
        stem, suffix = _split(standard)
        own = rf"{stem}(\.[\w-]+)?(-\d+-of-\d+)?\.{suffix}(\.index(\.[\w-]+)?\.json)?"
        if re.fullmatch(own, weights):
            return config
    return None


def variants_in(names: Iterable[str]) -> dict[str, str]:
    """Returns the variants among file names, each with its weight file or index."""
    found: dict[str, str] = {}
    for name in sorted(names):
        for _, standard in _LAYOUTS:
            stem, suffix = _split(standard)
            patterns = (rf"{stem}\.([\w-]+)\.{suffix}", rf"{stem}\.{suffix}\.index\.([\w-]+)\.json")
            match = re.fullmatch("|".join(patterns), name)
            if match and not _SHARD.fullmatch(name):
                found.setdefault(match[1] or match[2], name)
    return found


def is_index(weights: str) -> bool:
    """Returns whether a file name is that of an index of shards."""
    return bool(re.fullmatch(r".*\.(safetensors|bin)\.index(\.[\w-]+)?\.json", weights))


def read_index(path: Path) -> dict[str, frozenset[str]]:
    """Reads an index of shards.

    Only the names are read. The sizes in an index are often wrong, so they are not used.

    Returns:
        The names of the tensors of each shard, by the shard's file name, sorted.

    Raises:
        CheckpointError: The file is not an index; it names a file outside its folder or of another
            kind; or a number is missing in "-00001-of-00002".
    """
    placed = _weight_map(path)
    suffix = ".bin" if ".bin.index." in path.name else ".safetensors"
    shards: dict[str, set[str]] = {}
    for tensor, shard in placed.items():
        if not isinstance(shard, str) or not _is_shard_name(shard, suffix):
            raise _invalid(
                path,
                f"it names the file {shard!r:.80}; expected the plain name of a {suffix} file in "
                "the same folder",
            )
        if len(tensor) > _MAX_NAME or not tensor.isprintable():
            raise _invalid(path, f"the tensor name {tensor!r:.80} is too long or not printable")
        shards.setdefault(shard, set()).add(tensor)
    if len(shards) > _MAX_SHARDS:
        raise _invalid(path, f"it names {len(shards)} shards; expected at most {_MAX_SHARDS}")
    _check_numbers(path, shards)
    return {shard: frozenset(shards[shard]) for shard in sorted(shards)}


def _weight_map(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise _invalid(path, f"it is larger than {_MAX_INDEX_BYTES:,} bytes")
        placed = read_json(path).get("weight_map")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(placed, dict) or not placed:
        raise _invalid(path, "it has no weight_map with the file of each tensor")
    return placed


def _is_shard_name(name: str, suffix: str) -> bool:
    return len(name) <= _MAX_NAME and name.endswith(suffix) and bool(_PLAIN_NAME.fullmatch(name))


def _check_numbers(path: Path, shards: Iterable[str]) -> None:
    """Raises an error if shards are numbered and a number is missing or exceeds the count."""
    numbers: dict[tuple[str, str, str], set[int]] = {}
    for shard in shards:
        if match := _SHARD.fullmatch(shard):
            series = match["stem"], match["count"], match["suffix"]
            numbers.setdefault(series, set()).add(int(match["number"]))
    for (stem, count, suffix), found in numbers.items():
        if len(found) != int(count) or found != set(range(1, len(found) + 1)):
            raise _invalid(
                path,
                f"it names {len(found)} of the shards {stem}-...-of-{count}{suffix}, not "
                f"{int(count)} with the numbers from 1",
            )


def _invalid(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a valid index of shards: {why}. Get the weights again, or save them in one "
        "file."
    )


def _split(weights: str) -> tuple[str, str]:
    stem, _, suffix = weights.rpartition(".")
    return stem, suffix


def _weights_name(weights: str, variant: str | None) -> str:
    stem, suffix = _split(weights)
    return f"{stem}.{variant}.{suffix}" if variant else weights


def _index_name(weights: str, variant: str | None) -> str:
    return f"{weights}.index.{variant}.json" if variant else f"{weights}.index.json"
