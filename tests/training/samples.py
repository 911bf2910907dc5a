"""Small data for the tests of training: pictures in memory, and a model with known features."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

import hfclip
from conversion.digits import WORDS
from hfclip.data.records import Example
from hfclip.training.metrics import Metrics
from hfclip.training.results import BaseModel, DataCounts, Epoch, Results, Scores
from hfclip.training.settings import Settings

TEMPLATE = "a handwritten {}"


@dataclass(frozen=True)
class InMemory:
    """A picture's bytes with the interface of a reference."""

    content: bytes

    def read(self) -> bytes:
        return self.content


def png(pixels: "np.ndarray[Any, Any]") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def example(
    key: str, content: bytes, captions: Sequence[str] = (), label: str | None = None
) -> Example:
    digest = hashlib.sha256(content).hexdigest()
    reference: Any = InMemory(content)
    return Example(key, digest, tuple(captions), label, reference)


def numbered(number: int, *captions: str, label: str | None = None, key: str = "") -> Example:
    """Returns a picture whose only colour is `number`."""
    content = png(np.full((2, 2), number, dtype=np.uint8))
    return example(key or f"{number}.png", content, captions, label)


def digits(turns: int = 0) -> list[Example]:
    """Returns the 359 held-out digits, turned by 90 degrees `turns` times."""
    data = load_digits()
    pixels = (data.images * 255 / 16).round().astype(np.uint8)
    return [
        example(f"{row}.png", png(np.rot90(pixels[row], turns)), label=WORDS[data.target[row]])
        for row in range(4, len(pixels), 5)
    ]


def number_of(image: Image.Image) -> Tensor:
    """Is the preprocess of `Lookup`: the colour of the picture, as (3, 1, 1)."""
    return torch.full((3, 1, 1), float(np.asarray(image)[0, 0]))


class Lookup(nn.Module):
    """A model with given features: those of pictures by number, those of captions by text."""

    def __init__(self, images: Sequence[Sequence[float]], texts: Mapping[str, Sequence[float]]):
        super().__init__()
        self.images = torch.tensor(images)
        self.texts = {text.replace(" ", ""): torch.tensor(row) for text, row in texts.items()}
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.inner = nn.Dropout()
        self.context_length = 77
        self.modes: list[tuple[bool, bool, bool]] = []

    def encode_image(self, pixels: Tensor) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        self.modes.append((self.inner.training, torch.is_grad_enabled(), autocast))
        return self.images[pixels[:, 0, 0, 0].long()]

    def encode_text(self, ids: Tensor) -> Tensor:
        rows = [hfclip.decode(row, skip_special_tokens=True).replace(" ", "") for row in ids]
        return torch.stack([self.texts[row] for row in rows])


def share(value: float, count: int = 100) -> Metrics:
    """Returns metrics with an accuracy."""
    return Metrics(value, {}, {1: value}, {1: value / 2}, count)


def results(**changes: Any) -> Results:
    """Returns the results of a fine-tune with a mixture."""
    values: dict[str, Any] = {
        "base": BaseModel("org/base", "org/base", "0123456789" * 4),
        "settings": Settings(template=TEMPLATE, lr=3e-4).to_dict(),
        "data": DataCounts(1438, 100, 259, 0, 2, keep=359),
        "labels": WORDS,
        "split": "test",
        "before": Scores(share(0.1), share(0.99)),
        "tuned": Scores(share(0.95), share(0.80)),
        "mixed": Scores(share(0.93), share(0.91)),
        "epochs": [
            Epoch(number, 20 * number, Scores(share(0.1 + 0.2 * number), share(0.99 - number / 20)))
            for number in range(5)
        ],
        "alphas": {
            tenths / 10: Scores(share(0.09 * tenths), share(1 - 0.02 * tenths))
            for tenths in range(11)
        },
        "alpha": 0.8,
        "seconds": 61.0,
        "processes": 2,
        "device": "Abacus 9000, 2 threads",
        "versions": {"hfclip": "1.0", "torch": "2.4"},
    }
    return Results(**(values | changes))
