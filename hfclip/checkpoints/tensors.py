"""Reads the tensors of a safetensors file."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from hfclip.interruption import interrupts_deferred


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Returns all tensors of a file, on the CPU and in the order of the file.

    Ctrl-C ends it after a tensor. safetensors makes a mapped one with `torch.asarray`, which turns
    a KeyboardInterrupt into a ValueError, as if the file was damaged.

    Args:
        path: The file.
        mapped: Whether the tensors are a view of the file, which then must not be overwritten.

    Raises:
        OSError: The file cannot be read.
        SafetensorError: The file is damaged.
    """
    tensors = {}
    backend = "mmap" if mapped else "pread"
    with safe_open(path, framework="pt", backend=backend) as file, interrupts_deferred() as deliver:
        for name in file.offset_keys():
            tensors[name] = file.get_tensor(name)
            deliver()
    return tensors
