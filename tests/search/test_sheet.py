"""Contact sheets: where pictures are, and what stands for one that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfclip.data.references import FileImage
from hfclip.embedding.items import Item
from hfclip.errors import DataError
from hfclip.search.sheet import Entry, draw_sheet

COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200))
SIDE, STEP, ROW = 224, 224 + 12, 224 + 36 + 12


def entry(folder: Path, name: str, image: Image.Image, **facts: str) -> Entry:
    path = folder / name
    image.save(path)
    return Entry(Item(name, FileImage(str(path)), None), name, "0.5", **facts)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    return [
        entry(tmp_path, f"{n}.png", Image.new("RGB", (448, 224), colour))
        for n, colour in enumerate(COLOURS)
    ]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_pictures_are_in_rows_in_the_order_of_the_entries(
    entries: list[Entry], tmp_path: Path
) -> None:
    path = tmp_path / "sheet.png"
    assert draw_sheet(entries, path) == []
    sheet = pixels(path)
    assert sheet.shape == (12 + 2 * ROW, 12 + 3 * STEP, 3)
    for number, colour in enumerate(COLOURS):
        x, y = 12 + number % 3 * STEP, 12 + number // 3 * ROW
        cell = sheet[y : y + SIDE, x : x + SIDE]
        # A thumbnail of 224 x 112 in the middle of the cell.
        assert (cell[SIDE // 4 + 1 : 3 * SIDE // 4 - 1] == colour).all()
        assert (cell[: SIDE // 4 - 1] == 255).all()
        text = sheet[y + SIDE : y + SIDE + 36, x : x + SIDE]
        assert text.min() < 100
    assert (sheet[12 + ROW :, 12 + 2 * STEP :] == 255).all()


def test_names_and_notes_change_what_is_written(entries: list[Entry], tmp_path: Path) -> None:
    item = entries[0].item
    sheets = []
    for name, note in (("a", "0.1"), ("b", "0.1"), ("a", "0.2"), ("a", "0.1")):
        draw_sheet([Entry(item, name, note)], tmp_path / "sheet.png")
        sheets.append(pixels(tmp_path / "sheet.png"))
    assert not np.array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[0], sheets[2])
    assert np.array_equal(sheets[0], sheets[3])


def test_a_long_name_stays_below_its_picture(entries: list[Entry], tmp_path: Path) -> None:
    item = entries[0].item
    long = Entry(item, "photos/" + "holiday " * 40 + ".jpg", "\N{CAT FACE}\udc80\n")
    draw_sheet([long, Entry(item, "")], tmp_path / "sheet.png")
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet[12 + SIDE : 12 + SIDE + 18, 12 : 12 + SIDE].min() < 100
    assert (sheet[12 + SIDE :, 12 + SIDE : 12 + STEP] == 255).all()


def test_a_heading_begins_a_new_row(entries: list[Entry], tmp_path: Path) -> None:
    headed = [
        Entry(one.item, one.name, "", f"group {n}" if n in (0, 1) else None)
        for n, one in enumerate(entries[:3])
    ]
    draw_sheet(headed, tmp_path / "sheet.png")
    sheet = pixels(tmp_path / "sheet.png")
    second = 12 + 18 + ROW + 18 + 12
    middle = SIDE // 2
    assert tuple(sheet[12 + 18 + middle, 12 + middle]) == COLOURS[0]
    assert tuple(sheet[second + middle, 12 + middle]) == COLOURS[1]
    assert tuple(sheet[second + middle, 12 + STEP + middle]) == COLOURS[2]
    assert sheet[second - 18 : second, 12 : 12 + SIDE].min() < 100


def test_a_picture_that_cannot_be_read_has_a_grey_field_and_a_reason(
    entries: list[Entry], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    items = [
        Item("gone.png", FileImage(str(tmp_path / "gone.png")), None),
        Item("broken.jpg", FileImage(str(broken)), None),
        Item("c", None, None, error="it is no longer in the collection"),
        Item("d", None, "a text"),
    ]
    failed = draw_sheet(
        [*(Entry(item, item.key) for item in items), entries[0]], tmp_path / "sheet.png"
    )
    assert [key for key, _ in failed] == ["gone.png", "broken.jpg", "c", "d"]
    reasons = dict(failed)
    assert "No such file" in reasons["gone.png"]
    assert reasons["broken.jpg"].startswith("not a picture")
    sheet = pixels(tmp_path / "sheet.png")
    assert tuple(sheet[12 + 2, 12 + 2]) == (236, 236, 236)
    assert tuple(sheet[12 + ROW + SIDE // 2, 12 + STEP + SIDE // 2]) == COLOURS[0]


def test_pictures_beyond_the_limit_are_not_decoded(tmp_path: Path) -> None:
    large = entry(tmp_path, "large.png", Image.new("L", (100, 100)))
    assert draw_sheet([large], tmp_path / "sheet.png", max_pixels=9_999) == [
        ("large.png", "more than 9,999 pixels.")
    ]
    assert draw_sheet([large], tmp_path / "sheet.png", max_pixels=10_000) == []


def test_transparent_pixels_are_white_and_photographs_upright(tmp_path: Path) -> None:
    clear = entry(tmp_path, "clear.png", Image.new("RGBA", (224, 224), (0, 0, 0, 0)))
    image = Image.new("RGB", (448, 224), "white")
    image.paste((250, 0, 0), (0, 0, 224, 224))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the left side is up
    image.save(tmp_path / "turned.png", exif=exif)
    turned = Entry(Item("turned.png", FileImage(str(tmp_path / "turned.png")), None), "")
    draw_sheet([clear, turned], tmp_path / "sheet.png")
    sheet = pixels(tmp_path / "sheet.png")
    assert (sheet[12 : 12 + SIDE, 12 : 12 + SIDE] == 255).all()
    cell = sheet[12 : 12 + SIDE, 12 + STEP : 12 + STEP + SIDE]
    assert tuple(cell[50, 112]) == (250, 0, 0)
    assert tuple(cell[170, 112]) == (255, 255, 255)
    draw_sheet([clear, turned], tmp_path / "sheet.png", auto_orient=False)
    cell = pixels(tmp_path / "sheet.png")[12 : 12 + SIDE, 12 + STEP : 12 + STEP + SIDE]
    assert tuple(cell[112, 50]) == (250, 0, 0)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp", "PNG"])
def test_the_ending_decides_the_kind_of_file(
    ending: str, entries: list[Entry], tmp_path: Path
) -> None:
    path = tmp_path / f"sheet.{ending}"
    draw_sheet(entries, path)
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "PNG": "PNG"}
    with Image.open(path) as image:
        assert image.format == kinds[ending]


def test_a_sheet_that_cannot_be_written_is_refused(entries: list[Entry], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.png"):
        draw_sheet(entries, tmp_path / "sheet.pdf")
    with pytest.raises(DataError, match="does not exist"):
        draw_sheet(entries, tmp_path / "no/sheet.png")
    with pytest.raises(DataError, match="1 to 1,000 pictures, not 0"):
        draw_sheet([], tmp_path / "sheet.png")
    before = sorted(tmp_path.iterdir())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        draw_sheet(entries, tmp_path / "folder.png")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "folder.png"])
