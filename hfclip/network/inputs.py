"""Checks the input tensors of both towers and makes the errors that describe them."""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from hfclip.errors import HfclipError, ShapeError, UnknownTokenError

# The errors that torch raises for inputs of the wrong type, shape, dtype or device.
INPUT_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError)
_ID_TYPES = (torch.int32, torch.int64)


def are_images(images: object, side: int, device: torch.device) -> TypeGuard[Tensor]:
    """Returns whether `images` is a float tensor (B, 3, side, side) on the device."""
    return (
        isinstance(images, Tensor)
        and images.is_floating_point()
        and images.device == device
        and images.shape[1:] == (3, side, side)
    )


def are_texts(text: object, context_length: int, device: torch.device) -> TypeGuard[Tensor]:
    """Returns whether `text` is an int32 or int64 tensor (T, L) on the device.

    L is from 1 to `context_length`. If T is 0, L may be 0 too.
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
        f"The images are {_described(images)}; expected floats (B, 3, {side}, {side}) on {device}. "
        "Apply the model's preprocess to each image and stack the results."
    )


def text_error(text: object, context_length: int, device: torch.device) -> ShapeError:
    """Returns the error for texts that are not integers (T, L) on the device."""
    return ShapeError(
        f"The text is {_described(text)}; expected int32 or int64 (T, L) with L from 1 to "
        f"{context_length} on {device}. Use hfclip.tokenize."
    )


def is_traced() -> bool:
    """Returns whether torch.jit.trace is recording."""
    recording: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return recording


def has_other_size(images: Tensor, side: int) -> bool:
    """Returns whether the height or width of images (..., H, W) differs from `side` pixels.

    It is False while torch.jit.trace or torch.fx records, because sizes are not numbers then.
    """
    if is_traced() or not isinstance(images, Tensor):
        return False
    return images.shape[-1] != side or images.shape[-2] != side


def check_images(visual: Any, images: object, cause: Exception | None = None) -> None:
    """Raises ShapeError if an image tower cannot encode these images.

    Args:
        visual: The tower. A module without `input_resolution` and `conv1` is not checked.
        images: The argument of the caller.
        cause: The error that torch raised. If it is an error of hfclip or a lack of memory, nothing
            is checked, because its message is clear.
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
        model: The CLIP. If its token embedding was replaced, nothing is checked.
        text: The argument of the caller.
        cause: The error that torch raised, as in `check_images`.
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
    """Returns the error for token ids that are not in the vocabulary."""
    return UnknownTokenError(
        f"The text has ids from {int(text.min())} to {int(text.max())}; the model has tokens 0 to "
        f"{vocab_size - 1}. Use the tokenizer of this model."
    )


def _described(found: object) -> str:
    if not isinstance(found, Tensor):
        kind = type(found)
        name = (
            kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        )
        return f"of type {name}"
    return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)} on {found.device}"
