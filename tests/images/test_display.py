"""Turned, deep and inverted pictures, compared with the upright picture of 8 bits."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

import hfclip
from hfclip.config import OPENAI_STD
from hfclip.images.display import as_displayed
from hfclip.images.reading import ImageBatch, load_batch, open_picture

Array = Any
ORIENTATION = 0x0112
SIDE = 8
MODES = ("exact", "fast")
# Options of each file format that preserve flat squares.
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
# The largest size of one of 255 levels after normalisation.
LEVEL = 1 / 255 / min(OPENAI_STD) + 1e-6

# The stored pixels of an upright picture, by EXIF orientation. Row 0 and column 0 of the file are
# at the top and left (1), top and right (2), bottom and right (3), ... of the displayed picture.
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: np.rot90,
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
# Random grey levels (12, 20) from the full range, including black and white.
GREY = np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8)
GREY[0, :2] = 0, 255


def blocks(across: int, down: int, side: int = 16) -> Array:
    """Returns an RGB picture of flat squares, which JPEG keeps flat and separate."""
    colours = np.random.default_rng(1).integers(0, 256, (down, across, 3), np.uint8)
    return colours.repeat(side, 0).repeat(side, 1)


def saved(image: Image.Image | Array, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(content, kind, **options)
    return content.getvalue()


def oriented(pixels: Array, orientation: int, kind: str) -> bytes:
    """Returns a file with turned pixels and the matching orientation in its EXIF data."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = OPTIONS.get(kind, {})
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    return saved(stored, kind, exif=exif, **options)


def batch(*pictures: Any, mode: Literal["exact", "fast"] = "exact", **options: Any) -> ImageBatch:
    return load_batch(pictures, hfclip.image_transform(SIDE, mode=mode), **options)


def pixels_of(picture: Any, **options: Any) -> Tensor:
    pixels, errors = batch(picture, **options)
    assert errors == {}
    return pixels[0]


def as_grey(levels: Array = GREY) -> Tensor:
    """Returns the preprocessed pixels of 8-bit grey levels."""
    pixels: Tensor = hfclip.image_transform(SIDE)(Image.fromarray(np.asarray(levels, np.uint8)))
    return pixels


