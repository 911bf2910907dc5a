"""Checks the tensors that the towers encode, and explains what is wrong with them."""

import torch
from torch import Tensor

from hfclip.errors import ShapeError

_ID_TYPES = (torch.int32, torch.int64)


def are_images(images: object, side: int, device: torch.device) -> bool:
    """Whether `images` is a float tensor (B, 3, side, side) on the device."""
    return (
        isinstance(images, Tensor)
        and images.is_floating_point()
        and images.device == device
        and images.shape[1:] == (3, side, side)
    )


def are_texts(text: object, context_length: int, device: torch.device) -> bool:
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


def has_other_size(images: Tensor, side: int) -> bool:
    """Whether images (..., H, W) are not squares of `side` pixels.

    It is False while torch.jit.trace or torch.fx records: sizes are no numbers then.
    """
    if torch.jit.is_tracing() or not isinstance(images, Tensor):
        return False
    return images.shape[-1] != side or images.shape[-2] != side


def _described(found: object) -> str:
    if not isinstance(found, Tensor):
        kind = type(found)
        name = (
            kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        )
        return f"of type {name}"
    return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)} on {found.device}"
