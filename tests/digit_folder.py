"""Writes the digits of scikit-learn as PNG files in class folders, and embeds them."""

import os
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

from conversion.digits import WORDS
from hfclip.cli import main


def digit(number: int, *, turned: bool = False) -> Image.Image:
    """Returns a digit, or one that is turned by 90 degrees."""
    pixels = (load_digits().images[number] * 255 / 16).round().astype("uint8")
    return Image.fromarray(np.rot90(pixels) if turned else pixels)


def write_digits(folder: Path, count: int, *, first: int = 0, turned: bool = False) -> Path:
    """Writes digits to FOLDER/WORD/NUMBER.png."""
    data = load_digits()
    for number in range(first, first + count):
        pixels = (data.images[number] * 255 / 16).round().astype("uint8")
        path = folder / WORDS[data.target[number]] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rot90(pixels) if turned else pixels).save(path)
    return folder


def embed_digits(folder: Path, out: Path, *arguments: str) -> Path:
    """Embeds a folder with the bundled model. Keys begin with the folder's name."""
    command = ["embed", folder.name, "-o", str(out), "--model", "digits", "--device", "cpu"]
    earlier = Path.cwd()
    os.chdir(folder.parent)
    try:
        result = CliRunner().invoke(main, [*command, *arguments])
    finally:
        os.chdir(earlier)
    assert result.exit_code == 0, result.output
    return out
