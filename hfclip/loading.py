"""`load`: from a name to a model and its preprocess."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import torch

from hfclip import sources
from hfclip.checkpoint import read_checkpoint
from hfclip.model import CLIP, convert_weights
from hfclip.preprocess import image_transform
from hfclip.releases import RELEASES

if TYPE_CHECKING:
    from torchvision.transforms import Compose

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def available_models() -> list[str]:
    """The names of the nine models that OpenAI released, in OpenAI's order."""
    return list(RELEASES)


@overload
def load(
    name: str | Path,
    device: str | torch.device | None = ...,
    jit: Literal[False] = ...,
    download_root: str | Path | None = ...,
    *,
    dtype: torch.dtype | None = ...,
) -> "tuple[CLIP, Compose]": ...


@overload
def load(
    name: str | Path,
    device: str | torch.device | None,
    jit: Literal[True],
    download_root: str | Path | None = ...,
    *,
    dtype: torch.dtype | None = ...,
) -> "tuple[torch.jit.ScriptModule, Compose]": ...


@overload
def load(
    name: str | Path,
    device: str | torch.device | None = ...,
    *,
    jit: Literal[True],
    download_root: str | Path | None = ...,
    dtype: torch.dtype | None = ...,
) -> "tuple[torch.jit.ScriptModule, Compose]": ...


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | Path | None = None,  # noqa: ARG001  # where originals lie; see sources
    *,
    dtype: torch.dtype | None = None,
) -> "tuple[CLIP | torch.jit.ScriptModule, Compose]":
    """Loads a CLIP in eval mode, and the transform that prepares its images.

    Args:
        name: One of `available_models()`, the bundled "digits", a folder that holds config.json
            and model.safetensors, or a weight file.
        device: Where to put the model; by default the GPU if there is one, else the CPU.
        jit: Whether to return a `torch.jit.ScriptModule` with `encode_image`, `encode_text`,
            `forward`, `input_resolution`, `context_length` and `vocab_size`.
        download_root: A folder in which original .pt files are looked for.
        dtype: What convolutions, linear layers, attention and projections compute in; by default
            float16 on CUDA and float32 elsewhere. Norms and embeddings stay float32.

    Returns:
        The model, and a transform from a PIL image to a float32 tensor (3, S, S).

    Raises:
        ModelNotFoundError: The name means nothing (a RuntimeError, as in OpenAI's release).
        CheckpointError: The weights are damaged, unsafe or do not fit.
        ConfigError: The config.json is refused.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float16 if target.type == "cuda" else torch.float32)
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype}; a CLIP computes in {', '.join(map(str, _DTYPES))}.")
    model = CLIP.from_checkpoint(read_checkpoint(sources.find(name)))
    convert_weights(model, dtype)
    config = model.config
    preprocess = image_transform(config.image_resolution, config.image_mean, config.image_std)
    model = model.to(target)
    if jit:
        from hfclip.scripted import script  # noqa: PLC0415  # jit is rare and costs an import

        return script(model), preprocess
    return model, preprocess
