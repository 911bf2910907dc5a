"""Finds, opens and preprocesses pictures: files, folders, patterns, standard input, bytes.

Each picture is first made upright and converted to 8 bits per channel, as an image viewer shows it.
OpenAI's preprocess does neither. `load_batch` lists the conversions.
"""

import glob
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from PIL import Image, UnidentifiedImageError

from hfclip.errors import ArgumentTypeError, ImageError
from hfclip.images.display import as_displayed
from hfclip.images.formats import BEGINNING, PICTURE_ENDINGS, optional_decoder

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_INPUT = "-"

_T = TypeVar("_T")  # the result of a preprocess

# A path, "-" for standard input, the bytes of a file, or a PIL image.
Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"


class ImageBatch(NamedTuple):
    """A batch of preprocessed pictures.

    Attributes:
        pixels: The M pictures that could be read, in the given order: float32 (M, 3, S, S).
        errors: The error of each other picture, by its index in the given order.
    """

    pixels: "Tensor"
    errors: dict[int, ImageError]


@dataclass
class FoundImages:
    """The result of `find_images`. Iteration yields the names.

    Attributes:
        names: Names of single pictures for `load_batch`, in the given order.
        skipped: Files in the given folders that have another ending or are hidden, such as the
            `._x.jpg` of macOS. Folders that are links or cannot be listed are included.
        empty_folders: Given folders without a picture.
    """

    names: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def find_images(arguments: Iterable[str]) -> FoundImages:
    """Expands files, folders and patterns into the names of single pictures.

    A folder stands for the pictures in it and below it, in order of name; a file counts there if
    it is not hidden and has one of `hfclip.images.formats.PICTURE_ENDINGS`. A pattern such as
    `*.jpg` (or `**/*.jpg`) stands for what it matches. `-` is standard input. Anything else is the
    name of a file, whatever its ending. `load_batch` reports the files that do not exist.
    """
    found = FoundImages()
    for argument in arguments:
        for name in _matches(argument):
            if Path(name).is_dir():
                _search(Path(name), found)
            else:
                found.names.append(name)
    return found


def load_batch(
    pictures: "Iterable[Picture]",
    preprocess: "Callable[[Image.Image], Tensor]",
    workers: int | None = None,
    *,
    auto_orient: bool = True,
) -> ImageBatch:
    """Reads and preprocesses pictures in parallel threads; Pillow and torch release the GIL.

    The preprocess receives each picture as an image viewer shows it:

    ==========================  ==================================================================
    Picture                     Treatment
    ==========================  ==================================================================
    EXIF orientation            Applied (JPEG, PNG, WebP, TIFF, HEIC, AVIF), unless
                                `auto_orient=False`; the decoders of TIFF and HEIC always apply it.
    16-bit grey                 Divided by 257 and rounded. A 12-bit TIFF is scaled by 255 / 4095.
    16-bit colour               Pillow keeps the high byte of each value.
    32-bit integers             Kept if all are from 0 to 255, otherwise an error. A PNG or PGM
                                in this mode has 16 bits and is divided by 257.
    Float                       Multiplied by 255 if all are from 0 to 1, kept if all are from 0 to
                                255, otherwise an error.
    TIFF where white is zero    Inverted. Pillow does it up to 8 bits.
    Alpha, palette, CMYK, ...   As in OpenAI's release: `convert("RGB")` after resizing, which drops
                                the alpha channel. Pillow handles the inverted CMYK of Adobe's
                                JPEGs. Colour profiles are not applied.
    Animation, several pages    Only the first frame is read.
    HEIC                        Read if `hfclip[heic]` is installed, otherwise an error.
    ==========================  ==================================================================

    Args:
        pictures: Paths, "-" for standard input, the bytes of files, or PIL images.
        preprocess: The transform that `load` or `image_transform` returned. Several threads call
            it at once. It receives a JPEG that needs no rotation before it is decoded.
        workers: The number of threads. Default: one for each core that this process may use.
        auto_orient: Whether to apply the EXIF orientation. OpenAI's release does not.

    Returns:
        The preprocessed pictures, and the errors of pictures that cannot be read. `pixels` has
        shape (0,) if no picture can be read.

    Raises:
        ArgumentTypeError: A picture is not a path, bytes or a PIL image.
    """
    import torch  # noqa: PLC0415  # find_images needs no torch

    from hfclip.images.fast import FastTransform  # noqa: PLC0415

    # Not isinstance: it would make the exact transform import torchvision.
    least_side = preprocess.least_side if type(preprocess) is FastTransform else None
    prepared, errors = prepare_each(
        pictures, preprocess, workers, auto_orient=auto_orient, least_side=least_side
    )
    nothing = torch.empty(0, dtype=torch.float32, device="cpu")
    return ImageBatch(torch.stack(prepared) if prepared else nothing, errors)


