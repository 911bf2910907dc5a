import io
import re
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

import hfclip
from hfclip.images import find_images, load_batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "below/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_stands_for_the_pictures_in_and_below_it(folder: Path) -> None:
    found = list(find_images([str(folder)]))
    assert found == [str(folder / name) for name in ("a.JPG", "b.png", "below/c.webp")]


def test_a_pattern_stands_for_what_it_matches(folder: Path) -> None:
    assert list(find_images([f"{folder}/*.png"])) == [str(folder / "b.png")]
    assert len(list(find_images([f"{folder}/**/*.*"]))) == 4
    assert list(find_images([f"{folder}/*.gif"])) == [f"{folder}/*.gif"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(folder: Path) -> None:
    odd = folder / "x[1].png"
    Image.new("L", (1, 1)).save(odd)
    assert list(find_images([str(odd)])) == [str(odd)]


def test_the_order_given_is_kept(folder: Path) -> None:
    names = [str(folder / "b.png"), "-", "missing.png", str(folder / "a.JPG")]
    assert list(find_images(names)) == names


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    content = io.BytesIO((folder / "b.png").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    pixels, errors = load_batch(["-"], hfclip.image_transform(4, (0, 0, 0), (1, 1, 1)))
    assert torch.equal(pixels, torch.zeros(1, 3, 4, 4))
    assert errors == {}


def test_broken_pictures_are_named_with_what_is_wrong(folder: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:40])
    (folder / "empty.png").touch()
    for name, message in (
        ("cut.png", "cannot be decoded|not a picture"),
        ("empty.png", "not a picture"),
        ("notes.txt", "not a picture"),
        ("missing.png", "no such file"),
        ("below", "cannot be decoded"),
    ):
        _, errors = load_batch([str(folder / name)], hfclip.image_transform(4))
        assert re.search(message, str(errors[0])), name
        assert str(folder / name) in str(errors[0])


def grey(pixels: torch.Tensor) -> list[float]:
    """The level, 0 to 255, that fills each picture of a batch whose mean is 0 and deviation 1."""
    return [round(level * 255) for level in pixels[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("workers", [None, 1, 4])
def test_a_batch_keeps_the_order_and_reports_what_is_broken(
    mode: Literal["exact", "fast"], workers: int | None, tmp_path: Path
) -> None:
    pictures: list[str | Path | bytes] = []
    for level in range(0, 240, 20):
        path = tmp_path / f"{level}.png"
        Image.new("RGB", (level + 30, 40), (level, level, level)).save(path)
        kinds: list[str | Path | bytes] = [path, str(path), path.read_bytes()]
        pictures.append(kinds[level % 3])
    pictures.insert(2, b"no picture")
    pictures.insert(5, str(tmp_path / "missing.png"))
    pictures.append((tmp_path / "220.png").read_bytes()[:60])
    preprocess = hfclip.image_transform(8, (0, 0, 0), (1, 1, 1), mode)
    pixels, errors = load_batch(pictures, preprocess, workers)
    assert pixels.shape == (12, 3, 8, 8)
    assert grey(pixels) == list(range(0, 240, 20))
    assert list(errors) == [2, 5, 14]
    assert str(errors[2]) == "picture 2: not a picture of any kind that Pillow can read."
    assert str(errors[5]).startswith(f"{tmp_path / 'missing.png'}: no such file")
    assert str(errors[14]).startswith("picture 14: cannot be decoded (")


def test_a_batch_without_a_picture_is_empty() -> None:
    pixels, errors = load_batch([b"none"], hfclip.image_transform(8))
    assert pixels.shape == (0,)
    assert list(errors) == [0]
    assert load_batch([], hfclip.image_transform(8)).errors == {}


def test_a_batch_equals_its_pictures_one_by_one(tmp_path: Path) -> None:
    preprocess = hfclip.image_transform(8)
    images = [Image.effect_noise((20 + number, 30), 90) for number in range(20)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number:02}.png")
    pixels, _ = load_batch(find_images([str(tmp_path)]), preprocess)
    assert torch.equal(pixels, torch.stack([preprocess(image) for image in images]))
