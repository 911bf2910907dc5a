"""The fast preprocess compared with the exact one, on pictures like photographs."""

import functools
import importlib.util
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hfclip
from hfclip.images.arrow import lent_pixels

SIDE = 224


# Some sizes have 12 megapixels, and several tests in a row use the same picture.
@functools.lru_cache(maxsize=8)
def drawn(size: tuple[int, int], noise: float = 6) -> Image.Image:
    """Returns a picture of gradients, discs with sharp edges, stripes and sensor noise.

    Tests share it, so they must not change it.
    """
    width, height = size
    random = np.random.default_rng(3)
    y, x = (axis.astype(np.float32) / min(size) for axis in np.ogrid[0:height, 0:width])
    pixels = np.empty((height, width, 3), np.float32)
    for channel, slope in enumerate((200 * x, 120 + 60 * np.sin(5 * y), 200 - 150 * y)):
        pixels[..., channel] = slope
    for _ in range(12):
        across, down, radius = random.uniform((0, 0, 0.03), (width / height, 1, 0.25))
        # Only the square around the disc, which is a small part of a large picture.
        rows, columns = (
            slice(*np.searchsorted(axis.ravel(), (middle - radius, middle + radius)))
            for axis, middle in ((y, down), (x, across))
        )
        inside = (x[:, columns] - across) ** 2 + (y[rows] - down) ** 2 < radius**2
        pixels[rows, columns][inside] = random.uniform(20, 235, 3)
    pixels[:, (x[0] * 30).astype(int) % 7 == 0] *= 0.7
    pixels += noise * random.standard_normal((height, width, 1), np.float32)
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))


@functools.lru_cache(maxsize=4)
def photograph(number: int, size: tuple[int, int]) -> Image.Image:
    """Returns a photograph. Tests share it, so they must not change it."""
    return photographs()[number].resize(size, Image.Resampling.BICUBIC)


