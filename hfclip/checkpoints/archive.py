"""Reads files of `torch.save` and `torch.jit.save` without running code from them.

These files hold the bytes of the tensors and a pickle that describes the tensors.
`safe_unpickle` reads the pickle, and this module checks each description against the size
of the stored bytes. It reads the bytes into memory and never maps them: trainers overwrite their
files in place, which changes mapped tensors or ends the process with SIGBUS.
"""

import math
import os
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hfclip.checkpoints.safe_unpickle import Module, Storage, View, unpickle
from hfclip.errors import CheckpointError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile reads the others without a limit
# The first two pickles of a file that torch.save wrote before it used zip files.
_LEGACY_START = (0x1950A86A20F9469CFC6C, 1001)

# The pickle of a CLIP has a few hundred thousand bytes. Its names have under 100 characters.
_MAX_PICKLE_BYTES = 4 * 2**20
_MAX_TREE_NODES = 100_000
_MAX_NAME = 255
_MAX_DIMENSIONS = 8


class _Place(NamedTuple):
    """The position and size of a storage in a file, in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Saved:
    """A saved file whose tensors are not read yet.

    Attributes:
        path: The file.
        content: The saved dictionaries, lists and plain values, with a `View` for each tensor.
    """

    path: Path
    content: Any
    _places: Mapping[str, _Place]  # the storages by key

    def tensor(self, name: str, view: View) -> Tensor:
        """Reads one tensor; see `tensors`."""
        return self.tensors({name: view})[name]

    def tensors(self, views: Mapping[str, View]) -> dict[str, Tensor]:
        """Reads tensors into memory, and each storage only once.

        Raises:
            CheckpointError: A description is invalid or reaches past the stored bytes, or the
                file ends too early.
        """
        storages: dict[str, Tensor] = {}
        with self.path.open("rb") as file:
            return {name: self._tensor(name, view, file, storages) for name, view in views.items()}

    def _tensor(
        self, name: str, view: View, file: BufferedReader, storages: dict[str, Tensor]
    ) -> Tensor:
        storage, offset, shape, stride = view
        if not _is_tensor(view):
            raise CheckpointError(
                f"{self.path}: the description of {name!r} is not that of a tensor. The file is "
                "damaged; get it again."
            )
        place = self._places.get(storage.key, _Place(0, 0))
        if not _lies_within(view, place.size):
            raise CheckpointError(
                f"{self.path}: {name!r} of shape {shape} reaches past the {place.size:,} bytes "
                "that the file holds for it. The file is damaged or manipulated; get it again."
            )
        if 0 in shape:
            return torch.empty(shape, dtype=storage.dtype, device="cpu")
        if storage.key not in storages:
            storages[storage.key] = _read(file, place, self.path)
        flat = storages[storage.key][: storage.elements * storage.dtype.itemsize]
        return flat.view(storage.dtype).as_strided(shape, stride, offset)


def _read(file: BufferedReader, place: _Place, path: Path) -> Tensor:
    """Reads the bytes of a storage into a new tensor: uint8 (size,)."""
    flat = torch.empty(place.size, dtype=torch.uint8, device="cpu")
    file.seek(place.start)
    if file.readinto(flat.numpy().data) != place.size:
        raise CheckpointError(
            f"{path} ends before the last byte of its tensors: another program shortened it while "
            "it was read. Load it again when that program has finished."
        )
    return flat


def read_archive(path: Path) -> dict[str, Tensor]:
    """Reads every tensor of a TorchScript archive, the format of OpenAI's releases.

    The code of the archive, in its folder `code/`, is not read.

    Returns:
        The tensors by their dotted names, in the saved dtypes.

    Raises:
        UnsafeCheckpointError: The pickle names an object that is not a plain tensor or module.
        CheckpointError: The archive is damaged, or a tensor reaches past its bytes.
    """
    saved = read_zip(path)
    return saved.tensors(dict(_walk(saved.content, "", iter(range(_MAX_TREE_NODES)), path)))


def read_zip(path: Path) -> Saved:
    """Reads a zip file of `torch.save` or `torch.jit.save`.

    Raises:
        UnsafeCheckpointError: The pickle names an object that no weights need.
        CheckpointError: The content is damaged. zipfile raises its own errors for a damaged zip.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        root = _root(archive.namelist(), path)
        if f"{root}byteorder" in archive.namelist():
            order = _unpack(archive, f"{root}byteorder", path)
            _check_byte_order(order.decode("ascii", "replace"), path)
        stream = BytesIO(_unpack(archive, f"{root}data.pkl", path))
        places = _zip_places(archive, file, f"{root}data/", path)
    return Saved(path, unpickle(stream, path, {}), places)


