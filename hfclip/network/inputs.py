"""Checks the tensors that the towers encode, and explains what is wrong with them."""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from hfclip.errors import HfclipError, ShapeError, UnknownTokenError

# What torch raises for inputs that it cannot compute with.
INPUT_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError)
_ID_TYPES = (torch.int32, torch.int64)


def are_images(images: object, side: int, device: torch.device) -> TypeGuard[Tensor]:
    """Whether `images` is a float tensor (B, 3, side, side) on the device."""
    return (
        isinstance(images, Tensor)
        and images.is_floating_point()
        and images.device == device
        and images.shape[1:] == (3, side, side)
    )


def are_texts(text: object, context_length: int, device: torch.device) -> TypeGuard[Tensor]:
    """Whether `text` holds int32 or int64 (T, L), L from 1 to `context_length`, on the device.

    With T = 0 any L up to `context_length` is right, 0 too.
    """
    return (
        isinstance(text, Tensor)
        and text.dtype in _ID_TYPES
        and text.device == device
        and text.ndim == 2
        and min(1, len(text)) <= text.shape[1] <= context_length
    )


def image_error(images: object, side: int, device: torch.device) -> ShapeError:
    """Returns the error for images that are not float (B, 3, side, side) on the device."""
    return ShapeError(
        f"The images are {_described(images)}; expected are floats (B, 3, {side}, {side}) "
        f"on {device}. Put each through the preprocess and stack them."
    )


def text_error(text: object, context_length: int, device: torch.device) -> ShapeError:
    """Returns the error for texts that are not integers (T, L) on the device."""
    return ShapeError(
        f"The text is {_described(text)}; expected are int32 or int64 (T, L) with L from "
        f"1 to {context_length} on {device}, as hfclip.tokenize gives them."
    )


def is_traced() -> bool:
    """Whether torch.jit.trace records what is computed."""
    recording: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return recording


def has_other_size(images: Tensor, side: int) -> bool:
    """Whether images (..., H, W) are not squares of `side` pixels.

    It is False while torch.jit.trace or torch.fx records: sizes are no numbers then.
    """
    if is_traced() or not isinstance(images, Tensor):
        return False
    return images.shape[-1] != side or images.shape[-2] != side


def check_images(visual: Any, images: object, cause: Exception | None = None) -> None:
    """Raises ShapeError if an image tower cannot encode these images.

    Args:
        visual: The tower. Of a module without `input_resolution` and `conv1` nothing is known.
        images: What the caller gave.
        cause: What torch raised; an error of hfclip or a lack of memory explains itself.
    """
    side, patches = getattr(visual, "input_resolution", None), getattr(visual, "conv1", None)
    explained = isinstance(cause, HfclipError | torch.OutOfMemoryError)
    if explained or not isinstance(side, int) or not isinstance(patches, nn.Conv2d):
        return
    device = patches.weight.device
    if not are_images(images, side, device) or images.ndim != 4:
        raise image_error(images, side, device) from cause


def check_texts(model: Any, text: object, cause: Exception) -> None:
    """Raises ShapeError or UnknownTokenError if the text tower of a CLIP cannot encode these ids.

    Args:
        model: The CLIP. If its token embedding was replaced, nothing is known.
        text: What the caller gave.
        cause: What torch raised; an error of hfclip or a lack of memory explains itself.
    """
    embedding, length = model.token_embedding, len(model.positional_embedding)
    explained = isinstance(cause, HfclipError | torch.OutOfMemoryError)
    if explained or not isinstance(embedding, nn.Embedding):
        return
    device = embedding.weight.device
    if not are_texts(text, length, device):
        raise text_error(text, length, device) from cause
    if isinstance(cause, IndexError) and len(text):
        raise token_error(text, embedding.num_embeddings) from cause


def token_error(text: Tensor, vocab_size: int) -> UnknownTokenError:
    """Returns the error for ids that the embedding has no row for."""
    return UnknownTokenError(
        f"The text has ids from {int(text.min())} to {int(text.max())}; the model has tokens 0 to "
        f"{vocab_size - 1}. Tokenize with the tokenizer that belongs to the model."
    )


def _described(found: object) -> str:
    if not isinstance(found, Tensor):
        kind = type(found)
        name = (
            kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        )
        return f"of type {name}"
    return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)} on {found.device}"
