"""The limits of a page, and the checks of what a visitor types and sends."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from hfclip.errors import ImageError, LabelError
from hfclip.images.reading import open_picture
from hfclip.zeroshot.labels import check_labels, check_templates

# Characters of a visitor's text that an error repeats.
_SHOWN = 60


@dataclass(frozen=True)
class Limits:
    """What a page accepts. Everything beyond is refused with the limit in words.

    Attributes:
        upload_bytes: The largest file.
        total_bytes: The largest request with files.
        request_bytes: The largest request that is not a file, such as the texts of a form.
        pixels: The largest number of pixels of a picture.
        pictures: The largest number of pictures in one request.
        lines: The largest number of labels, of templates, or of captions.
        captions: The largest number of labels times templates.
        characters: The largest number of characters of one label, template, caption or query.
        results: The largest number of results of a search, over all its pages.
        rows: The largest collection whose near-duplicates the page finds.
        waiting: The largest number of requests that wait for the model. Later ones are refused.
    """

    upload_bytes: int = 20 * 2**20
    total_bytes: int = 128 * 2**20
    request_bytes: int = 2**20
    pixels: int = 50_000_000
    pictures: int = 32
    lines: int = 1_000
    captions: int = 4_000
    characters: int = 500
    results: int = 960
    rows: int = 30_000
    waiting: int = 200


def read_labels(text: str | None, limits: Limits) -> tuple[str, ...]:
    """Returns the labels of a text, one from each line that is not blank.

    Raises:
        LabelError: There is no label, one is repeated or too long, or there are too many.
    """
    return check_labels(_lines(text, "label", limits))


def read_templates(text: str | None, labels: int, limits: Limits) -> tuple[str, ...]:
    """Returns the templates of a text, one from each line that is not blank.

    Args:
        text: The text.
        labels: The number of labels that they are filled with.
        limits: The limits of the page.

    Raises:
        LabelError: There is no template, one has no {} or is too long, or there are too many.
    """
    templates = _lines(text, "template", limits)
    check_templates(templates)
    if labels * len(templates) > limits.captions:
        raise LabelError(
            f"{labels:,} labels with {len(templates):,} templates are "
            f"{labels * len(templates):,} captions; this page encodes at most "
            f"{limits.captions:,} at once. Give fewer labels or templates."
        )
    return templates


def read_captions(text: str | None, limits: Limits) -> tuple[str, ...]:
    """Returns the captions of a text, one from each line that is not blank.

    Raises:
        LabelError: There is no caption, one is too long, or there are too many.
    """
    return _lines(text, "caption", limits)


def read_query(text: str | None, limits: Limits) -> str | None:
    """Returns the words of a search without surrounding space, or None if there are none.

    Raises:
        LabelError: The text is too long.
    """
    words = (text or "").strip()
    _check_length(words, "query", limits)
    return words or None


def check_count(count: int, limits: Limits) -> None:
    """Checks the number of pictures of a request.

    Raises:
        ImageError: There is no picture, or there are too many.
    """
    if not count:
        raise ImageError("There is no picture. Choose one first.")
    if count > limits.pictures:
        raise ImageError(
            f"{count:,} pictures are too many at once; this page takes {limits.pictures}. Use "
            "`hfclip classify` for many."
        )


def check_picture(
    path: str, name: str, limits: Limits, resized: Callable[[tuple[int, int]], tuple[int, int]]
) -> None:
    """Checks the size of a picture before it is decoded.

    Args:
        path: The file.
        name: The name of the picture in errors.
        limits: The limits of the page.
        resized: Returns the size to which the preprocess resizes a picture of a size.

    Raises:
        ImageError: The file is no picture, it has too many pixels, or it is too narrow.
    """
    most = f"this page takes {limits.pixels / 1e6:,.0f} million"

    def check(image: Image.Image) -> None:
        found = f"{name}: {image.width:,} x {image.height:,} pixels are too"
        if image.width * image.height > limits.pixels:
            raise ImageError(f"{found} many; {most}. Scale the picture down.")
        width, height = resized(image.size)
        if width * height > limits.pixels:
            raise ImageError(
                f"{found} narrow: resized for the model they are {width:,} x {height:,}; {most}."
            )

    with open_picture(path, auto_orient=False, name=name, on_open=check):
        pass


def _lines(given: str | None, kind: str, limits: Limits) -> tuple[str, ...]:
    text = given or ""
    if len(text) > limits.lines * (limits.characters + 1):
        raise LabelError(
            f"The {kind}s have {len(text):,} characters; this page takes {limits.lines:,} lines of "
            f"{limits.characters:,}."
        )
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise LabelError(f"There is no {kind}. Write one {kind} a line.")
    if len(lines) > limits.lines:
        raise LabelError(f"{len(lines):,} {kind}s are too many; this page takes {limits.lines:,}.")
    for line in lines:
        _check_length(line, kind, limits)
    return lines


def _check_length(text: str, kind: str, limits: Limits) -> None:
    if len(text) > limits.characters:
        raise LabelError(
            f"A {kind} has {len(text):,} characters ({text[:_SHOWN]}...); this page takes "
            f"{limits.characters:,}. Shorten it."
        )
