"""Reads what `torch.save` and `torch.jit.save` wrote, without running anything that is in it.

Such a file holds the tensors' bytes as they are, and a pickle that says what they make up. Pickle
is a language whose programs can do anything, so it is read here by a machine of our own that knows
only the instructions which build data: it imports nothing, and a name in the file means what one
table says or is refused. `torch.load` and Python's unpicklers are not used even in their restricted
forms, for a few bytes make them hash for ever, overflow the stack or ask for gigabytes, and in
versions that are still in use they can be talked into more.

Each tensor is checked against the bytes that the file holds for it. Those of a zip become views of
the mapped file: reading costs no memory until they are used, and writing to them leaves the file
as it is.
"""

import math
import mmap
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hfclip.errors import CheckpointError, UnsafeCheckpointError

_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit
# The two numbers that begin what torch.save wrote before it wrote zips.
_LEGACY_START = (0x1950A86A20F9469CFC6C, 1001)

# A CLIP's pickle takes a few hundred thousand bytes, its names under a hundred characters.
_MAX_PICKLE_BYTES = 4 * 2**20
_MAX_TREE_NODES = 100_000
_MAX_NAME = 255
_MAX_DIMENSIONS = 8
_MAX_ARGUMENTS = 8


class View(NamedTuple):
    """A tensor as the file describes it; nothing is believed before `Saved.tensor` checks it."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


@dataclass(frozen=True)
class Saved:
    """A saved file that has been read but for its tensors.

    Attributes:
        path: The file.
        content: Dictionaries, lists and plain values as they were saved, a `View` for each tensor.
    """

    path: Path
    content: Any
    _storages: dict[str, Tensor]  # flat, as bytes

    def tensor(self, name: str, view: View) -> Tensor:
        """Makes a described tensor a view of the file, once it is known to lie within its bytes.

        Raises:
            CheckpointError: The description makes no sense or reaches past the bytes.
        """
        storage, offset, shape, stride = view
        if not _is_tensor(view):
            raise CheckpointError(
                f"{self.path}: {name!r} is not described as a tensor is; the file is damaged. "
                "Get it again."
            )
        held = self._storages.get(storage.key, torch.empty(0))
        if not _lies_within(view, held.nbytes):
            raise CheckpointError(
                f"{self.path}: {name!r} of shape {shape} reaches past the {held.nbytes:,} bytes "
                "that the file holds for it; the file is damaged or was made to mislead. "
                "Get it again."
            )
        if 0 in shape:
            return torch.empty(shape, dtype=storage.dtype)
        flat = held[: storage.elements * storage.dtype.itemsize].view(storage.dtype)
        return flat.as_strided(shape, stride, offset)


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
    views = _walk(saved.content, "", iter(range(_MAX_TREE_NODES)), path)
    return {name: saved.tensor(name, view) for name, view in views}


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
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        storages = _storages(archive, mapped, f"{root}data/", path)
    return Saved(path, _unpickle(stream, path, {}), storages)


def read_legacy(path: Path) -> Saved:
    """Reads what `torch.save` wrote before it wrote zips: five pickles, then the tensors' bytes.

    Raises:
        UnsafeCheckpointError: A pickle names something that no weights need.
        CheckpointError: The file is damaged, or is a pickle of another kind.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    stream = BytesIO(mapped[:_MAX_PICKLE_BYTES])
    dtypes: dict[str, torch.dtype] = {}
    for expected in _LEGACY_START:
        if _unpickle(stream, path, dtypes) != expected:
            raise CheckpointError(
                f"{path} is a pickle, but not one that torch.save wrote. "
                "Save the weights with torch.save(model.state_dict(), ...)."
            )
    system, content, keys = (_unpickle(stream, path, dtypes) for _ in range(3))
    little = not isinstance(system, dict) or system.get("little_endian") is not False
    _check_byte_order("little" if little else "big", path)
    return Saved(path, content, _legacy_storages(keys, dtypes, mapped, stream.tell(), path))


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    elements: int


