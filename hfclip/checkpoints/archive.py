"""Reads what `torch.save` and `torch.jit.save` wrote, without running anything that is in it.

Such a file holds the tensors' bytes as they are, and a pickle that describes the tensors.
`safe_unpickle` reads the pickle. Each description is checked against the bytes that the file
holds. The bytes are then read into memory of this process and never mapped: trainers overwrite
their files in place, which changes mapped tensors or ends the process with SIGBUS.
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
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit
# The two numbers that begin what torch.save wrote before it wrote zips.
_LEGACY_START = (0x1950A86A20F9469CFC6C, 1001)

# A CLIP's pickle takes a few hundred thousand bytes, its names under a hundred characters.
_MAX_PICKLE_BYTES = 4 * 2**20
_MAX_TREE_NODES = 100_000
_MAX_NAME = 255
_MAX_DIMENSIONS = 8


class _Place(NamedTuple):
    """Where a file holds the bytes of a storage."""

    start: int
    size: int


@dataclass(frozen=True)
class Saved:
    """A saved file whose tensors have not been read yet.

    Attributes:
        path: The file.
        content: Dictionaries, lists and plain values as they were saved, a `View` for each tensor.
    """

    path: Path
    content: Any
    _places: Mapping[str, _Place]  # of the storages, by their keys

    def tensor(self, name: str, view: View) -> Tensor:
        """Reads one tensor; see `tensors`."""
        return self.tensors({name: view})[name]

    def tensors(self, views: Mapping[str, View]) -> dict[str, Tensor]:
        """Reads described tensors into memory. Each storage that they use is read once.

        Raises:
            CheckpointError: A description makes no sense or reaches past the bytes, or the file
                ends too early.
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
                f"{self.path}: {name!r} is not described as a tensor is; the file is damaged. "
                "Get it again."
            )
        place = self._places.get(storage.key, _Place(0, 0))
        if not _lies_within(view, place.size):
            raise CheckpointError(
                f"{self.path}: {name!r} of shape {shape} reaches past the {place.size:,} bytes "
                "that the file holds for it; the file is damaged or was made to mislead. "
                "Get it again."
            )
        if 0 in shape:
            return torch.empty(shape, dtype=storage.dtype, device="cpu")
        if storage.key not in storages:
            storages[storage.key] = _read(file, place, self.path)
        flat = storages[storage.key][: storage.elements * storage.dtype.itemsize]
        return flat.view(storage.dtype).as_strided(shape, stride, offset)


def _read(file: BufferedReader, place: _Place, path: Path) -> Tensor:
    """Reads the bytes of a storage into memory of their own: uint8 (size,)."""
    flat = torch.empty(place.size, dtype=torch.uint8, device="cpu")
    file.seek(place.start)
    if file.readinto(flat.numpy().data) != place.size:
        raise CheckpointError(
            f"{path} ends before the bytes of its tensors do; another program shortened it while "
            "it was read. Load it again once that program has finished."
        )
    return flat


def is_torchscript(names: list[str]) -> bool:
    """Whether a zip with these entries is a TorchScript archive and not a saved state dict."""
    return any(name.endswith("/constants.pkl") for name in names)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Reads every tensor of a TorchScript archive, the form of OpenAI's releases.

    The archive's programs, under `code/`, are left alone.

    Returns:
        Tensors by their dotted names, in the dtypes they were saved in.

    Raises:
        UnsafeCheckpointError: The pickle names something that is not a plain tensor or module.
        CheckpointError: The archive is damaged, or a tensor reaches past its bytes.
    """
    saved = read_zip(path)
    return saved.tensors(dict(_walk(saved.content, "", iter(range(_MAX_TREE_NODES)), path)))


def read_zip(path: Path) -> Saved:
    """Reads the zip that `torch.save` and `torch.jit.save` write.

    Raises:
        UnsafeCheckpointError: Its pickle names something that no weights need.
        CheckpointError: It is damaged; where the zip itself is, zipfile's own errors pass.
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
    """Reads what `torch.save` wrote before it wrote zips: five pickles, then the tensors' bytes.

    Raises:
        UnsafeCheckpointError: A pickle names something that no weights need.
        CheckpointError: The file is damaged, or is a pickle of another kind.
    """
    dtypes: dict[str, torch.dtype] = {}
    with path.open("rb") as file:
        stream = BytesIO(file.read(_MAX_PICKLE_BYTES))
        for expected in _LEGACY_START:
            if unpickle(stream, path, dtypes) != expected:
                raise CheckpointError(
                    f"{path} is a pickle, but not one that torch.save wrote. "
                    "Save the weights with torch.save(model.state_dict(), ...)."
                )
        system, content, keys = (unpickle(stream, path, dtypes) for _ in range(3))
        little = not isinstance(system, dict) or system.get("little_endian") is not False
        _check_byte_order("little" if little else "big", path)
        file.seek(stream.tell())
        return Saved(path, content, _legacy_places(keys, dtypes, file, path))