def prepare_each(
    pictures: "Iterable[Picture]",
    preprocess: Callable[[Image.Image], _T],
    workers: int | None = None,
    *,
    auto_orient: bool = True,
    least_side: int | None = None,
) -> tuple[list[_T], dict[int, ImageError]]:
    """Reads and preprocesses pictures as `load_batch` does. Imports no torch.

    Args:
        pictures: Paths, "-" for standard input, the bytes of files, or PIL images.
        preprocess: The transform of a PIL image. Several threads call it at once.
        workers: The number of threads. Default: one for each core that this process may use.
        auto_orient: Whether to apply the EXIF orientation.
        least_side: A JPEG that needs a rotation may be decoded at a part of its size if its shorter
            side keeps this many pixels. None decodes it at full size.

    Returns:
        The results of the pictures that can be read, in the given order, and the errors of the
        others by their index.

    Raises:
        ArgumentTypeError: A picture is not a path, bytes or a PIL image.
    """

    def prepare(numbered: "tuple[int, Picture]") -> _T | ImageError:
        number, picture = numbered
        name = _name(picture, f"picture {number}")
        try:
            with open_picture(
                picture, auto_orient=auto_orient, least_side=least_side, name=name
            ) as image:
                return _preprocessed(image, preprocess, name)
        except ImageError as error:
            return error

    pictures = list(pictures)
    _decode_repeated(pictures)
    with ThreadPoolExecutor(workers or core_count()) as pool:
        outcomes = list(pool.map(prepare, enumerate(pictures)))
    prepared = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    errors = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)}
    return prepared, errors


def _decode_repeated(pictures: "Sequence[Picture]") -> None:
    """Decodes repeated PIL images, because two threads must not decode the same image at once.

    `prepare` reports an image that cannot be decoded.
    """
    images = {id(picture): picture for picture in pictures if isinstance(picture, Image.Image)}
    counts = Counter(map(id, pictures))
    for key, image in images.items():
        if counts[key] > 1:
            with suppress(Exception):  # decoders raise many exceptions for damaged data
                image.load()


@contextmanager
def open_picture(
    picture: "Picture",
    *,
    auto_orient: bool = True,
    least_side: int | None = None,
    name: str | None = None,
    on_open: Callable[[Image.Image], None] | None = None,
) -> Iterator[Image.Image]:
    """Opens one picture as `load_batch` does, for a `with` statement.

    The image is upright and has 8 bits per channel, as listed in `load_batch`. A JPEG that needs no
    rotation is not decoded yet. The `with` statement closes the file. A given PIL image stays open
    and unchanged.

    Example:
        >>> with open_picture("cat.jpg") as image:
        ...     pixels = preprocess(image)

    Args:
        picture: A path, "-" for standard input, the bytes of a file, or a PIL image.
        auto_orient: Whether to apply the EXIF orientation.
        least_side: A JPEG file that needs a rotation may be decoded at 1/2, 1/4 or 1/8 of its
            size if its shorter side keeps this many pixels. None decodes it at full size.
        name: The name of the picture in errors. Default: its path.
        on_open: Called with the image before it is decoded, as stored. It may raise ImageError.

    Raises:
        ImageError: The picture does not exist or cannot be decoded, here or in the body of the
            `with` statement.
        ArgumentTypeError: `picture` is not a path, bytes or a PIL image.
    """
    name = name or _name(picture, "picture")
    if isinstance(picture, Image.Image):
        least_side = None  # scaling would change the image that was given
    with _opened(picture, name) as image:
        if on_open:
            on_open(image)
        with _as_image_error(name, Exception):  # decoders raise many exceptions for damaged data
            shown = as_displayed(image, auto_orient=auto_orient, least_side=least_side)
        with _as_image_error(name, OSError):
            yield shown


