"""Embeds folders of small files with vectors made of hashes, without a model, for tests of plans.

A file that starts with b"broken" gives an error. A file that starts with b"unread" gives an error
and no digest.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from hfclip.data.references import FileImage
from hfclip.embedding.changes import Changes, update_plan
from hfclip.embedding.items import Item
from hfclip.embedding.manifest import Manifest
from hfclip.embedding.part_files import complete_parts
from hfclip.embedding.parts import Rows, Vectors, read_part, write_part
from hfclip.embedding.plan import Plan, PlannedPart
from hfclip.embedding.stores import AnyStore

DIMENSION = 4
MANIFEST = Manifest(
    name="digits",
    repository="org/digits",
    commit="0123456789abcdef",
    sha256="f" * 64,
    config_digest="c" * 64,
    preprocess="fast",
    precision="float32",
    normalized=True,
    dimension=DIMENSION,
    dtype="float32",
    kind="images",
    background=None,
    auto_orient=True,
    max_pixels=1_000,
    sources=("pictures",),
    version="0.1.0",
)
_times = itertools.count(1_700_000_000_000_000_000, 1_000_000)


class Killed(BaseException):
    """Stands for the end of a process: no code may handle it."""


def write(path: Path, content: bytes) -> None:
    """Writes a file with a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    touch(path)


def touch(path: Path) -> None:
    """Gives a file a new time."""
    now = next(_times)
    os.utime(path, ns=(now, now))


def listed(folder: Path) -> Iterator[Item]:
    """Yields the files of a folder, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found = path.stat()
            key = path.relative_to(folder.parent).as_posix()
            yield Item(key, FileImage(str(path)), None, found.st_size, found.st_mtime_ns)


def vector(content: bytes) -> list[float]:
    """Returns the embedding of a content."""
    numbers = np.frombuffer(sha256(content).digest()[:DIMENSION], np.uint8)
    return [float(number) for number in numbers]


def encoded(part: PlannedPart) -> Rows:
    """Encodes a part."""
    contents = [item.content() for item in part.items]
    errors = [content[:6].decode() if _fails(content) else None for content in contents]
    return Rows(
        keys=[item.key for item in part.items],
        embeddings=Vectors(
            np.array([[0.0] * DIMENSION if _fails(c) else vector(c) for c in contents], np.float32),
            np.array([error is None for error in errors]),
        ),
        errors=errors,
        widths=[len(content) for content in contents],
        heights=[None] * len(contents),
        captions=[item.text for item in part.items],
        caption_embeddings=None,
        digests=[None if c.startswith(b"unread") else sha256(c).digest() for c in contents],
    )


def encode(out: AnyStore, numbers: Iterable[int]) -> list[str]:
    """Writes parts and returns the keys of their inputs."""
    plan = Plan(out)
    keys = []
    for number in numbers:
        part = plan.part(number)
        assert list(part.rows) == list(range(len(part.items)))
        write_part(out, number, encoded(part), dtype="float32", dimension=DIMENSION)
        keys += [item.key for item in part.items]
    return keys


def run(
    folder: Path, out: AnyStore, *, part_size: int = 4, **options: Any
) -> tuple[Changes, list[str]]:
    """Embeds a folder and returns the changes and the keys that were encoded."""
    changes = update_plan(out, listed(folder), part_size=part_size, **options)
    return changes, encode(out, changes.pending)


def live(out: AnyStore) -> dict[str, list[float] | str]:
    """Returns the embedding or the error of each live row."""
    found: dict[str, list[float] | str] = {}
    complete = set(complete_parts(out))
    for part in Plan(out).parts():
        if part.number not in complete:
            continue
        rows = read_part(out, part.number)
        for row, item in zip(part.rows, part.items, strict=True):
            assert item.key not in found
            error = rows.errors[row]
            found[item.key] = rows.embeddings.values[row].tolist() if error is None else error
    return found


def expected(folder: Path) -> dict[str, list[float] | str]:
    """Returns what `live` returns after a complete run."""
    contents = {item.key: item.content() for item in listed(folder)}
    return {key: result(content) for key, content in contents.items()}


def result(content: bytes) -> list[float] | str:
    """Returns the embedding or the error of a content."""
    return content[:6].decode() if _fails(content) else vector(content)


def stored(out: AnyStore) -> list[tuple[str, Sequence[float]]]:
    """Returns the keys and embeddings of the parts alone, in their order."""
    rows = [read_part(out, number) for number in complete_parts(out)]
    return [
        (key, values)
        for part in rows
        for key, values in zip(part.keys, part.embeddings.values.tolist(), strict=True)
    ]


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Raises `Killed` at the given call that syncs, renames or removes a file, and at all later."""
    calls = itertools.count()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            if next(calls) >= step:
                raise Killed
            return call(*args, **options)

        return do

    with (
        patch.object(os, "fsync", counted(os.fsync)),
        patch.object(os, "replace", counted(os.replace)),
        patch.object(os, "unlink", counted(os.unlink)),
    ):
        yield


def killed_everywhere(do: Callable[[], object], after: Callable[[int], None]) -> int:
    """Kills a function at each of its steps and returns their number.

    Args:
        do: The function.
        after: Called after each kill with the number of the step; makes all as it was before `do`.
    """
    for step in itertools.count():
        try:
            with killed_at(step):
                do()
        except Killed:
            after(step)
        else:
            return step
    raise AssertionError


def _fails(content: bytes) -> bool:
    return content.startswith((b"broken", b"unread"))
