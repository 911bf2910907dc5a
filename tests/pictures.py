"""Draws small pictures, and runs `hfclip embed` on them with the bundled model."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from hfclip.cli import main
from hfclip.embedding.part_files import complete_parts
from hfclip.embedding.parts import Rows, joined, read_part
from hfclip.embedding.plan import Plan
from hfclip.embedding.stores import AnyStore


def drawn(seed: int, size: tuple[int, int] = (16, 16), mode: str = "L") -> Image.Image:
    """Returns a picture of noise."""
    shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels, mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Returns the bytes of a file with the picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def draw_folder(folder: Path, count: int, first: int = 0) -> Path:
    """Fills a folder with pictures of noise: 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        drawn(number).save(folder / f"{number:03}.png")
    return folder


@dataclass
class Result:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of `--json`."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def embed(source: Path | str, out: Path | str, *arguments: str) -> Result:
    """Runs `hfclip embed` with the bundled model and `--json`."""
    command = ["embed", str(source), "-o", str(out), "--model", "digits", "--device", "cpu"]
    result = CliRunner().invoke(main, [*command, "--json", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def rows_of(out: AnyStore) -> Rows:
    """Returns all rows of the parts, dead ones among them."""
    return joined([read_part(out, number) for number in complete_parts(out)])


def live_rows(out: AnyStore) -> dict[str, NDArray[np.float32]]:
    """Returns the embedding of each live row by its key; zeros where there is none."""
    found: dict[str, NDArray[np.float32]] = {}
    for part in Plan(out).parts():
        vectors = read_part(out, part.number).embeddings
        for row, item in zip(part.rows, part.items, strict=True):
            found[item.key] = vectors.values[row]
    return found