class _Module:
    """Any object of a TorchScript archive: no more than the attributes it was saved with."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}


def _dictionary() -> dict[Any, Any]:
    return {}  # what it holds is set afterwards


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View:
    return View(storage, offset, shape, stride)


def _parameter(view: Any, *_: Any) -> Any:
    return view


def _left_out(*_: Any) -> None:
    """Makes nothing of what trainers save beside the weights."""


# All that a name in a pickle can mean, beside the modules of an archive.
_NAMES: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "Counter"): _left_out,
    ("torch", "Size"): _left_out,
    ("torch", "device"): _left_out,
    ("builtins", "set"): _left_out,
    ("__builtin__", "set"): _left_out,
    ("_codecs", "encode"): _left_out,  # how bytes are written
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", str(dtype)[6:]): _left_out for dtype in _STORAGE_DTYPES.values()},
}

# Instructions that put data or a name out of the table on the stack, or note where it is.
_HARMLESS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE),
    *(pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING),
    *(pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST),
    *(pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.BINPUT, pickle.LONG_BINPUT),
    *(pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPERSID),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.INST),
)


class _Unpickler(pickle._Unpickler):  # noqa: SLF001  # the one that can be taken apart
    """Knows the instructions that build data; all that it can call is in `_NAMES`."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: BytesIO, path: Path, dtypes: dict[str, torch.dtype]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._path = path
        self._dtypes = dtypes  # of the storages that are named, by their keys

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        raise UnsafeCheckpointError(
            f"{self._path} asks for {f'{module}.{name}'[:200]!r}, which no weights need and which "
            "could run code; nothing was run. If the file is yours, save the weights alone: "
            "torch.save(model.state_dict(), ...). If not, get the model from where it was first "
            "published."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6):
            raise TypeError("not a storage")
        kind, dtype, key, _device, elements, *view = pid
        known = isinstance(dtype, torch.dtype) and type(key) is str and type(elements) is int
        if kind != "storage" or not known or view not in ([], [None]):
            raise ValueError("not a storage")
        self._dtypes[key] = dtype
        return _Storage(key, dtype, elements)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise TypeError("not a call that rebuilds a tensor")
        self.stack.append(function(*arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Module) and type(state) is dict:
            self.stack[-1].attributes = state  # those of other things do not matter

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._update(zip(items[::2], items[1::2], strict=True))

    def _update(self, items: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        for key, value in items:
            # Any other key could take for ever to hash, or collide with all those before.
            if type(key) is not str and (type(key) is not int or not 0 <= key < 2**32):
                raise TypeError("a key that is neither text nor a small number")
            if type(target) is dict:  # else it was left out
                target[key] = value

    def _extension(self) -> None:
        raise UnsafeCheckpointError(
            f"{self._path} asks for something by a number that only the program which wrote it "
            "knows, and which could run code; nothing was run. Get the model from elsewhere."
        )

    def _unknown(self) -> None:
        raise ValueError("an instruction that builds no weights")

    dispatch: ClassVar[dict[int, Any]] = {
        **dict.fromkeys(range(256), _unknown),
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _HARMLESS},  # noqa: SLF001
        **dict.fromkeys((pickle.REDUCE[0], pickle.NEWOBJ[0]), _call),
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        **dict.fromkeys((pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]), _extension),
    }


def _unpickle(stream: BytesIO, path: Path, dtypes: dict[str, torch.dtype]) -> Any:
    try:
        return _Unpickler(stream, path, dtypes).load()
    except CheckpointError:
        raise
    except Exception as error:  # damage can show anywhere
        raise CheckpointError(
            f"{path}: its pickle is damaged or holds more than weights "
            f"({type(error).__name__}: {error}). Get the file again."
        ) from error


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


def _storages(
    archive: zipfile.ZipFile, mapped: mmap.mmap, prefix: str, path: Path
) -> dict[str, Tensor]:
    """The bytes of each storage in a zip, by its key."""
    storages = {}
    for entry in archive.infolist():
        if not entry.filename.startswith(prefix):
            continue
        header = mapped[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        signature, name, extra = _LOCAL_HEADER.unpack(header.ljust(_LOCAL_HEADER.size, b"\0"))
        start = entry.header_offset + _LOCAL_HEADER.size + name + extra
        stored = signature == b"PK\x03\x04" and entry.compress_type == zipfile.ZIP_STORED
        if not stored or start + entry.file_size > len(mapped):
            raise CheckpointError(
                f"{path}: {entry.filename!r} is compressed or reaches past the end of the file; "
                "it is truncated or was not written by torch. Get it again."
            )
        storages[entry.filename.removeprefix(prefix)] = _bytes(mapped, start, entry.file_size)
    return storages


def _legacy_storages(
    keys: Any, dtypes: dict[str, torch.dtype], mapped: mmap.mmap, at: int, path: Path
) -> dict[str, Tensor]:
    """The bytes of each storage behind the pickles: first their number, then they."""
    storages: dict[str, Tensor] = {}
    for key in keys if type(keys) is list else []:
        dtype = dtypes.get(key) if type(key) is str else None
        start, elements = at + 8, int.from_bytes(mapped[at : at + 8], "little", signed=True)
        at = start + elements * (dtype.itemsize if dtype else 0)
        if dtype is None or not start <= at <= len(mapped):
            raise CheckpointError(
                f"{path}: the bytes of storage {len(storages)} reach past the end of the file; "
                "it is truncated or damaged. Get it again."
            )
        # They lie at any address; processors want numbers at multiples of their size.
        storages[key] = _bytes(mapped, start, at - start).clone()
    return storages


def _bytes(mapped: mmap.mmap, start: int, size: int) -> Tensor:
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(mapped, dtype=torch.uint8, count=size, offset=start)


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
    elif isinstance(node, _Module):
        for key, child in node.attributes.items():
            yield from _walk(child, f"{name}.{key}" if name else str(key), visits, path)


def _is_tensor(view: View) -> bool:
    """Whether a description has the types that a tensor's has."""
    storage, offset, shape, stride = view
    if not isinstance(storage, _Storage) or type(shape) is not tuple or type(stride) is not tuple:
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
