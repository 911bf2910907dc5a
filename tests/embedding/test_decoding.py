"""The treatment of each kind of picture."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

import hfclip
from hfclip.embedding.decoding import Reader, parse_colour, pixel_limit
from hfclip.embedding.workers import Budget
from hfclip.errors import ArgumentError, ImageError
from hfclip.images.display import blended

Prepare = Callable[..., "Reader"]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def coloured(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def reader(**options: object) -> Reader:
    return Reader(hfclip.image_transform(16), **options)  # type: ignore[arg-type]


def expected(image: Image.Image) -> torch.Tensor:
    pixels: torch.Tensor = hfclip.image_transform(16)(image)
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_picture_has_the_pixels_of_the_preprocess_and_its_size(kind: str) -> None:
    image = coloured()
    options = {"lossless": True} if kind == "WEBP" else {}
    found = reader()(saved(image, kind, **options), "a")
    assert torch.equal(found.pixels, expected(image))
    assert (found.width, found.height) == (48, 32)


def test_a_truncated_picture_is_an_error() -> None:
    content = saved(coloured(size=(200, 200)), "JPEG")
    with pytest.raises(ImageError, match=r"^a\.jpg: cannot be decoded .*truncated"):
        reader()(content[: len(content) // 2], "a.jpg")


def test_an_empty_file_and_a_text_are_errors() -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: the file is empty"):
        reader()(b"", "a.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: not a picture that Pillow can read"):
        reader()(b"some text", "a.jpg")


def test_a_bomb_is_refused_before_it_is_decoded_and_the_limit_can_be_raised() -> None:
    content = saved(Image.new("L", (4000, 3000)), "PNG")
    with pixel_limit(10_000_000), pytest.raises(ImageError, match="12,000,000; the limit is 10,0"):
        reader(max_pixels=10_000_000)(content, "a.png")
    with pixel_limit(12_000_000):
        assert reader(max_pixels=12_000_000)(content, "a.png").width == 4000


def test_the_limit_replaces_pillows_and_is_restored() -> None:
    earlier = Image.MAX_IMAGE_PIXELS
    with pixel_limit(5):
        assert Image.MAX_IMAGE_PIXELS == 5
    assert earlier == Image.MAX_IMAGE_PIXELS


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert torch.equal(reader()(content, "a.gif").pixels, expected(frames[0]))


def test_cmyk_is_converted_as_by_the_preprocess() -> None:
    image = coloured("CMYK")
    assert torch.equal(reader()(saved(image, "TIFF"), "a.tif").pixels, expected(image))


def test_16_bits_are_scaled_to_8() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = saved(Image.fromarray(levels * 257), "PNG")
    shown = Image.fromarray(levels.astype(np.uint8))
    assert torch.equal(reader()(content, "a.png").pixels, expected(shown))


def test_alpha_is_dropped_or_blended_with_a_background() -> None:
    image = coloured("RGBA")
    image.putalpha(0)
    content = saved(image, "PNG")
    assert torch.equal(reader()(content, "a.png").pixels, expected(image))
    over_green = reader(background=(0, 255, 0))(content, "a.png").pixels
    assert torch.equal(over_green, expected(Image.new("RGB", image.size, (0, 255, 0))))


def test_half_transparent_pixels_are_blended() -> None:
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 51))
    assert blended(image, (0, 0, 255)).getpixel((0, 0)) == (51, 0, 204)
    opaque = Image.new("RGB", (1, 1))
    assert blended(opaque, (0, 0, 255)) is opaque


def test_the_orientation_is_applied_and_the_size_is_that_of_the_upright_picture() -> None:
    image, exif = coloured(), Image.Exif()
    exif[0x0112] = 6
    content = saved(image, "PNG", exif=exif)
    upright = reader()(content, "a.png")
    turned = image.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(upright.pixels, expected(turned))
    assert (upright.width, upright.height) == (32, 48)
    stored = reader(auto_orient=False)(content, "a.png")
    assert torch.equal(stored.pixels, expected(image))
    assert (stored.width, stored.height) == (48, 32)


def test_heic_is_read_with_the_extra_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(coloured(size=(64, 64))).save(file)
    assert reader()(file.getvalue(), "a.heic").width == 64
    import sys

    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    with pytest.raises(ImageError, match=r"HEIC needs a decoder: pip install 'hfclip\[heic\]'"):
        reader()(file.getvalue(), "a.heic")


def test_a_raw_file_is_named_even_if_pillow_would_read_its_preview() -> None:
    with pytest.raises(ImageError, match=r"a\.DNG: a camera's RAW file, which is not read"):
        reader()(saved(coloured(), "TIFF"), "a.DNG")


def test_an_unknown_colour_is_refused() -> None:
    assert parse_colour("#ff8000") == (255, 128, 0)
    with pytest.raises(ArgumentError, match="'no-colour'; expected a colour"):
        parse_colour("no-colour")


def test_a_preprocess_that_fails_for_one_picture_is_the_pictures_error_and_else_its_own() -> None:
    def strict(image: Image.Image) -> torch.Tensor:
        if image.mode != "RGB":
            raise ValueError("only RGB")
        return expected(image)

    def broken(image: Image.Image) -> torch.Tensor:
        raise ValueError(f"nothing works, not even {image.mode}")

    content = saved(coloured("L"), "PNG")
    with pytest.raises(
        ImageError, match=r"a\.png: the preprocess fails for .* mode 'L' .*only RGB"
    ):
        Reader(strict)(content, "a.png")
    with pytest.raises(ValueError, match="not even RGB"):
        Reader(broken)(content, "a.png")


def test_a_picture_that_grows_by_resizing_is_refused() -> None:
    narrow = Reader(hfclip.image_transform(16), max_pixels=10_000, resized=enlarged)
    with pytest.raises(
        ImageError, match=r"1 x 50 pixels are too narrow: .* 16 x 800, over the limit"
    ):
        narrow(saved(Image.new("L", (1, 50)), "PNG"), "a.png")
    assert narrow(saved(Image.new("L", (1, 39)), "PNG"), "a.png").height == 39


def enlarged(size: tuple[int, int]) -> tuple[int, int]:
    return 16, 16 * size[1] // size[0]


class Noting(Budget):
    """A budget that notes the requests."""

    def __init__(self) -> None:
        super().__init__(1)
        self.noted: list[int] = []

    def take(self, count: int) -> None:
        self.noted.append(count)
        super().take(count)


def test_a_budget_is_asked_for_the_decoded_size_which_is_smaller_for_a_large_jpeg() -> None:
    budget = Noting()
    exact = Reader(hfclip.image_transform(16)).within(budget)
    fast = Reader(hfclip.image_transform(16, mode="fast")).within(budget)
    large = Image.new("RGB", (1600, 1600))
    exact(saved(large, "JPEG"), "a.jpg")
    fast(saved(large, "JPEG"), "a.jpg")
    fast(saved(large, "PNG"), "a.png")
    fast(saved(large, "JPEG", progressive=True), "a.jpg")
    fast(saved(Image.fromarray(np.zeros((100, 100), np.uint16)), "PNG"), "a.png")
    whole = 4 * 1600 * 1600
    scaled = whole // 64
    assert budget.noted == [whole, scaled, whole, scaled + 3 * 1600 * 1600, 16 * 100 * 100]
