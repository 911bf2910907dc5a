"""A folder with every kind of file: the table in docs/pages/embed.md, row by row."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pictures import drawn, embed, rows_of, saved
from PIL import Image
from torch.nn.functional import normalize

import hfclip
from hfclip.data.references import FileImage
from hfclip.embedding.encode import Encoder
from hfclip.embedding.options import Options
from hfclip.embedding.plan import Plan, PlannedPart
from hfclip.embedding.run import embed_collection
from hfclip.images.fast import FastTransform

COLOURED = drawn(1, (64, 48), "RGB")
LIMIT = 1_000_000


def oriented(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image, "PNG", exif=exif)


def transparent_palette() -> bytes:
    return saved(COLOURED.quantize(16), "PNG", transparency=3)


def levels_of_16_bits() -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) % 256 * 257


def frames(kind: str) -> bytes:
    return saved(COLOURED, kind, save_all=True, append_images=[drawn(2, (64, 48), "RGB")])


def content_of(name: str) -> bytes:
    return GOOD[name][0]() if name in GOOD else BAD[name][0]()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


# Each good file, and the picture that the preprocess should receive; None for the file as opened.
GOOD: dict[str, tuple[Callable[[], bytes], Callable[[], Image.Image] | None]] = {
    "plain.jpg": (lambda: saved(COLOURED, "JPEG"), None),
    "progressive.jpg": (lambda: saved(COLOURED, "JPEG", progressive=True), None),
    "large.jpg": (lambda: saved(COLOURED.resize((1000, 752)), "JPEG"), None),
    "plain.png": (lambda: saved(COLOURED, "PNG"), None),
    "plain.bmp": (lambda: saved(COLOURED, "BMP"), None),
    "grey.jpg": (lambda: saved(COLOURED.convert("L"), "JPEG"), None),
    "two-levels.png": (lambda: saved(COLOURED.convert("1"), "PNG"), None),
    "cmyk.jpg": (lambda: saved(COLOURED.convert("CMYK"), "JPEG"), None),
    "palette.png": (lambda: saved(COLOURED.quantize(16), "PNG"), None),
    "palette-transparent.png": (transparent_palette, None),
    "alpha.png": (lambda: saved(drawn(3, (64, 48), "RGBA"), "PNG"), None),
    "grey-alpha.png": (lambda: saved(drawn(3, (64, 48), "RGBA").convert("LA"), "PNG"), None),
    "wrong-ending.png": (lambda: saved(COLOURED, "JPEG"), None),
    "animated.gif": (lambda: frames("GIF"), None),
    "animated.webp": (lambda: frames("WEBP"), None),
    "pages.tif": (lambda: frames("TIFF"), None),
    "oriented.png": (
        lambda: oriented(COLOURED),
        lambda: COLOURED.transpose(Image.Transpose.ROTATE_270),
    ),
    "16-bits.png": (
        lambda: saved(Image.fromarray(levels_of_16_bits()), "PNG"),
        lambda: Image.fromarray((levels_of_16_bits() // 257).astype(np.uint8)),
    ),
    "float.tif": (
        lambda: saved(Image.fromarray((levels_of_16_bits() / 65535).astype(np.float32)), "TIFF"),
        lambda: Image.fromarray((levels_of_16_bits() // 257).astype(np.uint8)),
    ),
    "lab.tif": (lambda: saved(lab(), "TIFF"), None),
    "folder.jpg/inside.png": (lambda: saved(COLOURED, "PNG"), None),
}
JPEG = saved(COLOURED, "JPEG")
# Each file that cannot be embedded, and the beginning or a part of the reason.
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated.jpg": (lambda: JPEG[: len(JPEG) // 2], "cannot be decoded (image file is truncated"),
    "damaged.png": (lambda: saved(COLOURED, "PNG")[:60] + b"x" * 500, "cannot be decoded ("),
    "empty.jpg": (lambda: b"", "the file is empty."),
    "text.jpg": (lambda: b"not a picture", "not a picture that Pillow can read."),
    "over-the-limit.png": (
        lambda: saved(Image.new("L", (1001, 1000)), "PNG"),
        "1,001 x 1,000 pixels are 1,001,000; the limit is 1,000,000 pixels. Scale it down, or",
    ),
    "bomb.png": (
        lambda: saved(Image.new("L", (2000, 2000)), "PNG"),
        "the limit is 1,000,000 pixels. Scale it down, or increase --max-pixels.",
    ),
    "narrow.png": (lambda: saved(Image.new("L", (1, 50_000)), "PNG"), "pixels are too narrow: "),
    "unknown-range.tif": (
        lambda: saved(Image.fromarray(np.full((9, 9), 7e4, np.float32)), "TIFF"),
        "has mode 'F' with values from 70000 to 70000; expected 0 to 1 or 0 to 255.",
    ),
    "camera.dng": (lambda: saved(COLOURED, "TIFF"), "a camera's RAW file, which is not read."),
    "photo.heic": (
        lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "HEIC needs a decoder: pip install 'hfclip[heic]'",
    ),
}


def lab() -> Image.Image:
    return Image.frombytes("LAB", (64, 48), drawn(1, (64, 48), "RGB").tobytes())


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every kind of file, on a machine without the decoder of HEIC."""
    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    for name in [*GOOD, *BAD]:
        path = tmp_path / "mixed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name))
    return tmp_path / "mixed"