def refusal(picture: Any) -> str:
    pixels, errors = batch(picture)
    assert pixels.shape == (0,)
    return str(errors[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_gives_the_pixels_of_the_upright_one(
    orientation: int, kind: str, mode: Literal["exact", "fast"]
) -> None:
    upright = blocks(5, 3)
    content = oriented(upright, orientation, kind)
    expected = pixels_of(oriented(upright, 1, kind), mode=mode)
    apart = (pixels_of(content, mode=mode) - expected).abs().max()
    # AVIF is lossy and depends on the direction. The fast preprocess resizes a JPEG of this size
    # with Pillow, but a turned one with torch, which differs by one level.
    assert apart <= {("AVIF", mode): 0.2, ("JPEG", "fast"): LEVEL}.get((kind, mode), 0)
    if orientation != 1 and kind != "TIFF":  # Pillow itself turns TIFF files
        untouched = pixels_of(content, mode=mode, auto_orient=False)
        assert (untouched - expected).abs().max() > 0.5


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_is_turned_once(compression: str) -> None:
    for orientation, turned in STORED.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = np.ascontiguousarray(turned(GREY))
        content = saved(stored, "TIFF", exif=exif, compression=compression)
        assert torch.equal(pixels_of(content), as_grey()), orientation


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_pixels_equal_openais_without_auto_orient(orientation: int) -> None:
    content = oriented(blocks(5, 3), orientation, "JPEG")
    theirs = hfclip.image_transform(SIDE)(Image.open(io.BytesIO(content)))
    assert torch.equal(pixels_of(content, auto_orient=False), theirs)


@pytest.mark.parametrize("mode", MODES)
def test_a_camera_jpeg_of_two_pictures_is_turned(mode: Literal["exact", "fast"]) -> None:
    upright, exif = blocks(5, 3), Image.Exif()
    exif[ORIENTATION] = 8
    first = Image.fromarray(np.ascontiguousarray(STORED[8](upright)))
    content = saved(first, "MPO", exif=exif, save_all=True, append_images=[first], quality=95)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    expected = saved(upright, "JPEG", quality=95)
    assert (pixels_of(content, mode=mode) - pixels_of(expected, mode=mode)).abs().max() < 0.1


def test_an_orientation_in_xmp_is_applied() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="3"/></x:xmpmeta>'
    content = saved(np.ascontiguousarray(STORED[3](GREY)), "WEBP", xmp=xmp, lossless=True)
    assert torch.equal(pixels_of(content)[0], as_grey()[0])


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert torch.equal(pixels_of(saved(GREY, "PNG", exif=exif)), as_grey())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # a warning of Pillow
@pytest.mark.parametrize("damaged", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0??"])
def test_damaged_exif_data_is_ignored(damaged: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        content = saved(blocks(5, 3), kind, exif=damaged)
        assert torch.equal(pixels_of(content), pixels_of(content, auto_orient=False)), kind


@pytest.mark.parametrize("size", [(96, 64), (640, 448), (100, 60)])
def test_a_turned_jpeg_is_decoded_no_larger_than_the_fast_preprocess_needs(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, transpose = [], Image.Image.transpose

    def noted(image: Image.Image, method: Image.Transpose) -> Image.Image:
        sizes.append(image.size)
        return transpose(image, method)

    monkeypatch.setattr(Image.Image, "transpose", noted)
    upright = np.asarray(Image.fromarray(blocks(5, 3)).resize(size, Image.Resampling.BICUBIC))
    for mode in MODES:
        content = oriented(upright, 6, "JPEG")
        expected = pixels_of(oriented(upright, 1, "JPEG"), mode=mode)
        apart = (pixels_of(content, mode=mode) - expected).abs().max()
        assert apart <= 8 * LEVEL, mode
    # At least three times the result's side of 8. 8 does not divide the sides of the last size.
    decoded = {(96, 64): (32, 48), (640, 448): (56, 80), (100, 60): (60, 100)}
    assert sizes == [size[::-1], decoded[size]]


def test_a_given_open_jpeg_keeps_its_size() -> None:
    image = Image.open(io.BytesIO(oriented(blocks(10, 8), 6, "JPEG")))
    assert image.size == (128, 160)
    pixels_of(image, mode="fast")
    assert image.size == (128, 160)


def test_an_upright_jpeg_stays_undecoded() -> None:
    for content in (oriented(blocks(5, 3), 1, "JPEG"), saved(blocks(5, 3), "JPEG")):
        image = Image.open(io.BytesIO(content))
        assert as_displayed(image) is image
        assert image.tile  # the image is not decoded yet


def test_a_pil_image_is_turned_once_and_stays_unchanged(tmp_path: Path) -> None:
    upright = blocks(5, 3)
    image = Image.open(io.BytesIO(oriented(upright, 6, "PNG")))
    with open_picture(image) as shown:
        assert np.array_equal(np.asarray(shown), upright)
        with open_picture(shown) as again:
            assert again is shown
    assert image.size == (48, 80)
    assert image.getexif()[ORIENTATION] == 6
    assert torch.equal(pixels_of(image), pixels_of(upright_image := Image.fromarray(upright)))
    assert upright_image.getpixel((0, 0)) == tuple(upright[0, 0])


# Deep pictures


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of_16_bits(values: Array) -> bytes:
    """Returns a PNG of (H, W) or (H, W, C) values: grey, grey and alpha, RGB or RGBA."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.astype(">u2").tobytes()
    length = width * channels * 2
    lines = b"".join(b"\0" + rows[y * length : (y + 1) * length] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(
    values: Array, bits: int, *, sample: int = 1, photometric: int = 1, planes: bool = False
) -> bytes:
    """Returns an uncompressed TIFF in the byte order of the values. All entries are shorts."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    order = ">" if values.dtype.byteorder == ">" else "<"
    strips = [values[..., i].tobytes() for i in range(channels)] if planes else [values.tobytes()]
    if bits == 12:
        of_16 = np.unpackbits(values.astype(">u2").view(np.uint8)).reshape(-1, 16)
        strips = [np.packbits(of_16[:, 4:]).tobytes()]
    entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric]}
    entries |= {273: [0] * len(strips), 277: [channels], 278: [height]}
    entries |= {279: [len(strip) for strip in strips], 284: [2 if planes else 1], 339: [sample]}
    after = 8 + 2 + 12 * len(entries) + 4  # offset of the values that do not fit in an entry
    pixels = after + sum(2 * len(numbers) for numbers in entries.values() if len(numbers) > 2)
    entries[273] = [pixels + i * len(strips[0]) for i in range(len(strips))]
    directory, longer = struct.pack(f"{order}H", len(entries)), b""
    for tag, numbers in entries.items():
        directory += struct.pack(f"{order}HHI", tag, 3, len(numbers))
        if len(numbers) > 2:
            directory += struct.pack(f"{order}I", after + len(longer))
            longer += struct.pack(f"{order}{len(numbers)}H", *numbers)
        else:
            directory += struct.pack(f"{order}2H", *[*numbers, 0][:2])
    header: bytes = struct.pack(f"{order}2sHI", b"MM" if order == ">" else b"II", 42, 8)
    return header + directory + struct.pack(f"{order}I", 0) + longer + b"".join(strips)


DEEP = {
    "PNG, 16 bits": (png_of_16_bits(GREY * np.uint16(257)), ("I;16", "I")),
    "TIFF, 16 bits": (tiff(GREY * np.uint16(257), 16), ("I;16",)),
    "TIFF, 16 bits, big endian": (tiff((GREY * np.uint16(257)).astype(">u2"), 16), ("I;16B",)),
    "TIFF, 16 bits, white is 0": (
        tiff(65535 - GREY * np.uint16(257), 16, photometric=0),
        ("I;16",),
    ),
    "TIFF, 12 bits": (tiff((GREY * (4095 / 255)).round().astype(np.uint16), 12), ("I;16",)),
    "TIFF, 32 bits, 0 to 255": (tiff(GREY.astype(np.int32), 32, sample=2), ("I",)),
    "TIFF, signed 16 bits": (tiff(GREY.astype(np.int16), 16, sample=2), ("I",)),
    "TIFF, float, 0 to 1": (tiff(GREY / np.float32(255), 32, sample=3), ("F",)),
    "TIFF, float, 0 to 255": (tiff(GREY.astype(np.float32), 32, sample=3), ("F",)),
    "TIFF, float, white is 0": (
        tiff(1 - GREY / np.float32(255), 32, sample=3, photometric=0),
        ("F",),
    ),
    "PGM, 16 bits": (b"P5 20 12 65535\n" + (GREY * np.uint16(257)).astype(">u2").tobytes(), ("I",)),
    "JPEG 2000, 16 bits": (saved(GREY * np.uint16(257), "JPEG2000"), ("I;16",)),
    "PFM": (b"Pf 20 12 -1.0\n" + (GREY[::-1] / np.float32(255)).tobytes(), ("F",)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DEEP)
def test_a_deep_picture_gives_the_pixels_of_its_8_bit_version(
    name: str, mode: Literal["exact", "fast"]
) -> None:
    content, modes = DEEP[name]
    assert Image.open(io.BytesIO(content)).mode in modes
    assert torch.equal(pixels_of(content, mode=mode), as_grey())


def test_sixteen_bits_are_rounded_to_the_nearest_level() -> None:
    values = np.array([[0, 128, 129, 385, 386, 32767, 32768, 65406, 65407, 65535]], np.uint16)
    with open_picture(png_of_16_bits(values)) as image:
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[0, 0, 1, 1, 2, 127, 128, 254, 255, 255]]


def test_16_bit_colours_equal_their_8_bit_version() -> None:
    colours = blocks(5, 3, side=4)
    alpha = np.full((12, 20, 1), 255, np.uint8)
    expected = pixels_of(Image.fromarray(colours))
    deep = colours * np.uint16(257)
    with_alpha = np.concatenate([deep, alpha * np.uint16(257)], axis=-1)
    for content in (
        png_of_16_bits(deep),
        png_of_16_bits(with_alpha),
        tiff(deep, 16, photometric=2),
        tiff(deep.astype(">u2"), 16, photometric=2),
    ):
        assert torch.equal(pixels_of(content), expected)
    grey_alpha = np.stack([GREY * np.uint16(257), np.full_like(GREY, 255) * np.uint16(257)], -1)
    assert torch.equal(pixels_of(png_of_16_bits(grey_alpha)), as_grey())


def test_16_bit_planes_that_pillow_misreads_are_refused() -> None:
    colours = blocks(5, 3, side=4)
    assert torch.equal(
        pixels_of(tiff(colours, 8, photometric=2, planes=True)), pixels_of(Image.fromarray(colours))
    )
    for order in ("<u2", ">u2"):
        content = tiff((colours * np.uint16(257)).astype(order), 16, photometric=2, planes=True)
        assert refusal(content) == (
            "picture 0: is a TIFF of separate planes with 16 bits, which Pillow misreads. Save it "
            "with interleaved channels or 8 bits per channel."
        )


@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_a_picture_may_be_turned_and_deep(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](GREY * np.uint16(257)))
    for kind in ("PNG", "TIFF"):
        assert torch.equal(pixels_of(saved(stored, kind, exif=exif)), as_grey()), kind


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 4000]], np.int32), "mode 'I' with values from 0 to 4000; expected 0"),
        (np.array([[-1, 5]], np.int32), "mode 'I' with values from -1 to 5"),
        (
            np.array([[0, 256]], np.float32),
            "mode 'F' with values from 0 to 256; expected 0 to 1 or",
        ),
        (np.array([[-0.1, 0.5]], np.float32), "mode 'F' with values from -0.1 to 0.5"),
        (np.array([[np.nan, 0.5]], np.float32), "mode 'F' with values from nan to nan"),
        (np.array([[np.inf, 0.5]], np.float32), "mode 'F' with values from 0.5 to inf"),
    ],
)
def test_values_of_unknown_range_are_refused(values: Array, message: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "deep.tif")
    said = refusal(tmp_path / "deep.tif")
    assert said.startswith(f"{tmp_path / 'deep.tif'}: has {message}")
    assert "save it with 8 bits per channel." in said


