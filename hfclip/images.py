"""Finds, opens and prepares pictures: files, folders, globs, standard input and bytes."""

import glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, UnidentifiedImageError

from hfclip.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_INPUT = "-"


class ImageBatch(NamedTuple):
    """Pictures that were read together.

    Attributes:
        pixels: float32 (M, 3, S, S): those that could be read, in the order given.
        errors: Why the others could not, by their place in what was given.
    """

    pixels: "Tensor"
    errors: dict[int, ImageError]


def find_images(arguments: Iterable[str]) -> Iterator[str]:
    """Expands what a person types into the names of single images.

    A folder stands for the pictures in it and below it, in order of name; a pattern such as
    `*.jpg` (or `**/*.jpg`) for what it matches; `-` for standard input; anything else for itself.
    What is found to be missing is left for `load_batch` to report.
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


def load_batch(
    pictures: "Iterable[str | Path | bytes]",
    preprocess: "Callable[[Image.Image], Tensor]",
    workers: int | None = None,
) -> ImageBatch:
    """Opens, decodes and prepares pictures on all cores, which Pillow and torch leave free.

    Args:
        pictures: Paths, "-" for standard input, or the bytes of files.
        preprocess: What `load` or `image_transform` gave. It gets each picture as it was opened,
            not decoded yet, and runs in several threads at once.
        workers: How many threads; by default one for each core that this process may use.

    Returns:
        The prepared pictures and the errors of those that are none: one does not stop the others.
        `pixels` is of shape (0,) if none could be read.
    """
    import torch  # noqa: PLC0415  # to find pictures needs no torch

    def prepare(numbered: "tuple[int, str | Path | bytes]") -> "Tensor | ImageError":
        number, picture = numbered
        try:
            with _reported(f"picture {number}" if isinstance(picture, bytes) else str(picture)):
                content = io.BytesIO(picture) if isinstance(picture, bytes) else _content(picture)
                with Image.open(content) as image:
                    return preprocess(image)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers or _cores()) as pool:
        outcomes = list(pool.map(prepare, enumerate(pictures)))
    prepared = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    errors = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)}
    return ImageBatch(torch.stack(prepared) if prepared else torch.empty(0), errors)


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turns what Pillow raises for a picture into an error that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file, and nothing matches it as a pattern.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a picture of any kind that Pillow can read.") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds for damaged data
        raise ImageError(f"{name}: cannot be decoded ({error}); it may be truncated.") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _content(name: str | Path) -> Path | io.BytesIO:
    return io.BytesIO(sys.stdin.buffer.read()) if name == STANDARD_INPUT else Path(name)


def _pictures_in(folder: Path) -> list[str]:
    endings = Image.registered_extensions()
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings)
    return sorted(str(path) for path in found if path.is_file())