def read_legacy(path: Path) -> Saved:
    """Reads the format of `torch.save` before zip files: five pickles, then the tensors' bytes.

    Raises:
        UnsafeCheckpointError: A pickle names an object that no weights need.
        CheckpointError: The file is damaged, or is a pickle of another kind.
    """
    dtypes: dict[str, torch.dtype] = {}
    with path.open("rb") as file:
        stream = BytesIO(file.read(_MAX_PICKLE_BYTES))
        for expected in _LEGACY_START:
            if unpickle(stream, path, dtypes) != expected:
                raise CheckpointError(
                    f"{path} is a pickle, but torch.save did not write it. "
                    "Save the weights with torch.save(model.state_dict(), ...)."
                )
        system, content, keys = (unpickle(stream, path, dtypes) for _ in range(3))
        little = not isinstance(system, dict) or system.get("little_endian") is not False
        _check_byte_order("little" if little else "big", path)
        file.seek(stream.tell())
        return Saved(path, content, _legacy_places(keys, dtypes, file, path))


def _root(names: list[str], path: Path) -> str:
    """Returns the folder in the zip file that holds all entries, with its slash."""
    if len(set(names)) != len(names):
        raise CheckpointError(
            f"{path} holds two entries of the same name. torch does not write such files: "
            "get it again."
        )
    for name in names:
        if name.endswith("/data.pkl") and name.count("/") == 1:
            return name.removesuffix("data.pkl")
    raise CheckpointError(
        f"{path} is a zip file without a data.pkl: neither a state dict nor a TorchScript "
        "archive. Give the path of the weight file."
    )


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Reads a small entry of a zip file. The size in the entry's header is not trusted."""
    data = b""
    if readable := archive.getinfo(name).compress_type in _READABLE:
        with archive.open(name) as entry:
            data = entry.read(_MAX_PICKLE_BYTES + 1)
    if not readable or len(data) > _MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path}: {name} is larger than {_MAX_PICKLE_BYTES // 2**20} MiB, which is more than "
            "a CLIP needs, or has a compression that torch does not use. Get the file again."
        )
    return data


def _check_byte_order(order: str, path: Path) -> None:
    if order != sys.byteorder:
        raise CheckpointError(
            f"{path} was saved with byte order {order[:20]!r}, but this machine has byte order "
            f"{sys.byteorder!r}. Load and save it with torch first, or get the safetensors file."
        )


def _zip_places(
    archive: zipfile.ZipFile, file: BufferedReader, prefix: str, path: Path
) -> dict[str, _Place]:
    """Returns the position of each storage in a zip file, by key."""
    places = {}
    end = os.fstat(file.fileno()).st_size
    for entry in archive.infolist():
        if not entry.filename.startswith(prefix):
            continue
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size).ljust(_LOCAL_HEADER.size, b"\0")
        signature, name, extra = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name + extra
        stored = signature == b"PK\x03\x04" and entry.compress_type == zipfile.ZIP_STORED
        if not stored or start + entry.file_size > end:
            raise CheckpointError(
                f"{path}: {entry.filename!r} is compressed or reaches past the end of the file. "
                "The file is truncated, or torch did not write it; get it again."
            )
        places[entry.filename.removeprefix(prefix)] = _Place(start, entry.file_size)
    # A small file whose entries share bytes could fill the memory.
    if sum(place.size for place in places.values()) > end:
        raise CheckpointError(
            f"{path} holds entries that overlap. It is damaged or manipulated; get it again."
        )
    return places


def _legacy_places(
    keys: Any, dtypes: dict[str, torch.dtype], file: BufferedReader, path: Path
) -> dict[str, _Place]:
    """Returns the position of each storage after the pickles, by key.

    Eight bytes before each storage give its number of elements. The position of `file` is the end
    of the pickles.
    """
    places: dict[str, _Place] = {}
    at, end = file.tell(), os.fstat(file.fileno()).st_size
    for key in keys if type(keys) is list else []:
        file.seek(at)
        dtype = dtypes.get(key) if type(key) is str else None
        start, elements = at + 8, int.from_bytes(file.read(8), "little", signed=True)
        at = start + elements * (dtype.itemsize if dtype else 0)
        if dtype is None or not start <= at <= end:
            raise CheckpointError(
                f"{path}: storage {len(places)} reaches past the end of the file. "
                "The file is truncated or damaged; get it again."
            )
        places[key] = _Place(start, at - start)
    return places


def _walk(node: object, name: str, visits: Iterator[int], path: Path) -> Iterator[tuple[str, View]]:
    """Yields the dotted name and description of each tensor of a module tree, in saved order."""
    # Names grow at every level, so the limit of their length also stops at a cycle.
    if next(visits, None) is None or len(name) > _MAX_NAME:
        raise CheckpointError(
            f"{path} describes a module tree that is too large or deep for a CLIP. It is damaged "
            "or manipulated; get it again."
        )
    if isinstance(node, View):
        yield name, node
    elif isinstance(node, Module):
        for key, child in node.attributes.items():
            yield from _walk(child, f"{name}.{key}" if name else str(key), visits, path)


def _is_tensor(view: View) -> bool:
    """Returns whether all fields of a description have the types that a tensor needs."""
    storage, offset, shape, stride = view
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        return False
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        return False
    numbers = (storage.elements, offset, *shape, *stride)
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _lies_within(view: View, held: int) -> bool:
    """Returns whether a storage of `held` bytes has a place for every element of a view."""
    storage, offset, shape, stride = view
    if 0 in shape:
        return True
    reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    size: int = storage.elements * storage.dtype.itemsize
    return max(reach, math.prod(shape)) <= storage.elements and size <= held
