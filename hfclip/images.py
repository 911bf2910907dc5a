"""Finds and opens pictures: files, folders, globs and standard input."""

import glob
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from hfclip.errors import ImageError

STANDARD_INPUT = "-"


def find_images(arguments: Iterable[str]) -> Iterator[str]:
    """Expands what a person types into the names of single images.

    A folder stands for the pictures in it and below it, in order of name; a pattern such as
    `*.jpg` (or `**/*.jpg`) for what it matches; `-` for standard input; anything else for itself.
    What is found to be missing is left for `open_image` to report.
    """
    for argument in arguments:
        path = Path(argument)
        if argument == STANDARD_INPUT or path.is_file():
            yield argument
        elif path.is_dir():
            yield from _pictures_in(path)
        elif glob.has_magic(argument):
            # Path.glob refuses absolute patterns, which people type.
            yield from sorted(glob.glob(argument, recursive=True)) or [argument]  # noqa: PTH207
        else:
            yield argument


def open_image(name: str) -> Image.Image:
    """Opens and decodes one picture.

    Raises:
        ImageError: It does not exist, is no picture, is damaged or is absurdly large.
    """
    try:
        image = Image.open(_content(name))
        image.load()
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file, and nothing matches it as a pattern.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a picture of any kind that Pillow can read.") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds for damaged data
        raise ImageError(f"{name}: cannot be decoded ({error}); it may be truncated.") from error
    return image


def _content(name: str) -> Path | io.BytesIO:
    return io.BytesIO(sys.stdin.buffer.read()) if name == STANDARD_INPUT else Path(name)


def _pictures_in(folder: Path) -> list[str]:
    endings = Image.registered_extensions()
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings)
    return sorted(str(path) for path in found if path.is_file())
