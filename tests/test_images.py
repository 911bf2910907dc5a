import io
import sys
from pathlib import Path

import pytest
from PIL import Image

import hfclip
from hfclip.images import find_images, open_image


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
    assert open_image("-").size == (4, 4)


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
        with pytest.raises(hfclip.ImageError, match=message) as caught:
            open_image(str(folder / name))
        assert str(folder / name) in str(caught.value)
