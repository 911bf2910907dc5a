"""A small model with the whole vocabulary, and pictures whose colour tells their class."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfclip.config import ClipConfig
from hfclip.data.records import Example
from hfclip.model import CLIP

# Small, but with all tokens.
CONFIG = ClipConfig(32, 32, 1, 64, 16, 77, 49408, 16, 1, 1)
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@dataclass(frozen=True)
class Bytes:
    """A picture in memory, in place of a reference to a file."""

    content: bytes

    def read(self) -> bytes:
        return self.content


def picture(colour: tuple[int, int, int], seed: int) -> bytes:
    """Returns a PNG of 40 x 32 pixels: a colour with noise."""
    noise = np.random.default_rng(seed).integers(0, 50, (32, 40, 3))
    file = io.BytesIO()
    Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def example(label: str, seed: int, captions: Sequence[str] = ()) -> Example:
    content = picture(COLOURS[label], seed)
    image: Any = Bytes(content)
    return Example(f"{label}/{seed}.png", f"{seed:064x}", tuple(captions), label, image)


def small_model() -> CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(**CONFIG.to_dict()).eval()
