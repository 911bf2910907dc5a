"""Draws contact sheets: thumbnails with names and notes on one picture."""

import math
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hfclip.embedding.decoding import MAX_PIXELS, pixel_limit
from hfclip.embedding.items import Item
from hfclip.errors import DataError
from hfclip.images.reading import core_count
from hfclip.search.thumbnails import read_thumbnail

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of the files that can be written."""
MOST = 1_000
"""Largest number of pictures on a sheet."""

# Pixels: the longer side of a thumbnail, the space around it, a line of text, its letters.
_SIDE, _MARGIN, _LINE, _TEXT = 224, 12, 18, 13
_MOST_COLUMNS = 8
_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (20, 20, 20), (110, 110, 110), (236, 236, 236)
# Pictures that are read ahead.
_BATCH = 64
_FONTS = ("DejaVuSans.ttf", "Arial.ttf", "Helvetica.ttc")


@dataclass(frozen=True)
class Entry:
    """A picture of a sheet.

    Attributes:
        item: The input, which reads the picture.
        name: The first line below the picture. A long one is shortened in the middle.
        note: The second line, such as a score.
        heading: A line above the picture, which begins a new row; None continues the row.
    """

    item: Item
    name: str
    note: str = ""
    heading: str | None = None


def check_sheet(path: Path) -> None:
    """Checks where a sheet is to be written, before the work begins.

    Raises:
        DataError: The ending is of another kind of file, or the folder does not exist.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"The sheet is {path}; expected a name that ends in {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise DataError(f"The folder of the sheet, {path.parent}, does not exist.")


def draw_sheet(
    entries: Sequence[Entry], path: Path, *, auto_orient: bool = True, max_pixels: int = MAX_PIXELS
) -> list[tuple[str, str]]:
    """Draws pictures in rows, reads them again in threads, and writes the sheet whole.

    A picture that cannot be read has a grey field with the reason.

    Args:
        entries: The pictures, in order.
        path: The file to write: PNG, JPEG or WebP by its ending.
        auto_orient: Whether to apply the EXIF orientation.
        max_pixels: The largest number of pixels of a picture that is decoded.

    Returns:
        The key and the reason of each picture that could not be read.

    Raises:
        DataError: There are no or too many entries, or the file cannot be written.
    """
    check_sheet(path)
    if not 1 <= len(entries) <= MOST:
        raise DataError(f"A sheet shows 1 to {MOST:,} pictures, not {len(entries):,}.")
    places, size = _arranged(entries)
    sheet = Image.new("RGB", size, _PAPER)
    pen = _Pen(sheet)
    failed = []
    with pixel_limit(max_pixels):
        for entry, place, found in zip(
            entries, places, _thumbnails(entries, auto_orient, max_pixels), strict=True
        ):
            if isinstance(found, str):
                failed.append((entry.item.key, found))
            pen.draw(entry, found, place)
    _save(sheet, path)
    return failed


def _arranged(entries: Sequence[Entry]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Returns the upper left corner of each picture, and the size of the sheet."""
    columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(entries)) * 1.2))
    width, height = _SIDE + _MARGIN, _SIDE + 2 * _LINE + _MARGIN
    places = []
    column, y = 0, _MARGIN
    for number, entry in enumerate(entries):
        if column == columns or (entry.heading is not None and column):
            column, y = 0, y + height
        if entry.heading is not None:
            y += _LINE + (_MARGIN if number else 0)
        places.append((_MARGIN + column * width, y))
        column += 1
    return places, (_MARGIN + columns * width, y + height)


def _thumbnails(
    entries: Sequence[Entry], auto_orient: bool, max_pixels: int
) -> Iterator[Image.Image | str]:
    """Yields the thumbnail of each entry, or the reason why there is none."""

    def read(entry: Entry) -> Image.Image | str:
        return read_thumbnail(
            entry.item, _SIDE, _PAPER, auto_orient=auto_orient, max_pixels=max_pixels
        )

    remaining = iter(entries)
    with ThreadPoolExecutor(core_count()) as pool:
        while batch := list(islice(remaining, _BATCH)):
            yield from pool.map(read, batch)


class _Pen:
    """Draws entries on a sheet."""

    def __init__(self, sheet: Image.Image) -> None:
        self._sheet = sheet
        self._draw = ImageDraw.Draw(sheet)
        self._font = _font()

    def draw(self, entry: Entry, found: Image.Image | str, place: tuple[int, int]) -> None:
        x, y = place
        if entry.heading is not None:
            self._line((_MARGIN, y - _LINE), entry.heading, _INK, self._sheet.width - 2 * _MARGIN)
        if isinstance(found, str):
            self._draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), fill=_EMPTY)
            lines = self._wrapped(found, _SIDE - 2 * _MARGIN)[: _SIDE // _LINE - 1]
            for number, line in enumerate(lines):
                self._line(
                    (x + _MARGIN, y + _MARGIN + number * _LINE), line, _FAINT, _SIDE - 2 * _MARGIN
                )
        else:
            corner = (x + (_SIDE - found.width) // 2, y + (_SIDE - found.height) // 2)
            self._sheet.paste(found, corner)
        self._line((x, y + _SIDE + 2), entry.name, _INK, _SIDE)
        self._line((x, y + _SIDE + 2 + _LINE), entry.note, _FAINT, _SIDE)

    def _line(
        self, place: tuple[int, int], text: str, colour: tuple[int, int, int], width: int
    ) -> None:
        self._draw.text(place, self._fitted(_printable(text), width), fill=colour, font=self._font)

    def _fitted(self, text: str, width: int) -> str:
        """Returns a text that is at most `width` pixels wide; a long one lacks its middle."""
        if self._font.getlength(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:  # the largest number of characters that fit
            middle = (low + high + 1) // 2
            if self._font.getlength(_shortened(text, middle)) <= width:
                low = middle
            else:
                high = middle - 1
        return _shortened(text, low)

    def _wrapped(self, text: str, width: int) -> list[str]:
        lines: list[str] = []
        for word in _printable(text).split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self._font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines


def _shortened(text: str, count: int) -> str:
    """Keeps the first third and the last two thirds of `count` characters."""
    begin = count // 3
    return f"{text[:begin]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (count - begin) :]}"


def _printable(text: str) -> str:
    """Replaces line ends, and bytes of a file name that are not UTF-8."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns a font of the system with many letters, or Pillow's own."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, _TEXT)
        except OSError:
            continue
    return ImageFont.load_default()


def _save(sheet: Image.Image, path: Path) -> None:
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.part")
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
        sheet.save(part, kind)
        part.replace(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be written ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