@functools.cache
def photographs() -> list[Image.Image]:
    """Returns the two photographs of scikit-learn, decoded once and without importing it."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-learn is not installed")
    folder = Path(spec.origin).parent / "datasets/images"
    return [Image.open(folder / name) for name in ("china.jpg", "flower.jpg")]


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    content = io.BytesIO()
    of_kind: dict[str, Any] = {"JPEG": {"quality": 90}, "PNG": {"compress_level": 1}}.get(kind, {})
    image.save(content, kind, **options, **of_kind)
    return content.getvalue()


@functools.lru_cache(maxsize=3)
def jpeg(size: tuple[int, int]) -> bytes:
    """Returns a drawn picture as JPEG, encoded once for tests in a row."""
    return saved(drawn(size))


@functools.lru_cache(maxsize=4)
def decoded(content: bytes) -> Image.Image:
    """Returns the picture in a file, decoded once for tests in a row, which must not change it."""
    image = opened(content)
    image.load()
    return image


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def both(content: bytes, **settings: Any) -> tuple[Tensor, Tensor]:
    """Returns the pixels of the exact and the fast preprocess for a file."""
    exact, fast = (
        hfclip.image_transform(SIDE, mode=mode, **settings) for mode in ("exact", "fast")
    )
    return exact(decoded(content)), fast(opened(content))


def levels_apart(one: Tensor, other: Tensor) -> Tensor:
    """Returns the difference of pixels, in levels of 255."""
    std = torch.tensor(hfclip.config.OPENAI_STD)
    return ((one - other).abs() * std[:, None, None] * 255).round(decimals=3)


@pytest.mark.parametrize(
    ("size", "most"),
    [((640, 480), 1), ((480, 640), 1), ((641, 479), 1), ((300, 1200), 3), ((224, 300), 0.001)],
)
def test_a_picture_of_common_size_is_within_a_level_or_three(
    size: tuple[int, int], most: float
) -> None:
    for picture in (drawn(size), photograph(0, size), photograph(1, size)):
        for content in (saved(picture), saved(picture, "PNG")):
            exact, fast = both(content)
            assert fast.shape == (3, SIDE, SIDE)
            assert fast.dtype == torch.float32
            assert fast.is_contiguous()
            assert levels_apart(exact, fast).max() <= most


def test_twelve_megapixels_are_within_three_levels() -> None:
    for content in files((4000, 3000)):
        apart = levels_apart(*both(content)).max()
        assert apart <= 3
        assert apart > 0 or opened(content).format == "BMP"


MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"interpolation": "bilinear"},
    "cropped": {"resize_resolution": 256},
    "squash": {"resize_mode": "squash"},
    "squash cropped": {"resize_mode": "squash", "resize_resolution": 256},
    "longest": {"resize_mode": "longest", "fill_color": 90},
    "longest bilinear": {"resize_mode": "longest", "interpolation": "bilinear"},
}


@functools.lru_cache(maxsize=1)
def files(size: tuple[int, int]) -> tuple[bytes, ...]:
    """Returns two pictures as JPEG and BMP, encoded once for tests in a row."""
    images = drawn(size), photograph(0, size)
    return tuple(saved(image, kind) for image in images for kind in ("JPEG", "BMP"))


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize(
    ("size", "most"), [((4000, 3000), 3), ((640, 480), 1), ((641, 479), 1), ((300, 1200), 3)]
)
def test_other_resize_modes_are_within_a_level_or_three(
    size: tuple[int, int], most: float, name: str
) -> None:
    for content in files(size):
        exact, fast = both(content, **MODES[name])
        assert fast.is_contiguous()
        assert levels_apart(exact, fast).max() <= most


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("size", [(1799, 1347), (1353, 2005), (5001, 1703)])
def test_sides_not_divisible_by_eight_differ_in_few_pixels_in_every_mode(
    size: tuple[int, int], name: str
) -> None:
    apart = levels_apart(*both(jpeg(size), **MODES[name]))
    assert apart.max() <= 10
    assert (apart > 3).float().mean() < 0.001


@pytest.mark.parametrize("size", [(1799, 1347), (1353, 2005)])
def test_sides_not_divisible_by_eight_differ_in_few_pixels(size: tuple[int, int]) -> None:
    apart = levels_apart(*both(jpeg(size)))
    assert apart.max() <= 10
    assert (apart > 3).float().mean() < 0.001


def test_features_have_a_high_cosine_similarity() -> None:
    model, _ = hfclip.load("digits", device="cpu")
    transforms = [hfclip.image_transform(32, mode=mode) for mode in ("exact", "fast")]
    for size in ((640, 480), (2000, 1504)):
        content = saved(drawn(size))
        pixels = torch.stack([transform(opened(content)) for transform in transforms])
        assert not torch.equal(pixels[0], pixels[1])
        with torch.no_grad():
            features = model.encode_image(pixels)
        assert torch.cosine_similarity(features[0], features[1], dim=0) > 0.999


def test_padding_is_the_same_in_both_modes() -> None:
    exact, fast = both(saved(drawn((2400, 1601))), resize_mode="longest", fill_color=90)
    for rows in (slice(0, 37), slice(-37, None)):
        assert torch.equal(exact[:, rows], exact[:, :1, :1].expand(3, 37, SIDE))
        assert levels_apart(exact[:, rows], fast[:, rows]).max() < 0.001
    assert exact[0, 37].std() > 0.01


def test_a_jpeg_is_decoded_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, resize = [], Image.Image.resize

    def noted(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        sizes.append(image.size)
        return resize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    hfclip.image_transform(SIDE, mode="fast")(opened(saved(drawn((2800, 2000)))))
    assert sizes == [(1400, 1000)]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_other_modes_are_prepared_exactly(mode: str) -> None:
    picture = drawn((640, 480))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 200)
    else:
        image = picture.quantize(32) if mode == "P" else picture.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert opened(saved(image, kind)).mode == mode
    exact, fast = both(saved(image, kind))
    assert torch.equal(exact, fast)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_prepared_exactly(mode: str) -> None:
    exact, fast = both(saved(drawn((2000, 1500)).convert(mode)))
    assert torch.equal(exact, fast)


def test_a_picture_smaller_than_the_result_is_prepared_exactly() -> None:
    exact, fast = both(saved(drawn((150, 300))))
    assert torch.equal(exact, fast)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [drawn((400, 300)), drawn((400, 300)).transpose(Image.Transpose.ROTATE_180)]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert getattr(opened(content), "n_frames", 1) == 2
    assert levels_apart(*both(content)).max() <= 1


def test_neither_transform_applies_the_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = drawn((640, 480))
    for content in (saved(picture, exif=exif), saved(drawn((2048, 1536)), exif=exif)):
        assert levels_apart(*both(content)).max() <= 3
    assert torch.equal(both(saved(picture, exif=exif))[1], both(saved(picture))[1])


@pytest.mark.parametrize("size", [(640, 480), (2000, 1500)])
def test_a_truncated_jpeg_is_refused_as_by_pillow(size: tuple[int, int]) -> None:
    content = saved(drawn(size))[: -size[0]]
    for mode in ("exact", "fast"):
        with pytest.raises(OSError, match="truncated"):
            hfclip.image_transform(SIDE, mode=mode)(opened(content))


def test_the_given_image_stays_unchanged() -> None:
    fast = hfclip.image_transform(SIDE, mode="fast")
    for size in ((640, 480), (2400, 1800)):
        content = saved(drawn(size))
        image = opened(content)
        first = fast(image)
        assert image.size == size
        assert torch.equal(fast(image), first)
        assert np.array_equal(np.asarray(image), np.asarray(opened(content)))
        # A loaded image is resized differently, to nearly the same pixels.
        assert levels_apart(fast(image), first).max() <= 3


def test_an_image_opened_by_path_gives_the_same_pixels_as_from_memory(tmp_path: Path) -> None:
    content = saved(drawn((640, 480)))
    (tmp_path / "a.jpg").write_bytes(content)
    fast = hfclip.image_transform(SIDE, mode="fast")
    with Image.open(tmp_path / "a.jpg") as image:
        assert torch.equal(fast(image), fast(opened(content)))


def test_pixels_shared_with_pillow_outlive_the_image() -> None:
    image = drawn((640, 480)).copy()
    pixels = lent_pixels(image)
    assert pixels is not None
    assert np.array_equal(pixels[..., :3], np.asarray(image))
    image.putpixel((2, 1), (7, 8, 9))
    assert pixels[1, 2, :3].tolist() == [7, 8, 9]
    expected = np.array(image)
    del image
    others = [drawn((640, 480), noise).copy() for noise in (1, 2, 3)]
    assert np.array_equal(pixels[..., :3], expected)
    assert len(others) == 3


def test_pixels_that_pillow_does_not_share_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    content, fast = saved(drawn((640, 480))), hfclip.image_transform(SIDE, mode="fast")
    expected = fast(opened(content))
    assert lent_pixels(Image.new("RGB", (2400, 1800))) is None  # 17 MB, in two blocks of memory
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    assert lent_pixels(opened(content)) is None
    assert torch.equal(fast(opened(content)), expected)


def test_threads_and_processes_may_share_a_transform() -> None:
    fast = hfclip.image_transform(SIDE, mode="fast")
    contents = [saved(drawn((400 + 10 * number, 300))) for number in range(8)]
    expected = [fast(opened(content)) for content in contents]
    copy = pickle.loads(pickle.dumps(fast))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda content: copy(opened(content)), contents))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
