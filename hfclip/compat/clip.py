"""What `import clip.clip` gives: `load`, `tokenize`, and the private names that people took to.

Every function looks the others up when it is called, so that to assign to `clip.clip._MODELS`,
`_download`, `_transform`, `_tokenizer`, `build_model` or `BICUBIC` has the effect it had in `clip`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
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
from hfclip.layouts.files import Source
from hfclip.releases import RELEASES
from hfclip.sources.find import find

__all__ = ["available_models", "load", "tokenize"]

BICUBIC = InterpolationMode.BICUBIC

_PUBLISHED = {name: release.original.url for name, release in RELEASES.items()}
_MODELS = dict(_PUBLISHED)

_tokenizer = _Tokenizer()


def available_models() -> list[str]:
    """The names in `_MODELS`: the nine models that OpenAI released, unless someone edited it."""
    return list(_MODELS)


def load(
    name: str | Path,
    device: Device = None,
    jit: bool = False,
    download_root: str | Path | None = None,
) -> tuple[Any, Any]:
    """Loads a CLIP in eval mode and the transform that prepares its images.

    A release comes from the Hub, in safetensors, as with `hfclip.load`, unless its URL in
    `_MODELS` or `_download` has been replaced: then from there.

    Args:
        name: One of `available_models()`, or whatever else `hfclip.load` takes.
        device: Where to put the model; by default the GPU if there is one, else the CPU.
        jit: Whether to return a `torch.jit.ScriptModule`.
        download_root: The folder for downloaded files; by default ~/.cache/clip.

    Returns:
        The model, in mixed float16 on a GPU and float32 elsewhere, and the transform.

    Raises:
        HfclipError: As `hfclip.load` does.
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
    """Makes a batch of token ids with `_tokenizer`: int32 (n, context_length), ended by zeros.

    Raises:
        TextTooLongError: A text has too many tokens and `truncate` is off.
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
            f"Input {text} is too long for context length {context_length}: with start and end it "
            f"has {len(ids)} tokens. truncate=True cuts it."
        )
    return ids if len(ids) <= context_length else [*ids[: context_length - 1], end]


def _find(name: str, download_root: str | Path | None) -> Source:
    """The weight file of a model: from the Hub, or from where `_MODELS` has come to point."""
    if name not in _MODELS:
        if name in RELEASES:
            raise ModelNotFoundError(
                f"Model {name} not found: clip.clip._MODELS has been edited and does not hold it. "
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
    preprocess = _transform(model.visual.input_resolution)
    if (config.image_mean, config.image_std) != (OPENAI_MEAN, OPENAI_STD):
        preprocess.transforms[-1] = Normalize(config.image_mean, config.image_std)
    return preprocess


def _download(url: str, root: str | Path | None = None) -> str:
    """Fetches a file whose URL has its sha256 before its name, unless it is here and whole.

    Args:
        url: Such as those of `_MODELS`.
        root: The folder to put it in; by default ~/.cache/clip.

    Returns:
        Its path. What was cut off before is taken up again; under this name there never is
        anything but the whole file.

    Raises:
        IntegrityError: The URL names no sha256, or what lies there hashes to another.
        NetworkError: It cannot be fetched.
        CacheError: It cannot be written.
    """
    folder = Path(root).expanduser() if root else fetching.default_root()
    return str(fetching.fetch(url, folder))


def _convert_image_to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _transform(n_px: int) -> Compose:
    """The preprocess of OpenAI's models: PIL image -> float32 tensor (3, n_px, n_px)."""
    return Compose(
        [
            Resize(n_px, interpolation=BICUBIC),
            CenterCrop(n_px),
            _convert_image_to_rgb,
            ToTensor(),
            Normalize(OPENAI_MEAN, OPENAI_STD),
        ]
    )


_own_download, _own_build_model = _download, build_model
