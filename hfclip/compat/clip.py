"""Replaces `clip.clip`: `load`, `tokenize`, and the private names that existing code uses.

The functions look up module globals at call time. So assigning to `clip.clip._MODELS`, `_download`,
`_transform`, `_tokenizer`, `build_model` or `BICUBIC` has the same effect as in `clip`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import (
    CenterCrop,  # noqa: F401  # existing code uses clip.clip.CenterCrop
    Compose,
    InterpolationMode,
    Normalize,
    Resize,  # noqa: F401
    ToTensor,  # noqa: F401
)

import hfclip.text.tokenizer
from hfclip.checkpoints.read import Checkpoint, read_checkpoint
from hfclip.compat import fetching
from hfclip.compat.model import assemble, build_model
from hfclip.compat.simple_tokenizer import SimpleTokenizer
from hfclip.compat.simple_tokenizer import SimpleTokenizer as _Tokenizer
from hfclip.config import OPENAI_MEAN, OPENAI_STD
from hfclip.devices import Device, choose_device
from hfclip.errors import ModelNotFoundError, TextTooLongError
from hfclip.images.exact import Recipe
from hfclip.images.steps import compose
from hfclip.layouts.files import Source
from hfclip.releases import RELEASES
from hfclip.sources.find import find

__all__ = ["available_models", "load", "tokenize"]

BICUBIC = InterpolationMode.BICUBIC

_PUBLISHED = {name: release.original.url for name, release in RELEASES.items()}
_MODELS = dict(_PUBLISHED)

_tokenizer = _Tokenizer()


def available_models() -> list[str]:
    """Returns the names in `_MODELS`: OpenAI's nine releases, unless it was edited."""
    return list(_MODELS)


def load(
    name: str | Path,
    device: Device = None,
    jit: bool = False,
    download_root: str | Path | None = None,
) -> tuple[Any, Any]:
    """Loads a CLIP in eval mode and its image transform.

    Releases come from the Hub as safetensors, as with `hfclip.load`. If the URL in `_MODELS` or the
    function `_download` was replaced, the replacement is used instead.

    Args:
        name: One of `available_models()`, or any other name that `hfclip.load` accepts.
        device: The device of the model. By default a GPU if there is one, otherwise the CPU.
        jit: Whether to return a `torch.jit.ScriptModule`.
        download_root: The folder for downloaded files. By default ~/.cache/clip.

    Returns:
        The model, in mixed float16 on a GPU and in float32 elsewhere, and the transform.

    Raises:
        HfclipError: The same errors as `hfclip.load`.
    """
    target = choose_device(device)
    checkpoint = read_checkpoint(_find(str(name), download_root))
    model = _build(checkpoint, torch.float16 if target.type == "cuda" else torch.float32)
    model = model.to(target)
    preprocess = _preprocess(model, checkpoint)
    if jit:
        from hfclip.network.scripted import script  # noqa: PLC0415  # jit is rare and costs an import

        return script(model), preprocess
    return model, preprocess


def tokenize(
    texts: str | Sequence[str], context_length: int = 77, truncate: bool = False
) -> Tensor:
    """Returns the token ids of `texts`: int32 (n, context_length), padded with zeros.

    Raises:
        TextTooLongError: A text has more than `context_length` tokens and `truncate` is False.
    """
    if isinstance(_tokenizer, SimpleTokenizer) and _tokenizer.is_untouched():
        return hfclip.text.tokenizer.tokenize(texts, context_length, truncate)
    texts = [texts] if isinstance(texts, str) else texts
    batch = torch.zeros(len(texts), context_length, dtype=torch.int32)
    for row, text in zip(batch, texts, strict=True):
        ids = _ids(text, context_length, truncate)
        row[: len(ids)] = torch.tensor(ids)
    return batch


def _ids(text: str, context_length: int, truncate: bool) -> list[int]:
    start, end = (_tokenizer.encoder[mark] for mark in ("<|startoftext|>", "<|endoftext|>"))
    ids = [start, *_tokenizer.encode(text), end]
    if len(ids) > context_length and not truncate:
        raise TextTooLongError(
            f"Input {text} is too long for context length {context_length}: it has {len(ids)} "
            "tokens, including the start and end tokens. Pass truncate=True to cut it."
        )
    return ids if len(ids) <= context_length else [*ids[: context_length - 1], end]


def _find(name: str, download_root: str | Path | None) -> Source:
    """Finds the weights on the Hub, or at the URL if `_MODELS` or `_download` was edited."""
    if name not in _MODELS:
        if name in RELEASES:
            raise ModelNotFoundError(
                f"Model {name} not found: clip.clip._MODELS was edited and has no such key. "
                f"Available models: {', '.join(available_models())}."
            )
        return find(name, download_root=download_root)
    url = _MODELS[name]
    if _download is _own_download and url == _PUBLISHED.get(name):
        return find(name, download_root=download_root)
    root = Path(download_root).expanduser() if download_root else fetching.default_root()
    path = Path(_download(url, str(root)))
    return Source(path, None, f"the file {path}")


def _build(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    if build_model is _own_build_model:
        return assemble(checkpoint, dtype)
    model: nn.Module = build_model(dict(checkpoint.tensors))
    return model.float() if dtype == torch.float32 else model


def _preprocess(model: Any, checkpoint: Checkpoint) -> Any:
    config = checkpoint.config
    if _transform is _own_transform:
        return _compose(Recipe.of(config)._replace(resolution=model.visual.input_resolution))
    preprocess = _transform(model.visual.input_resolution)
    if (config.image_mean, config.image_std) != (OPENAI_MEAN, OPENAI_STD):
        preprocess.transforms[-1] = Normalize(config.image_mean, config.image_std)
    return preprocess


def _download(url: str, root: str | Path | None = None) -> str:
    """Downloads a file and verifies its sha256, unless a verified copy exists.

    An interrupted download is resumed. The file gets its name only when it is complete.

    Args:
        url: A URL of the form `.../<sha256>/<file>`, like those in `_MODELS`.
        root: The folder of the file. By default ~/.cache/clip.

    Returns:
        The path of the file.

    Raises:
        IntegrityError: The URL contains no sha256, or the downloaded file has another sha256.
        NetworkError: The download fails.
        CacheError: The file cannot be written.
    """
    folder = Path(root).expanduser() if root else fetching.default_root()
    return str(fetching.fetch(url, folder))


def _convert_image_to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _transform(n_px: int) -> Compose:
    """Returns OpenAI's preprocess: PIL image -> float32 tensor (3, n_px, n_px)."""
    return _compose(Recipe(n_px, OPENAI_MEAN, OPENAI_STD))


def _compose(recipe: Recipe) -> Compose:
    return compose(recipe, BICUBIC, _convert_image_to_rgb)


_own_download, _own_build_model, _own_transform = _download, build_model, _transform
