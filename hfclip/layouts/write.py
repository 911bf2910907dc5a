"""A model's folder in each layout: which files it holds, and how it is written whole or not.

`hfclip.sources.find` reads every layout that stands here.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, PublishError, WeightsMismatchError
from hfclip.layouts.files import (
    CONFIG_FILE,
    OPEN_CLIP_CONFIG_FILE,
    OPEN_CLIP_WEIGHTS_FILE,
    OPENAI_WEIGHTS_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
)
from hfclip.layouts.section import (
    config_to_open_clip,
    config_to_transformers,
    preprocessor_to_transformers,
)
from hfclip.layouts.transformers import to_transformers
from hfclip.text.tokenizer import VOCAB_SIZE
from hfclip.text.vocabulary import tokenizer_files


class Files(NamedTuple):
    """What a folder holds: one file of weights, and texts by file name."""

    weights_file: str
    weights: Mapping[str, Tensor]
    texts: Mapping[str, str]


def _hfclip(config: ClipConfig, tensors: Mapping[str, Tensor]) -> Files:
    texts = {
        CONFIG_FILE: _json(config.to_dict()),
        PREPROCESSOR_FILE: _json(preprocessor_to_transformers(config)),
    }
    return Files(WEIGHTS_FILE, tensors, texts | _tokenizer(config))


def _open_clip(config: ClipConfig, tensors: Mapping[str, Tensor]) -> Files:
    texts = {OPEN_CLIP_CONFIG_FILE: _json(config_to_open_clip(config))}
    return Files(OPEN_CLIP_WEIGHTS_FILE, tensors, texts)


def _transformers(config: ClipConfig, tensors: Mapping[str, Tensor]) -> Files:
    values, preprocessor = config_to_transformers(config)
    texts = {CONFIG_FILE: _json(values), PREPROCESSOR_FILE: _json(preprocessor)}
    return Files(WEIGHTS_FILE, to_transformers(tensors), texts | _tokenizer(config))


def _openai(config: ClipConfig, tensors: Mapping[str, Tensor]) -> Files:
    # Such a file has no configuration: whoever reads it takes OpenAI's own for granted.
    told_by_shapes = ClipConfig(
        **{name: value for name, value in config.to_dict().items() if name not in _NOT_TOLD},
    )
    heads = config.transformer_heads * 64
    if config != told_by_shapes or heads != config.transformer_width:
        raise ConfigError(
            "OpenAI's layout has no configuration beside the weights: a model with another "
            "activation, head width or preprocess than OpenAI's would be read wrongly. "
            "Write the layout of hfclip or of open_clip instead."
        )
    return Files(OPENAI_WEIGHTS_FILE, tensors, {})


_NOT_TOLD = {"activation", "vision_head_width", "image_mean", "image_std"}

LAYOUTS: dict[str, Callable[[ClipConfig, Mapping[str, Tensor]], Files]] = {
    "hfclip": _hfclip,
    "open_clip": _open_clip,
    "transformers": _transformers,
    "openai": _openai,
}


def write_layout(
    folder: Path, config: ClipConfig, tensors: Mapping[str, Tensor], layout: str = "hfclip"
) -> Path:
    """Writes a model's files into a folder; the same model always gives the same bytes.

    Args:
        folder: An existing folder, best one that `written_whole` gave.
        config: The model's configuration.
        tensors: Its tensors by OpenAI's names, written in the types they have.
        layout: One of `LAYOUTS`.

    Returns:
        The file of weights.

    Raises:
        ConfigError: The layout cannot describe such a model.
        WeightsMismatchError: A tensor has no value yet (it is on the meta device).
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is {layout!r}; known are {', '.join(LAYOUTS)}.")
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise WeightsMismatchError(f"{empty[0]} is on the meta device: load the weights first.")
    files = LAYOUTS[layout](config, tensors)
    for name, text in files.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    path = folder / files.weights_file
    weights = _unshared(files.weights)
    if path.suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves a file to its owner alone
    return path


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that are no numbers: training has gone wrong, and so would any use.

    Raises:
        PublishError: A tensor holds NaN or infinity; the message names it.
    """
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise PublishError(
            f"{broken[0]}{more} hold NaN or infinity: the model computes nothing. Go back to a "
            "checkpoint from before training went wrong."
        )


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Gives a new folder beside `folder`, whose files move there once all are written.

    What fails or is interrupted leaves `folder` as it was. Files of other names stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.part")
    part.mkdir()
    try:
        yield part
        if not folder.exists():
            part.rename(folder)
        else:
            for path in sorted(part.iterdir()):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_free(folder: Path, *, force: bool) -> None:
    """Refuses a place where something would be overwritten that nobody spoke of.

    Raises:
        ConfigError: The folder holds something, or is a file.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; name a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ConfigError(
            f"{folder} holds {sorted(path.name for path in folder.iterdir())[0]} already. Name a "
            "folder that is new or empty, or give --force to replace the files that are written "
            "(force=True in Python)."
        )


def _tokenizer(config: ClipConfig) -> dict[str, str]:
    """The tokenizer, where the model has a row for each of its tokens."""
    return tokenizer_files(config.context_length) if config.vocab_size >= VOCAB_SIZE else {}


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that can be written as they are: on the CPU, contiguous, none a part of another."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage()
        if storage.nbytes() != own.numel() * own.element_size() or storage.data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        unshared[name] = own
    return unshared


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
