"""Fixtures: a small base, and a folder of pictures whose colour tells their class."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from coloured import COLOURS, picture, small_model

from hfclip.model import CLIP


@pytest.fixture
def model() -> CLIP:
    return small_model()


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Leaves out the picture of each training, which takes as long as a small training."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib.figure", None)
        yield


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of class folders with 36 pictures."""
    folder = tmp_path_factory.mktemp("coloured")
    for place, (label, colour) in enumerate(COLOURS.items()):
        (folder / label).mkdir()
        for number in range(12):
            content = picture(colour, 100 * place + number)
            (folder / label / f"{number:02d}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a small base."""
    folder = tmp_path_factory.mktemp("base")
    small_model().save_pretrained(folder)
    return folder
