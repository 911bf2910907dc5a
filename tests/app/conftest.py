"""A collection of 100 handwritten digits, and pages of the bundled model with and without it."""

import os
from pathlib import Path

import pytest
from pictures import embed
from PIL import Image
from sklearn.datasets import load_digits

from conversion.digits import WORDS
from hfclip.app.demo import Demo, open_demo


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeds 100 digits in the folder `digits`; the last is a copy of the first."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "digits").mkdir()
    data = load_digits()
    for number in range(100):
        pixels = data.images[number if number < 99 else 0]
        word = WORDS[data.target[number]] if number < 99 else "copy"
        image = Image.fromarray((pixels * 255 / 16).round().astype("uint8"))
        image.save(desk / "digits" / f"{number:02}-{word}.png")
    earlier = Path.cwd()
    os.chdir(desk)
    try:
        assert embed("digits", desk / "out").summary["embedded"] == 100
    finally:
        os.chdir(earlier)
    return desk / "out"


@pytest.fixture(scope="session")
def demo(collection: Path) -> Demo:
    """Returns the bundled model with the collection."""
    return open_demo(embeddings=collection, device="cpu")


@pytest.fixture(scope="session")
def alone() -> Demo:
    """Returns the bundled model without a collection."""
    return open_demo("digits", device="cpu")