def _preprocessed(image: Image.Image, preprocess: Callable[[Image.Image], _T], name: str) -> _T:
    try:
        return preprocess(image)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(
            f"{name}: the preprocess fails for a picture of mode {image.mode!r} and size "
            f"{image.size} ({type(error).__name__}: {error})."
        ) from error


@contextmanager
def _opened(picture: "Picture", name: str) -> Iterator[Image.Image]:
    """Opens a picture and closes it afterwards. Leaves a given PIL image open."""
    if isinstance(picture, Image.Image):
        yield picture
        return
    with _as_image_error(name, Exception):
        image = _identified(_content(picture))
    with image:
        yield image


def _identified(content: Path | io.BytesIO) -> Image.Image:
    """Opens a file by its content. Registers an optional decoder if the file needs one."""
    try:
        return Image.open(content)
    except UnidentifiedImageError:
        decoder = optional_decoder(_beginning(content))
        if decoder is None:
            raise
        try:
            decoder.register()
        except ImportError as error:
            raise ImageError(f"{decoder.name} needs a decoder: {decoder.remedy}") from error
        return Image.open(content)


def _beginning(content: Path | io.BytesIO) -> bytes:
    if isinstance(content, io.BytesIO):
        return content.getvalue()[:BEGINNING]
    with content.open("rb") as file:
        return file.read(BEGINNING)


# The message for each exception while a picture is read. The first matching row applies.
_MESSAGES: tuple[tuple[type[Exception], str], ...] = (
    (ImageError, "{}."),
    (FileNotFoundError, "no such file, and no file matches it as a pattern."),
    (IsADirectoryError, "this is a folder; `find_images` returns the pictures in it."),
    (UnidentifiedImageError, "not a picture that Pillow can read."),
    (
        Image.DecompressionBombError,
        "too large to decode ({}) Scale it down, or increase PIL.Image.MAX_IMAGE_PIXELS.",
    ),
    (Exception, "cannot be decoded ({}); it is damaged, truncated or in an unsupported format."),
)


@contextmanager
def _as_image_error(name: str, kind: type[Exception]) -> Iterator[None]:
    """Converts exceptions of this type to an ImageError with the picture's name and the cause."""
    try:
        yield
    except MemoryError:
        raise
    except kind as error:
        raise ImageError(f"{name}: {_message(error).format(error)}") from error


def _message(error: Exception) -> str:
    *known, (_, otherwise) = _MESSAGES
    system = isinstance(error, OSError) and error.errno is not None  # decoders set no errno
    unknown = "cannot be read ({})." if system else otherwise
    return next((text for kind, text in known if isinstance(error, kind)), unknown)


def core_count() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(picture: "Picture", otherwise: str) -> str:
    """Returns the path of a picture, or `otherwise` if it has none."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if isinstance(picture, bytes | Image.Image):
        return otherwise
    raise ArgumentTypeError(
        f"{otherwise} has type {type(picture).__name__}; expected a path, bytes or a PIL image."
    )


def _content(picture: "str | os.PathLike[str] | bytes") -> Path | io.BytesIO:
    if isinstance(picture, bytes):
        return io.BytesIO(picture)
    return io.BytesIO(sys.stdin.buffer.read()) if picture == STANDARD_INPUT else Path(picture)


def _matches(argument: str) -> list[str]:
    """Returns the names that match a pattern, or the argument itself if nothing matches."""
    path = Path(argument)
    if argument == STANDARD_INPUT or path.exists() or not glob.has_magic(argument):
        return [argument]
    # Path.glob rejects absolute patterns.
    names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    if "**" in argument:  # it matches the files in these folders too
        names = [name for name in names if not Path(name).is_dir()]
    return names or [argument]


def _search(folder: Path, found: FoundImages) -> None:
    """Adds the pictures and the skipped files in and below a folder to `found`."""
    pictures: list[Path] = []
    skipped: list[Path] = []

    def skip(error: OSError) -> None:
        skipped.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, onerror=skip):
        skipped += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        for path in (Path(parent, name) for name in names):
            (pictures if _is_picture(path, folder) else skipped).append(path)
    found.names += sorted(map(str, pictures))
    found.skipped += sorted(map(str, skipped))
    if not pictures:
        found.empty_folders.append(str(folder))


def _is_picture(path: Path, folder: Path) -> bool:
    """Returns whether a file in a folder is not hidden and has the ending of a picture."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in PICTURE_ENDINGS and path.is_file()
