"""Reads a pickle without running code from it.

A pickle is a program that can run any code. The interpreter in this module knows only the
instructions that build data, and imports nothing: a table lists the names that a pickle may use,
and all other names raise an error. The restricted forms of `torch.load` and Python's unpicklers
are not safe enough: a few bytes make them hash for ever, overflow the stack or allocate gigabytes,
and versions that are still in use can run code.
"""

import pickle
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

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

_MAX_ARGUMENTS = 8


class View(NamedTuple):
    """The unchecked description of a tensor in a file; `archive.Saved` checks it."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


class Storage(NamedTuple):
    """The description of the memory that one or more tensors are views of."""

    key: str
    dtype: torch.dtype
    elements: int


class Module:
    """An object of a TorchScript archive, of which only the saved attributes are kept."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}


def _dictionary() -> dict[Any, Any]:
    return {}  # later instructions set the items


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View:
    return View(storage, offset, shape, stride)


def _parameter(view: Any, *_: Any) -> Any:
    return view


def _left_out(*_: Any) -> None:
    """Replaces an object that trainers save beside the weights by None."""


def _is_bytes(value: Any) -> bool:
    """Returns whether a value is bytes, or None, which replaces bytes of older protocols."""
    return value is None or type(value) is bytes


# The names that a pickle may use, in addition to the modules of an archive.
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
    ("_codecs", "encode"): _left_out,  # writes bytes in older protocols
    ("numpy", "dtype"): _left_out,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", str(dtype)[6:]): _left_out for dtype in _STORAGE_DTYPES.values()},
}

# NumPy 1 and 2 call these functions for a scalar, such as the best loss that a trainer saves.
_NUMPY_SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}

# Instructions that push data or a name of the table on the stack, or store it in the memo.
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


class _Unpickler(pickle._Unpickler):  # noqa: SLF001  # the C version has no dispatch table
    """Runs the instructions that build data, and calls only the functions in `_NAMES`."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: BytesIO, path: Path, dtypes: dict[str, torch.dtype]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._path = path
        self._dtypes = dtypes  # of the storages, by key

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Module
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if (module, name) in _NUMPY_SCALARS:
            return partial(self._numpy_scalar, f"{module}.{name}")
        raise self._refusal(f"{module}.{name}")

    def _numpy_scalar(self, name: str, *arguments: Any) -> None:
        """Checks and drops a NumPy scalar: a dropped data type and its bytes."""
        if len(arguments) != 2 or arguments[0] is not None or not _is_bytes(arguments[1]):
            raise self._refusal(name)

    def _refusal(self, name: str) -> UnsafeCheckpointError:
        return UnsafeCheckpointError(
            f"{self._path} asks for {name[:200]!r}, which no weights need and which "
            "could run code; nothing was run. If you wrote the file, save only the weights: "
            "torch.save(model.state_dict(), ...). If not, get the model from its first publisher."
        )

    def persistent_load(self, pid: Any) -> Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6):
            raise TypeError("not a storage")
        kind, dtype, key, _device, elements, *view = pid
        known = isinstance(dtype, torch.dtype) and type(key) is str and type(elements) is int
        if kind != "storage" or not known or view not in ([], [None]):
            raise ValueError("not a storage")
        self._dtypes[key] = dtype
        return Storage(key, dtype, elements)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise TypeError("not a call that rebuilds a tensor")
        self.stack.append(function(*arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Module) and type(state) is dict:
            self.stack[-1].attributes = state  # the state of other objects is not needed

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._update(zip(items[::2], items[1::2], strict=True))

    def _update(self, items: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        for key, value in items:
            # Any other key could take for ever to hash, or collide with all earlier keys.
            if type(key) is not str and (type(key) is not int or not 0 <= key < 2**32):
                raise TypeError("a key that is neither text nor a small number")
            if type(target) is dict:  # else it was dropped
                target[key] = value

    def _extension(self) -> None:
        raise UnsafeCheckpointError(
            f"{self._path} asks for an object by an extension number, which only the program "
            "that wrote the file knows and which could run code; nothing was run. Get the model "
            "from another source."
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


def unpickle(stream: BytesIO, path: Path, dtypes: dict[str, torch.dtype]) -> Any:
    """Reads one pickle from a stream.

    Args:
        stream: A stream that starts with the pickle. Reading stops after the pickle.
        path: The file it comes from, for messages.
        dtypes: The dictionary to which the dtype of each storage is added, by the storage's key.

    Returns:
        Dictionaries, lists and plain values, with a `View` for each tensor, a `Module` for each
        object of a TorchScript archive and None for each dropped object.

    Raises:
        UnsafeCheckpointError: The pickle names an object that no weights need.
        CheckpointError: The pickle is damaged.
    """
    try:
        return _Unpickler(stream, path, dtypes).load()
    except CheckpointError:
        raise
    except Exception as error:  # damage can raise any exception
        raise CheckpointError(
            f"{path}: its pickle is damaged or holds more than weights "
            f"({type(error).__name__}: {error}). Get the file again."
        ) from error
