import io
import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image

import hfclip
from hfclip.images.formats import PICTURE_ENDINGS
from hfclip.images.reading import find_images, load_batch, open_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "below/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_means_the_pictures_in_it_and_in_its_subfolders(folder: Path) -> None:
    found = list(find_images([str(folder)]))
    assert found == [str(folder / name) for name in ("a.JPG", "b.png", "below/c.webp")]


def test_a_pattern_means_the_files_that_it_matches(folder: Path) -> None:
    assert list(find_images([f"{folder}/*.png"])) == [str(folder / "b.png")]
    assert len(list(find_images([f"{folder}/**/*.*"]))) == 4
    assert list(find_images([f"{folder}/*.gif"])) == [f"{folder}/*.gif"]


def test_an_existing_file_with_a_pattern_as_name_is_that_file(folder: Path) -> None:
    odd = folder / "x[1].png"
    Image.new("L", (1, 1)).save(odd)
    assert list(find_images([str(odd)])) == [str(odd)]


def test_other_files_in_a_folder_are_skipped_and_reported(folder: Path) -> None:
    others = (".DS_Store", "._a.JPG", ".hidden/d.png", "Thumbs.db", "below/report.pdf", "x.h5")
    for name in (*others, "clip.mpg", "figure.eps", "no_ending"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "b.png").read_bytes())
    (folder / "link").symlink_to(folder / "below", target_is_directory=True)
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    found = find_images([str(folder)])
    assert found.names == [str(folder / name) for name in ("a.JPG", "b.png", "below/c.webp")]
    left_out = (*others, "clip.mpg", "figure.eps", "no_ending", "link", "lost.png", "notes.txt")
    assert found.skipped == sorted(str(folder / name) for name in left_out)
    assert found.empty_folders == []


def test_a_folder_that_cannot_be_listed_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if Path(path) == folder / "below":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_images([str(folder)])
    assert found.names == [str(folder / "a.JPG"), str(folder / "b.png")]
    assert found.skipped == [str(folder / "below"), str(folder / "notes.txt")]


def test_a_folder_without_a_picture_is_reported(folder: Path) -> None:
    (folder / "empty").mkdir()
    found = find_images([str(folder / "empty"), str(folder / "b.png"), str(folder / "below")])
    assert found.names == [str(folder / "b.png"), str(folder / "below/c.webp")]
    assert found.empty_folders == [str(folder / "empty")]
    assert len(found) == 2


def test_a_named_hidden_folder_is_searched(folder: Path) -> None:
    (folder / "below").rename(folder / ".below")
    assert list(find_images([str(folder / ".below")])) == [str(folder / ".below/c.webp")]


def test_a_pattern_may_match_folders(folder: Path) -> None:
    whole = [str(folder / name) for name in ("a.JPG", "b.png", "below/c.webp", "notes.txt")]
    assert list(find_images([f"{folder}/*"])) == whole
    assert list(find_images([f"{folder}/**"])) == whole


def test_pillow_knows_all_file_extensions_of_pictures() -> None:
    heif = {".heic", ".heics", ".heif", ".heifs", ".hif"}
    assert PICTURE_ENDINGS - heif <= set(Image.registered_extensions())
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".gif", ".bmp", ".heic"} <= PICTURE_ENDINGS


def test_the_order_given_is_kept(folder: Path) -> None:
    names = [str(folder / "b.png"), "-", "missing.png", str(folder / "a.JPG")]
    assert list(find_images(names)) == names


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    content = io.BytesIO((folder / "b.png").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    pixels, errors = load_batch(["-"], hfclip.image_transform(4, (0, 0, 0), (1, 1, 1)))
    assert torch.equal(pixels, torch.zeros(1, 3, 4, 4))
    assert errors == {}


def test_broken_pictures_are_named_with_the_cause(folder: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:40])
    (folder / "empty.png").touch()
    for name, message in (
        ("cut.png", "cannot be decoded|not a picture"),
        ("empty.png", "not a picture"),
        ("notes.txt", "not a picture"),
        ("missing.png", "no such file"),
        ("below", "this is a folder"),
    ):
        _, errors = load_batch([str(folder / name)], hfclip.image_transform(4))
        assert re.search(message, str(errors[0])), name
        assert str(folder / name) in str(errors[0])


