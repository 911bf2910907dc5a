"""Loads a model and its preprocess from a name."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, get_args, overload

import torch

from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.devices import Device, choose_device
from hfclip.errors import ArgumentError
from hfclip.hub.fetch import Access
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import PreprocessMode, transform_of
from hfclip.model import CLIP
from hfclip.network.clip import convert_weights
from hfclip.releases import RELEASES
from hfclip.sources.find import Found, find

if TYPE_CHECKING:
    from torchvision.transforms import Compose

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class HubOptions(TypedDict, total=False):
    """The arguments of `load` that OpenAI's interface does not have."""

    dtype: torch.dtype | None
    preprocess: PreprocessMode
    base: str | Path | None
    revision: str | None
    namespace: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool
    subfolder: str | None
    variant: str | None


def available_models() -> list[str]:
    """Returns the names of the nine models that OpenAI released, in OpenAI's order."""
    return list(RELEASES)


@overload
def load(
    name: str | Path,
    device: Device = ...,
    jit: Literal[False] = ...,
    download_root: str | Path | None = ...,
    **options: Unpack[HubOptions],
) -> "tuple[CLIP, Compose]": ...


@overload
def load(
    name: str | Path,
    device: Device,
    jit: Literal[True],
    download_root: str | Path | None = ...,
    **options: Unpack[HubOptions],
) -> "tuple[torch.jit.ScriptModule, Compose]": ...


@overload
def load(
    name: str | Path,
    device: Device = ...,
    *,
    jit: Literal[True],
    download_root: str | Path | None = ...,
    **options: Unpack[HubOptions],
) -> "tuple[torch.jit.ScriptModule, Compose]": ...


def load(
    name: str | Path,
    device: Device = None,
    jit: bool = False,
    download_root: str | Path | None = None,
    *,
    dtype: torch.dtype | None = None,
    preprocess: PreprocessMode = "exact",
    base: str | Path | None = None,
    revision: str | None = None,
    namespace: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str | None = None,
    variant: str | None = None,
) -> "tuple[CLIP | torch.jit.ScriptModule, Compose]":
    """Loads a CLIP in eval mode, and the transform that prepares its images.

    The weights of local files and folders are read into memory, so you can overwrite these files
    while the model is in use, for example with `torch.save` or `save_pretrained`. Safetensors files
    in the Hub's cache and the bundled model are mapped instead: the system reads their pages on
    first use, and several processes share them. Do not write to files in that cache.

    Args:
        name: One of `available_models()`, the bundled "digits", a weight file, or a folder or
            repository in hfclip's, open_clip's or transformers' layout: "org/name",
            "hf-hub:org/name", "org/name@revision" or the address of its page. The weights are
            safetensors if there are any, else pytorch_model.bin or open_clip_pytorch_model.bin, in
            one file or in shards.
        device: The device of the model: a name, the index of a CUDA GPU or a `torch.device`; by
            default the GPU if there is one, else the CPU.
        jit: Whether to return a `torch.jit.ScriptModule` with `encode_image`, `encode_text`,
            `forward`, `input_resolution`, `context_length` and `vocab_size`.
        download_root: The folder of OpenAI's own .pt files, which are used instead of a download
            if they are undamaged; by default ~/.cache/clip.
        dtype: The dtype of convolutions, linear layers, attention and projections; by default
            float16 on CUDA and float32 elsewhere. Norms and embeddings stay float32.
        preprocess: "exact" for the same pixels as OpenAI's or open_clip's, bit for bit, or "fast"
            for nearly the same pixels in less than half the time (see
            `hfclip.images.fast.FastTransform`). `hfclip.image_transform` compares with
            transformers. How images are resized follows the model's configuration.
        base: The model from which a weight file was fine-tuned: a name, a folder or a repository.
            It gives the configuration, the activation and the preprocess; the weights give the
            image size, the context length and the vocabulary size. By default the configuration
            beside the file is used if there is one, else OpenAI's activation and preprocess. If
            `name` is not a weight file, its own configuration must agree with the base.
        revision: A branch, tag or commit; by default the pinned commit for a release, else main.
        namespace: The account whose copies of the nine releases are used, such as "me" for
            me/ViT-B-16; by default the environment variable HFCLIP_NAMESPACE, if set.
        token: A Hub token, True for the stored token, False for none.
        cache_dir: The folder of the Hub's cache; by default HF_HUB_CACHE, else a folder in HF_HOME.
        local_files_only: Whether to make no request.
        force_download: Whether to fetch cached files again.
        subfolder: The folder inside a folder or repository that holds the model, such as "clip".
        variant: The part of the weights' file names that marks another dtype: "fp16" reads
            model.fp16.safetensors, pytorch_model.fp16.bin or their shards. Without it, files of a
            variant are not used. `dtype` still sets the dtype of the model.

    Returns:
        The model, and a transform from a PIL image to a float32 tensor (3, S, S).

    Raises:
        DeviceError: torch does not know the device, or cannot use it on this machine.
        ModelNotFoundError: The name is unknown (a RuntimeError, as in OpenAI's release).
        HubError: The files cannot be fetched, or differ from the published files.
        CheckpointError: The weights are damaged, unsafe or do not fit the configuration.
        ConfigError: The configuration is invalid.
        ArgumentError: `dtype` or `preprocess` has an unsupported value.
    """
    target = choose_device(device)
    dtype = dtype or _usual_dtype(target)
    if dtype not in _DTYPES:
        raise ArgumentError(f"dtype is {dtype}; expected {', '.join(map(str, _DTYPES))}.")
    if preprocess not in get_args(PreprocessMode):
        raise ArgumentError(f"preprocess is {preprocess!r}; expected 'exact' or 'fast'.")
    source = find(
        name,
        Access(token, cache_dir, local_files_only, force_download),
        revision=revision,
        namespace=namespace,
        download_root=download_root,
        base=base,
        subfolder=subfolder,
        variant=variant,
    )
    model, transform = _built(read_checkpoint(source), target, dtype, preprocess)
    if jit:
        from hfclip.network.scripted import script  # noqa: PLC0415  # jit is rare and costs an import

        return script(model), transform
    return model, transform


def load_source(
    source: Found,
    device: torch.device,
    dtype: torch.dtype | None = None,
    preprocess: PreprocessMode = "exact",
) -> "tuple[CLIP, Compose]":
    """Loads the model of files that `hfclip.sources.find` found, and its transform.

    Args:
        source: The files.
        device: The device of the model.
        dtype: The dtype, as for `load`.
        preprocess: The implementation of the preprocess, as for `load`.

    Raises:
        CheckpointError: The weights are damaged, unsafe or do not fit the configuration.
        ConfigError: The configuration is invalid.
    """
    return _built(read_checkpoint(source), device, dtype or _usual_dtype(device), preprocess)


def _built(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, preprocess: PreprocessMode
) -> "tuple[CLIP, Compose]":
    model = CLIP.from_checkpoint(checkpoint)
    convert_weights(model, dtype)
    transform = transform_of(Recipe.of(model.config), preprocess)
    return model.to(device), transform


def _usual_dtype(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" else torch.float32
