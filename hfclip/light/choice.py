"""Chooses between NumPy and torch for one answer."""

import sys
from importlib.util import find_spec
from typing import Literal, get_args

from hfclip.checkpoints.headers import has_headers, read_headers
from hfclip.errors import ArgumentError
from hfclip.light.costs import Backend, quickest
from hfclip.sources.find import Found

Choice = Literal["auto", "numpy", "torch"]
"""A backend, or "auto" for the one that probably answers sooner."""

# The beginnings of dtypes that NumPy does not have, besides bfloat16, which is converted.
_ONLY_TORCH = ("float8", "float6", "float4")


def choose(
    choice: Choice, source: Found, *, device: object = None, pictures: int = 0, captions: int = 0
) -> Backend:
    """Returns the backend for an answer.

    "auto" is torch for weights that NumPy cannot read and for another device than the CPU, NumPy
    where torch is not installed, and else the one that `hfclip.light.costs` estimates to be sooner.
    Without a device, few questions are answered by NumPy also if there is a GPU.

    Args:
        choice: The wish.
        source: The files of the model.
        device: The device that is asked for: None, a name, or a `torch.device`.
        pictures: The number of pictures to encode.
        captions: The number of captions to encode.

    Raises:
        ArgumentError: `choice` has another value, or is "numpy" for another device than the CPU.
        CheckpointError: A weight file is missing or of an unknown kind.
    """
    check(choice, device)
    if choice != "auto":
        return choice
    if _is_elsewhere(device):
        return "torch"
    if not has_torch():
        return "numpy"
    if not has_headers(source):
        return "torch"
    headers = read_headers(source)
    if any(header.dtype.startswith(_ONLY_TORCH) for header in headers.tensors.values()):
        return "torch"
    return quickest(headers.config, pictures, captions, has_imported_torch="torch" in sys.modules)


def check(choice: Choice, device: object = None) -> None:
    """Checks the wish before the files of the model are looked up.

    Raises:
        ArgumentError: `choice` has another value, or is "numpy" for another device than the CPU.
    """
    if choice not in get_args(Choice):
        raise ArgumentError(f"backend is {choice!r}; expected 'auto', 'numpy' or 'torch'.")
    if choice == "numpy" and _is_elsewhere(device):
        raise ArgumentError(
            f"NumPy computes on the CPU, and the device is {device}. Leave out the device, or use "
            "the backend torch."
        )


def has_torch() -> bool:
    """Returns whether torch is installed, without its import."""
    try:
        return find_spec("torch") is not None
    except ImportError:  # an import hook refuses it
        return False


def _is_elsewhere(device: object) -> bool:
    return device is not None and not str(device).startswith("cpu")
