"""Reads the tensors of a TorchScript archive without running anything that is in it.

Such an archive (the form of OpenAI's releases) is a zip: `data.pkl` describes a tree of modules,
`data/0`, `data/1`, ... hold the tensors' bytes uncompressed, and `code/` holds programs, which
are left alone. The pickle is read by an unpickler that knows four kinds of name and refuses the
rest; each of them builds inert values, which are checked against the file before they become
tensors. The tensors are views of the mapped file: reading costs no memory until they are used.
"""

import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hfclip.errors import CheckpointError, UnsafeCheckpointError

_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
_MAX_PICKLE_BYTES = 64 * 2**20
_MAX_TENSORS = 100_000
_MAX_DEPTH = 64


def is_torchscript(names: list[str]) -> bool:
    """Whether a zip with these entries is a TorchScript archive and not a saved state dict."""
    return any(name.endswith("/constants.pkl") for name in names)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Reads every tensor of a TorchScript archive, by its dotted name.

    Returns:
        Tensors in the dtypes they were saved in, mapped copy-on-write from the file.

    Raises:
        UnsafeCheckpointError: The pickle names something that is not a plain tensor or module.
        CheckpointError: The archive is damaged, or a tensor reaches past its bytes.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        root = _root(archive, path)
        tree = _unpickle(archive, f"{root}data.pkl", path)
        records = _records(archive, file, f"{root}data/", path)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {
        name: _tensor(view, records, mapped, f"{path}: {name}") for name, view in _walk(tree, path)
    }


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    elements: int


class _View(NamedTuple):
    """A tensor as the pickle describes it; nothing is believed before `_tensor` checks it."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


class _Record(NamedTuple):
    start: int
    size: int


class _Module:
    """Any `__torch__` object: no more than the attributes it was saved with."""

    __slots__ = ("attributes",)

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _RebuildTensor:
    """Stands in for torch._utils._rebuild_tensor_v2; has no attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _View:
        return _View(storage, offset, shape, stride)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise UnsafeCheckpointError(
            f"{self._path} asks for {module}.{name}, which no CLIP archive needs; nothing was run. "
            "Do not load this file: get the model from where it was first published."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(elements) is not int:
            raise ValueError("not a storage")
        return _Storage(str(key), dtype, elements)


def _root(archive: zipfile.ZipFile, path: Path) -> str:
    for name in archive.namelist():
        if name.endswith("/data.pkl") and name.count("/") == 1:
            return name.removesuffix("data.pkl")
    raise CheckpointError(f"{path} is a zip without a data.pkl: not a TorchScript archive.")


def _unpickle(archive: zipfile.ZipFile, name: str, path: Path) -> object:
    size = archive.getinfo(name).file_size
    if size > _MAX_PICKLE_BYTES:
        raise CheckpointError(f"{path}: {name} unpacks to {size:,} bytes; a CLIP's is far smaller.")
    try:
        return _Unpickler(archive.read(name), path).load()
    except UnsafeCheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: {name} is damaged ({error}). Download it again.") from error


def _records(archive: zipfile.ZipFile, file: Any, prefix: str, path: Path) -> dict[str, _Record]:
    """Where each tensor's bytes lie in the file, by their key."""
    end = path.stat().st_size
    records = {}
    for entry in archive.infolist():
        if not entry.filename.startswith(prefix):
            continue
        file.seek(entry.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        stored = signature == b"PK\x03\x04" and entry.compress_type == zipfile.ZIP_STORED
        if not stored or start + entry.file_size > end:
            raise CheckpointError(
                f"{path}: {entry.filename} is compressed or reaches past the end of the file; "
                "it is truncated or was not written by torch. Download it again."
            )
        records[entry.filename.removeprefix(prefix)] = _Record(start, entry.file_size)
    return records


def _walk(tree: object, path: Path) -> Iterator[tuple[str, _View]]:
    """The tensors of a module tree with their dotted names, in the order they were saved."""
    pending: list[tuple[str, object, int]] = [("", tree, 0)]
    visited = 0
    while pending:
        name, node, depth = pending.pop()
        visited += 1
        if visited > _MAX_TENSORS or depth > _MAX_DEPTH:
            raise CheckpointError(f"{path} describes a module tree too large or deep for a CLIP.")
        if isinstance(node, _View):
            yield name, node
        elif isinstance(node, _Module):
            children = getattr(node, "attributes", {}).items()
            prefix = f"{name}." if name else ""
            pending += [(f"{prefix}{key}", child, depth + 1) for key, child in children][::-1]


def _tensor(view: _View, records: dict[str, _Record], mapped: mmap.mmap, name: str) -> Tensor:
    """Makes a described tensor a view of the file, once it is known to lie within its bytes."""
    numbers = (view.offset, *_integers(view.shape, name), *_integers(view.stride, name))
    if not isinstance(view.storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
        raise CheckpointError(f"{name} is not described as a tensor is; the file is damaged.")
    storage, shape, stride = view.storage, view.shape, view.stride
    record = records.get(storage.key)
    needed = storage.elements * storage.dtype.itemsize
    reach = view.offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    empty = 0 in shape
    if record is None or needed > record.size or (reach > storage.elements and not empty):
        raise CheckpointError(
            f"{name} of shape {tuple(shape)} reaches past the bytes that the file holds for it; "
            "the file is damaged or was made to mislead. Download it again."
        )
    if empty:
        return torch.empty(shape, dtype=storage.dtype)
    flat = torch.frombuffer(
        mapped, dtype=storage.dtype, count=storage.elements, offset=record.start
    )
    return flat.as_strided(shape, stride, view.offset)


def _integers(value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise CheckpointError(f"{name} has a shape that is no tuple; the file is damaged.")
    return value