def grey(pixels: torch.Tensor) -> list[float]:
    """Returns the level, 0 to 255, of each picture in a batch with mean 0 and std 1."""
    return [round(level * 255) for level in pixels[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("workers", [None, 1, 4])
def test_a_batch_keeps_the_order_and_reports_broken_pictures(
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
    assert str(errors[2]) == "picture 2: not a picture that Pillow can read."
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


def test_pictures_may_be_paths_bytes_and_pil_images(tmp_path: Path) -> None:
    image = Image.effect_noise((30, 20), 90)
    image.save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png")
    path = tmp_path / "a.png"
    pixels, errors = load_batch(
        [path, str(path), path.read_bytes(), image, opened], hfclip.image_transform(8)
    )
    assert errors == {}
    assert torch.equal(pixels, hfclip.image_transform(8)(image).expand(5, 3, 8, 8))
    assert opened.getpixel((3, 4)) == image.getpixel((3, 4))  # the image is still open


@pytest.mark.parametrize("picture", [3, None, torch.zeros(3, 8, 8), ["a.png"]])
def test_an_object_of_another_type_is_refused(picture: object) -> None:
    kind = type(picture).__name__
    with pytest.raises(
        hfclip.ArgumentTypeError, match=f"picture 1 has type {kind}; expected a path"
    ):
        load_batch([b"none", picture], hfclip.image_transform(8))  # type: ignore[list-item]
    with (
        pytest.raises(TypeError, match=f"picture has type {kind}; expected a path, bytes or a PIL"),
        open_picture(picture),  # type: ignore[arg-type]
    ):
        pass


def test_one_picture_is_opened_and_closed(folder: Path) -> None:
    with open_picture(folder / "a.JPG") as image:
        assert (image.mode, image.size) == ("RGB", (4, 4))
    assert getattr(image, "fp", None) is None
    for name, message in (("missing.png", "no such file"), ("notes.txt", "not a picture")):
        with (
            pytest.raises(hfclip.ImageError, match=rf"{name}: {message}"),
            open_picture(folder / name),
        ):
            pass


def test_an_error_during_the_use_of_a_picture_keeps_its_cause(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_picture(folder / "b.png"):
        _ = 1 / 0
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(content, "JPEG")
    with (
        pytest.raises(hfclip.ImageError, match=r"picture: cannot be decoded \(.*truncated"),
        open_picture(content.getvalue()[:-200]) as image,
    ):
        image.load()


def test_a_preprocess_that_fails_is_not_taken_for_a_broken_picture(folder: Path) -> None:
    def broken(image: Image.Image) -> torch.Tensor:
        raise KeyError(image.mode)

    _, errors = load_batch([folder / "b.png"], broken)
    assert str(errors[0]) == (
        f"{folder / 'b.png'}: the preprocess fails for a picture of mode 'RGB' and size (4, 4) "
        "(KeyError: 'RGB')."
    )


def test_an_error_of_the_operating_system_is_not_called_truncation(folder: Path) -> None:
    names = [str(folder / "b.png" / "c.png"), str(folder / ("long" * 100))]
    _, errors = load_batch(names, hfclip.image_transform(4))
    for number, cause in enumerate(("Not a directory", "File name too long")):
        said = str(errors[number])
        assert said.startswith(f"{names[number]}: cannot be read ([Errno"), said
        assert cause in said
        assert "truncated" not in said


def test_a_picture_that_is_too_large_is_not_called_truncated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)  # b.png has 16, more than twice that
    _, errors = load_batch([folder / "b.png"], hfclip.image_transform(4))
    assert str(errors[0]).startswith(f"{folder / 'b.png'}: too large to decode (Image")
    assert "increase PIL.Image.MAX_IMAGE_PIXELS" in str(errors[0])
    assert "truncated" not in str(errors[0])


# Optional decoders


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Pillow forget a registered decoder for HEIC."""
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])


@pytest.fixture
def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    content = io.BytesIO()
    picture = Image.new("RGB", (64, 32), (200, 20, 20))
    picture.paste((20, 20, 200), (32, 0, 64, 32))
    pillow_heif.from_pillow(picture).save(content, format="HEIF", quality=95)
    return content.getvalue()


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", None])
def test_heic_is_detected_by_its_content(
    heic: bytes, name: str | None, tmp_path: Path, unregistered: None
) -> None:
    picture: Path | bytes = tmp_path / name if name else heic
    if isinstance(picture, Path):
        picture.write_bytes(heic)
    pixels, errors = load_batch([picture], hfclip.image_transform(32, (0, 0, 0), (1, 1, 1)))
    assert errors == {}
    assert pixels[0, :, 16, 2].mul(255).tolist() == pytest.approx([200, 20, 20], abs=6)
    assert pixels[0, :, 16, 29].mul(255).tolist() == pytest.approx([20, 20, 200], abs=6)


def test_a_turned_heic_is_turned_once(heic: bytes) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (64, 32), (200, 20, 20))
    stored.paste((20, 20, 200), (32, 0, 64, 32))
    content = io.BytesIO()
    pillow_heif.from_pillow(stored).save(content, format="HEIF", quality=95, exif=exif.tobytes())
    with open_picture(content.getvalue()) as image:
        assert image.size == (32, 64)
        assert image.convert("RGB").getpixel((16, 4)) == pytest.approx((200, 20, 20), abs=6)
        assert image.convert("RGB").getpixel((16, 60)) == pytest.approx((20, 20, 200), abs=6)


def test_only_heic_pictures_ask_for_the_decoder(
    monkeypatch: pytest.MonkeyPatch, unregistered: None
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # makes the import fail
    beginnings = [b"\0\0\0\x1cftypheic", b"\0\0\0\x1cftypmif1", b"\0\0\0\x1cftypmp42", b"\xff\xd8"]
    _, errors = load_batch([start + bytes(40) for start in beginnings], hfclip.image_transform(8))
    needed = "HEIC needs a decoder: pip install 'hfclip[heic]'."
    assert [str(errors[number]) for number in (0, 1)] == [f"picture {i}: {needed}" for i in (0, 1)]
    assert all("not a picture" in str(errors[number]) for number in (2, 3))


@pytest.mark.filterwarnings("ignore:image file could not be identified")  # a warning of Pillow
def test_avif_without_its_decoder_names_the_pillow_version_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from PIL import AvifImagePlugin

    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    _, errors = load_batch([b"\0\0\0\x20ftypavif" + bytes(40)], hfclip.image_transform(8))
    assert str(errors[0]) == "picture 0: AVIF needs a decoder: pip install 'Pillow>=11.3'."


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_batch_stays_on_the_cpu_whatever_the_default_device(
    mode: Literal["exact", "fast"], folder: Path
) -> None:
    expected, _ = load_batch([folder / "a.JPG"], hfclip.image_transform(9, mode=mode))
    with torch.device("meta"):
        pixels, _ = load_batch([folder / "a.JPG"], hfclip.image_transform(9, mode=mode))
        none, _ = load_batch([b"none"], hfclip.image_transform(9, mode=mode))
    assert torch.equal(pixels, expected)
    assert (none.device.type, none.dtype) == ("cpu", torch.float32)


def test_an_image_that_occurs_several_times_is_decoded_by_one_thread() -> None:
    random = torch.randint(256, (500, 600, 3), generator=torch.Generator().manual_seed(2))
    Image.fromarray(random.to(torch.uint8).numpy()).save(file := io.BytesIO(), "png")
    preprocess = hfclip.image_transform(9)
    expected = preprocess(Image.open(file))
    for _ in range(5):
        image = Image.open(io.BytesIO(file.getvalue()))
        pixels, errors = load_batch([image] * 16, preprocess, workers=8)
        assert not errors
        assert all(torch.equal(found, expected) for found in pixels)
    broken = Image.open(io.BytesIO(file.getvalue()[:-200_000]))
    _, errors = load_batch([broken, broken], preprocess)
    assert [str(errors[number]).split(":")[0] for number in (0, 1)] == ["picture 0", "picture 1"]