def _root(names: list[str], path: Path) -> str:
    """The folder inside the zip that holds everything, with its slash."""
    if len(set(names)) != len(names):
        raise CheckpointError(
            f"{path} holds two entries of one name, and which of them is meant cannot be told. "
            "torch does not write such files: get it again."
        )
    for name in names:
        if name.endswith("/data.pkl") and name.count("/") == 1:
            return name.removesuffix("data.pkl")
    raise CheckpointError(
        f"{path} is a zip without a data.pkl: neither a state dict nor a TorchScript archive. "
        "Give the weight file itself."
    )


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Unpacks a small entry, whatever size it claims to have."""
    data = b""
    if readable := archive.getinfo(name).compress_type in _READABLE:
        with archive.open(name) as entry:
            data = entry.read(_MAX_PICKLE_BYTES + 1)
    if not readable or len(data) > _MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path}: {name} is more than {_MAX_PICKLE_BYTES // 2**20} MiB or is packed as torch "
            "packs nothing; a CLIP's is far smaller. Get the file again."
        )
    return data


def _check_byte_order(order: str, path: Path) -> None:
    if order != sys.byteorder:
        raise CheckpointError(
            f"{path} was saved with byte order {order[:20]!r}, this machine's is "
            f"{sys.byteorder!r}. Load and save it with torch first, or get the safetensors file."
        )


def _zip_places(
    archive: zipfile.ZipFile, file: BufferedReader, prefix: str, path: Path
) -> dict[str, _Place]:
    """Finds the bytes of each storage in a zip, by its key."""
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
                f"{path}: {entry.filename!r} is compressed or reaches past the end of the file; "
                "it is truncated or was not written by torch. Get it again."
            )
        places[entry.filename.removeprefix(prefix)] = _Place(start, entry.file_size)
    # Entries that share their bytes could make a small file fill the memory.
    if sum(place.size for place in places.values()) > end:
        raise CheckpointError(
            f"{path} holds entries that overlap; it is damaged or was made to mislead. "
            "Get it again."
        )
    return places


def _legacy_places(
    keys: Any, dtypes: dict[str, torch.dtype], file: BufferedReader, path: Path
) -> dict[str, _Place]:
    """Finds the bytes of each storage behind the pickles, where the count of elements comes first.

    `file` stands at the end of the pickles.
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
                f"{path}: the bytes of storage {len(places)} reach past the end of the file; "
                "it is truncated or damaged. Get it again."
            )
        places[key] = _Place(start, at - start)
    return places


def _walk(node: object, name: str, visits: Iterator[int], path: Path) -> Iterator[tuple[str, View]]:
    """The tensors of a module tree with their dotted names, in the order they were saved."""
    # Names grow at every level, so their limit also ends a tree that contains itself.
    if next(visits, None) is None or len(name) > _MAX_NAME:
        raise CheckpointError(
            f"{path} describes a module tree too large or deep for a CLIP; it is damaged or was "
            "made to mislead. Get it again."
        )
    if isinstance(node, View):
        yield name, node
    elif isinstance(node, Module):
        for key, child in node.attributes.items():
            yield from _walk(child, f"{name}.{key}" if name else str(key), visits, path)


def _is_tensor(view: View) -> bool:
    """Whether a description has the types that a tensor's has."""
    storage, offset, shape, stride = view
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        return False
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        return False
    numbers = (storage.elements, offset, *shape, *stride)
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _lies_within(view: View, held: int) -> bool:
    """Whether every element has its own place in the storage, which has that many bytes."""
    storage, offset, shape, stride = view
    if 0 in shape:
        return True
    reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    size: int = storage.elements * storage.dtype.itemsize
    return max(reach, math.prod(shape)) <= storage.elements and size <= held
