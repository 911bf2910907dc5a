"""Writes a model's folder in each layout. `hfclip.sources` reads these layouts."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hfclip.config import ClipConfig
from hfclip.errors import ConfigError, WeightsMismatchError
from hfclip.layouts import native, open_clip, openai, transformers
from hfclip.layouts.files import Files
from hfclip.layouts.labels import LABELS_FILE, LabelSet

LAYOUTS: dict[str, Callable[[ClipConfig, Mapping[str, Tensor]], Files]] = {
    "hfclip": native.files,
    "open_clip": open_clip.files,
    "transformers": transformers.files,
    "openai": openai.files,
}


def write_layout(
    folder: Path,
    config: ClipConfig,
    tensors: Mapping[str, Tensor],
    layout: str = "hfclip",
    labels: LabelSet | None = None,
) -> Path:
    """Writes a model's files into a folder. The same model always gives the same bytes.

    Args:
        folder: An existing folder, preferably from `written_whole`.
        config: The model's configuration.
        tensors: The model's tensors by OpenAI's names. Their dtypes are kept.
        layout: One of `LAYOUTS`.
        labels: The labels of a fine-tuned model. The layout "openai" has no file for them.

    Returns:
        The path of the weight file.

    Raises:
        ConfigError: The layout is unknown or cannot describe the model.
        WeightsMismatchError: A tensor is on the meta device, so it has no values.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise WeightsMismatchError(f"{empty[0]} is on the meta device: load the weights first.")
    files = LAYOUTS[layout](config, tensors)
    for name, text in files.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if labels is not None and layout != "openai":
        (folder / LABELS_FILE).write_text(labels.to_json(), encoding="utf-8")
    path = folder / files.weights_file
    weights = _unshared(files.weights)
    if path.suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors gives access only to the owner
    return path


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous tensors on the CPU that share no storage, as safetensors requires."""
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
