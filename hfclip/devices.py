"""Turns a device argument into a `torch.device` that works on this machine."""

from typing import TypeAlias

import torch

from hfclip.errors import ArgumentTypeError, DeviceError

Device: TypeAlias = str | int | torch.device | None

_KNOWN = "'cpu', 'cuda', 'cuda:1', 'mps', 'xpu' or 'meta'"
# Types of error that torch raises for a device that is missing or that it was built without.
_UNAVAILABLE = (RuntimeError, AssertionError, NotImplementedError, ImportError)


def choose_device(device: Device = None) -> torch.device:
    """Returns a device after a test that torch can allocate a tensor on it.

    Args:
        device: A name such as "cpu" or "cuda:1", the index of a CUDA GPU, or a `torch.device`.
            None selects the GPU if torch can use one, else the CPU.

    Raises:
        ArgumentTypeError: The argument has another type.
        DeviceError: torch does not know the device, or cannot use it on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target = _parse(device)
    try:
        torch.empty(0, device=target)
    except _UNAVAILABLE as error:
        raise DeviceError(
            f"The device {str(target)!r} cannot be used here: {_cause(target, error)}. "
            "Use 'cpu', or leave the device out to use the GPU if there is one."
        ) from error
    return target


def _parse(device: str | int | torch.device) -> torch.device:
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise ArgumentTypeError(
            f"device is {device!r}, a {type(device).__name__}; expected a string, the index of a "
            "GPU, a torch.device or None."
        )
    try:
        # An index is a CUDA GPU. torch.device(0) may be another kind of accelerator.
        return torch.device(f"cuda:{device}" if isinstance(device, int) else device)
    except RuntimeError:
        raise DeviceError(
            f"device is {device!r}, which torch does not know; expected {_KNOWN}."
        ) from None


def _cause(target: torch.device, error: Exception) -> str:
    """Returns the reason why torch cannot use a device, without a final period."""
    if target.type == "cuda" and torch.cuda.is_available():
        return f"the number of GPUs that torch sees is {torch.cuda.device_count()}"
    if isinstance(error, NotImplementedError):
        return f"this torch ({torch.__version__}) was built without it"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".")
