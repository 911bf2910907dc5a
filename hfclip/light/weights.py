"""Reads the weights of a model as NumPy arrays, from safetensors files alone."""

import json
import mmap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from safetensors import safe_open

from hfclip.checkpoints.assembly import (
    LEGACY_STATE_DICT,
    SAFETENSORS,
    STATE_DICT,
    TORCHSCRIPT,
    Assembled,
    Content,
    Reader,
    assemble,
)
from hfclip.errors import NeedsTorchError
from hfclip.layouts.files import Source
from hfclip.light.half import widened

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_REMEDY = "Load this model with hfclip.load, which needs torch: pip install torch torchvision."

# The dtypes of safetensors that NumPy has, in the byte order of the format.
# fmt: off
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}
# fmt: on


class Weights:
    """The tensors of one part of a model, by the rest of their names.

    A tensor that is not stored in float32 is converted at each access.

    Example:
        >>> block = Weights(tensors).part("visual.transformer.resblocks.0")
        >>> block.part("mlp")["c_fc.weight"].shape
        (3072, 768)
    """

    def __init__(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        self._tensors = tensors
        self._prefix = prefix

    def __getitem__(self, name: str) -> Floats:
        return _as_float32(self._tensors[self._prefix + name])

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def rows(self, name: str, numbers: Array) -> Floats:
        """Returns some rows of a matrix, and converts no others: (..., W) for numbers (...)."""
        return _as_float32(self._tensors[self._prefix + name][numbers])

    def part(self, name: str) -> "Weights":
        """Returns the tensors whose names go on with a part's name and a dot."""
        return Weights(self._tensors, f"{self._prefix}{name}.")


def _as_float32(tensor: Array) -> Floats:
    return widened(tensor) if tensor.dtype == np.float16 else np.asarray(tensor, np.float32)


def read_arrays(source: Source) -> Assembled[Array]:
    """Reads the safetensors file of a model, or all of its shards, and its configuration.

    The arrays are views of the file's bytes, which are mapped if the source allows it and read into
    memory otherwise. Mapped arrays cannot be written to.

    Raises:
        NeedsTorchError: The file is not a safetensors file, or has a dtype that NumPy lacks.
        CheckpointError: The file is missing, empty, truncated, damaged or of an unknown kind, or
            its tensors are not those of one CLIP; as in `hfclip.load`.
        ConfigError: The config.json is invalid.
    """
    return assemble(source, _READERS)


def _read_safetensors(path: Path, mapped: bool) -> Content[Array]:
    with safe_open(path, framework="np"):
        pass  # this has checked that the header is valid and describes every byte of the file
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped else file.read()
    data = np.frombuffer(content, np.uint8)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    stored = data[start:]
    return Content({name: _array(stored, name, entry, path) for name, entry in header.items()})


def _array(data: Array, name: str, entry: Mapping[str, Any], path: Path) -> Array:
    """Returns a view of the bytes that an entry of the header describes."""
    begin, end = entry["data_offsets"]
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype == "BF16":  # the upper half of a float32
        upper = data[begin:end].view("<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise NeedsTorchError(
            f"{path} stores {name} as {dtype}, which NumPy does not have. {_REMEDY}"
        )
    return data[begin:end].view(_DTYPES[dtype]).reshape(shape)


def _refuse(kind: str, path: Path, _mapped: bool) -> NoReturn:
    raise NeedsTorchError(
        f"{path} is a {kind}, but without torch only safetensors files are read. {_REMEDY}"
    )


_READERS: dict[str, Reader[Array]] = {
    SAFETENSORS: _read_safetensors,
    **{kind: partial(_refuse, kind) for kind in (STATE_DICT, LEGACY_STATE_DICT, TORCHSCRIPT)},
}