# Other modes


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_a_turned_picture_of_any_mode_gives_the_pixels_of_the_upright_one(mode: str) -> None:
    colours = Image.fromarray(blocks(5, 3, side=4))
    upright = colours.quantize(9) if mode == "P" else colours.convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    kind = "TIFF" if mode == "CMYK" else "PNG"
    content = saved(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=exif)
    assert Image.open(io.BytesIO(content)).mode == mode
    assert torch.equal(pixels_of(content), hfclip.image_transform(SIDE)(upright))


def test_alpha_is_dropped_as_in_openais_release() -> None:
    colours = blocks(5, 3, side=4)
    transparent = np.concatenate([colours, np.zeros((12, 20, 1), np.uint8)], axis=-1)
    theirs = hfclip.image_transform(SIDE)(Image.fromarray(transparent))
    for kind in ("PNG", "TIFF"):
        assert torch.equal(pixels_of(saved(transparent, kind)), theirs), kind


def test_a_cmyk_jpeg_has_its_visible_colours() -> None:
    # Cyan, magenta, yellow, black: one half has no ink, the other is red (magenta and yellow).
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, 8:] = 0, 255, 255, 0
    content = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in content
    pixels = load_batch([content], hfclip.image_transform(16, (0, 0, 0), (1, 1, 1))).pixels[0]
    assert pixels[:, 8, 2].tolist() == pytest.approx([1, 1, 1], abs=0.02)
    assert pixels[:, 8, 13].tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_palette_and_1_bit_pictures_get_the_pixels_of_the_transform() -> None:
    image = Image.fromarray(blocks(5, 3, side=4)).quantize(7)
    for picture in (image, Image.fromarray(GREY).convert("1")):
        theirs = hfclip.image_transform(SIDE)(picture)
        assert torch.equal(pixels_of(saved(picture, "PNG")), theirs)
    content = saved(image, "PNG", transparency=2)
    assert Image.open(io.BytesIO(content)).info["transparency"] == 2
    assert torch.equal(pixels_of(content), hfclip.image_transform(SIDE)(image))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 2, kind
        assert torch.equal(pixels_of(content), pixels_of(saved(frames[0], kind, **options))), kind


def test_lab_pictures_are_converted_to_their_colours() -> None:
    colours = Image.fromarray(blocks(5, 3))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(colours, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert lab is not None
    content = saved(lab, "TIFF")
    assert Image.open(io.BytesIO(content)).mode == "LAB"
    assert (pixels_of(content) - pixels_of(colours)).abs().mean() < 0.1
