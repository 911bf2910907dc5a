"""Tiny pictures with labels and captions, and writers of tables and tars for tests of data sets."""

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Names and captions that a careless reader would change.
LABELS = ("None", "big, dog", "7")
CAPTIONS = ('a 5" pipe, "bent"', "NA", "two\nlines", "café; naïve | tab\there", "null")


class Item(NamedTuple):
    """A picture of the collection."""

    name: str
    content: bytes
    label: str
    captions: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def picture(number: int, kind: str = "PNG") -> bytes:
    """Returns the file of a small picture; each number gives another picture."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


Items = Sequence[Item]

# 60 pictures with different contents.
ITEMS: Items = tuple(
    Item(
        f"{number:02}.png",
        picture(number),
        LABELS[number % 3],
        tuple(sorted({CAPTIONS[number % 5], f"picture {number}"})),
    )
    for number in range(60)
)


def write_pictures(folder: Path, items: Items) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        (folder / item.name).write_bytes(item.content)


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def stem(item: Item) -> str:
    return item.name.removesuffix(".png")
