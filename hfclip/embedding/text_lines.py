"""Lists text files: one path of a picture, or one text, a line."""

from collections.abc import Iterator

from hfclip.data.delimited import open_text
from hfclip.data.parquet_files import DamagedFileError
from hfclip.embedding.items import Item
from hfclip.embedding.locations import Location
from hfclip.embedding.named import NamedPictures, text_item


def path_lines(file: Location) -> Iterator[Item]:
    """Yields the pictures that a text file names. Blank lines are left out.

    Raises:
        DamagedFileError: The file cannot be decoded from here on.
        OSError: The file cannot be read.
    """
    pictures = NamedPictures(file)
    for number, line in _lines(file):
        if line is None:
            yield _undecodable(file, number)
        elif line.strip():
            yield pictures.item(line)


def text_lines(file: Location) -> Iterator[Item]:
    """Yields the text of each line.

    Raises:
        DamagedFileError: The file cannot be decoded from here on.
        OSError: The file cannot be read.
    """
    mtime = file.info().mtime_ns
    for number, line in _lines(file):
        if line is None:
            yield _undecodable(file, number)
        else:
            yield text_item(f"{file.key}:{number}", line, mtime)


def _undecodable(file: Location, number: int) -> Item:
    return Item(f"{file.key}:{number}", None, None, error="the line is not UTF-8")


def _lines(file: Location) -> Iterator[tuple[int, str | None]]:
    """Yields the number and the text of each line, or None for a line that is not UTF-8."""
    with file.open() as content, open_text(content) as text:
        if text.encoding == "utf-16":
            try:
                yield from enumerate(text, 1)
            except UnicodeError as error:
                raise DamagedFileError(f"{file.key} is not UTF-16 ({error}).") from None
            return
        for number, line in enumerate(content, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                yield number, None
