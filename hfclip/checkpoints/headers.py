"""Reads the names, shapes and dtypes of the tensors of safetensors files, and no tensor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from hfclip.checkpoints.assembly import SAFETENSORS, Assembled, Content, assemble, detect_kind
from hfclip.layouts.files import Source

# The dtypes of safetensors whose names differ from torch's by more than the number of bits.
_NAMES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
_KINDS = {"F": "float", "I": "int", "U": "uint", "C": "complex"}


class Header(NamedTuple):
    """A tensor without its numbers, for `assemble`.

    Attributes:
        shape: The length of each dimension.
        dtype: The name of the dtype in torch, such as "float16".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def T(self) -> "Header":  # noqa: N802  # the name in NumPy and torch
        """The transposed matrix."""
        return self._replace(shape=self.shape[::-1])

    def reshape(self, shape: tuple[int, ...]) -> "Header":
        """Returns a tensor of the same numbers in another shape."""
        return self._replace(shape=shape)

    def joined(self, parts: "Sequence[Header]") -> "Header":
        """Returns the tensor that parts make, one after the other in the first dimension."""
        rows = sum(part.shape[0] for part in parts)
        return self._replace(shape=(rows, *self.shape[1:]))


def has_headers(source: Source) -> bool:
    """Returns whether all weights of a model are in safetensors files.

    Raises:
        CheckpointError: A file is missing, empty, or of an unknown kind.
    """
    return all(detect_kind(path) == SAFETENSORS for path in source.weight_files)


def read_headers(source: Source) -> Assembled[Header]:
    """Reads the headers of a model's safetensors files, and its configuration.

    Raises:
        CheckpointError: A file is missing, truncated, damaged or of another kind; as for
            `hfclip.checkpoints.read.read_checkpoint`.
        WeightsMismatchError: The tensors are not those of one CLIP.
        ConfigError: The configuration is invalid.
    """
    return assemble(source, {SAFETENSORS: _read})


def _read(path: Path, _mapped: bool) -> Content[Header]:
    with safe_open(path, framework="np"):
        pass  # this has checked that the header is valid and describes every byte of the file
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return Content(
        {
            name: Header(tuple(entry["shape"]), _name(entry["dtype"]))
            for name, entry in header.items()
        }
    )


def _name(dtype: str) -> str:
    """Returns torch's name of a dtype of safetensors: F16 -> float16."""
    return _NAMES.get(dtype) or f"{_KINDS.get(dtype[0], dtype[0].lower())}{dtype[1:]}"