@pytest.mark.parametrize("preprocess", ["fast", "exact"])
def test_every_good_picture_is_embedded_and_every_other_has_its_reason(
    mixed: Path, tmp_path: Path, preprocess: Literal["exact", "fast"]
) -> None:
    out = tmp_path / "out"
    arguments = ["--max-pixels", str(LIMIT), "--dtype", "float32", "--preprocess", preprocess]
    result = embed(mixed, out, *arguments)
    assert result.status == 0
    assert (result.summary["embedded"], result.summary["errors"]) == (len(GOOD), len(BAD))
    rows = rows_of(out)
    names = [key.removeprefix(f"{mixed}/") for key in rows.keys]
    assert sorted(names) == sorted([*GOOD, *BAD])
    model, transform = hfclip.load("digits", device="cpu", preprocess=preprocess)
    for row, name in enumerate(names):
        error = rows.errors[row]
        if name in BAD:
            assert error is not None
            assert BAD[name][1] in error, name
            assert not rows.embeddings.valid[row], name
            continue
        content, shown = GOOD[name]
        image = shown() if shown else opened(content())
        with torch.no_grad():
            found = normalize(model.encode_image(transform(image)[None]), dim=-1)[0].numpy()
        np.testing.assert_allclose(rows.embeddings.values[row], found, atol=1e-6, err_msg=name)
        assert error is None
        assert (rows.widths[row], rows.heights[row]) == (shown() if shown else image).size
    table = (out / "errors.csv").read_text().splitlines()
    assert len(table) == 1 + len(BAD)


def test_alpha_and_a_transparent_palette_are_blended_with_a_background(
    mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["--max-pixels", str(LIMIT), "--dtype", "float32", "--background", "#00ff00"]
    embed(mixed, out, *arguments)
    rows = rows_of(out)
    model, transform = hfclip.load("digits", device="cpu", preprocess="fast")
    for name in ("alpha.png", "grey-alpha.png", "palette-transparent.png", "plain.png"):
        image = opened(content_of(name)).convert("RGBA")
        below = Image.new("RGBA", image.size, (0, 255, 0, 255))
        shown = transform(Image.alpha_composite(below, image).convert("RGB"))
        with torch.no_grad():
            wanted = normalize(model.encode_image(shown[None]), dim=-1)[0].numpy()
        row = rows.keys.index(f"{mixed}/{name}")
        np.testing.assert_allclose(rows.embeddings.values[row], wanted, atol=1e-6, err_msg=name)


def test_where_nothing_was_embedded_the_status_is_1(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.jpg").touch()
    result = embed(folder, tmp_path / "out")
    assert (result.status, result.summary["embedded"], result.summary["errors"]) == (1, 0, 1)


def test_files_that_vanish_or_may_not_be_read_are_rows_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        drawn(number).save(folder / f"{number}.png")
    part, read = Plan.part, FileImage.read

    def part_later(plan: Plan, number: int) -> PlannedPart:
        (folder / "1.png").unlink()
        (folder / "3.png").unlink()
        (folder / "3.png").mkdir()
        return part(plan, number)

    def forbidding(image: FileImage) -> bytes:
        if image.path.endswith("2.png"):
            raise PermissionError(13, "Permission denied", image.path)
        return read(image)

    monkeypatch.setattr(Plan, "part", part_later)
    monkeypatch.setattr(FileImage, "read", forbidding)
    result = embed(folder, tmp_path / "out")
    assert result.status == 0
    assert rows_of(tmp_path / "out").errors == [
        None,
        "no such file: it is gone since it was listed.",
        "cannot be read (Permission denied).",
        "this is a folder, not a picture.",
    ]


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (FastTransform, "__call__", TypeError("a defect of the preprocess")),
        (Encoder, "start", RuntimeError("CUDA out of memory")),
        (FileImage, "read", AttributeError("a defect of the reader")),
    ],
)
def test_an_error_that_is_not_the_pictures_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: Exception
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn(0, (64, 48), "RGB").save(folder / "a.png")
    monkeypatch.setattr(owner, name, failing(error))
    with pytest.raises(type(error), match=str(error)):
        embed_collection([str(folder)], tmp_path / "out", Options(model="digits", device="cpu"))
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not (tmp_path / "out" / "errors.csv").exists()
