"""Finds, opens and prepares pictures: files, folders, patterns, standard input, bytes, PIL images.

Every picture that is read here is shown to the preprocess as an image viewer shows it. The
preprocess itself is OpenAI's and knows neither EXIF nor 16 bits. `load_batch` has the table.
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
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from PIL import Image, UnidentifiedImageError

from hfclip.errors import ArgumentTypeError, ImageError
from hfclip.images.display import as_displayed
from hfclip.images.formats import BEGINNING, PICTURE_ENDINGS, optional_decoder

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_INPUT = "-"

# A path, "-" for standard input, the bytes of a file, or an image that is open already.
Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"


class ImageBatch(NamedTuple):
    """Pictures that were read together.

    Attributes:
        pixels: float32 (M, 3, S, S): those that could be read, in the order given.
        errors: Why the others could not, by their place in what was given.
    """

    pixels: "Tensor"
    errors: dict[int, ImageError]


@dataclass
class FoundImages:
    """Names of pictures, and what was left out. Iterating it gives the names.

    Attributes:
        names: Names of single pictures for `load_batch`, in the order given.
        skipped: Files in the folders given that are no pictures: they have another ending, or
            are hidden, as are the `._x.jpg` of macOS. Folders that are links, or that cannot be
            listed, are here too.
        empty_folders: Folders given in which there is no picture.
    """

    names: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def find_images(arguments: Iterable[str]) -> FoundImages:
    """Expands what a person types into the names of single pictures.

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
    """Opens, decodes and prepares pictures on all cores, which Pillow and torch leave free.

    The preprocess gets each picture as an image viewer shows it:

    ==========================  ==================================================================
    Picture                     Treatment
    ==========================  ==================================================================
    EXIF orientation            Applied (JPEG, PNG, WebP, TIFF, HEIC, AVIF), unless
                                `auto_orient=False`; the decoders of TIFF and HEIC apply it always.
    16-bit grey                 Divided by 257 and rounded. A TIFF of 12 bits is scaled by 4095.
    16-bit colour               Pillow keeps the high byte of each value.
    32-bit integers             Kept if all are from 0 to 255, otherwise an error. A PNG or PGM
                                in this mode has 16 bits and is divided by 257.
    Float                       Times 255 if all are from 0 to 1, kept if all are from 0 to 255,
                                otherwise an error.
    TIFF where white is zero    Inverted, if Pillow does not do it (more than 8 bits).
    Alpha, palette, CMYK, ...   As in OpenAI's release: `convert("RGB")` after resizing, which drops
                                the alpha channel. Pillow knows the inverted CMYK of Adobe's JPEGs.
                                Colour profiles are not applied.
    Animation, several pages    The first frame.
    HEIC                        Read if `hfclip[heic]` is installed, otherwise an error.
    ==========================  ==================================================================

    Args:
        pictures: Paths, "-" for standard input, the bytes of files, or PIL images.
        preprocess: What `load` or `image_transform` gave. It gets a JPEG that needs no turning as
            it was opened, not decoded yet, and runs in several threads at once.
        workers: How many threads; by default one for each core that this process may use.
        auto_orient: Whether to apply the EXIF orientation; OpenAI's release does not.

    Returns:
        The prepared pictures and the errors of those that are none: one does not stop the others.
        `pixels` is of shape (0,) if none could be read.

    Raises:
        ArgumentTypeError: A picture has none of the types above.
    """
    import torch  # noqa: PLC0415  # to find pictures needs no torch

    from hfclip.images.fast import FastTransform  # noqa: PLC0415

    # Not isinstance: it would look into the exact transform and import torchvision.
    least_side = preprocess.least_side if type(preprocess) is FastTransform else None

    def prepare(numbered: "tuple[int, Picture]") -> "Tensor | ImageError":
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
    with ThreadPoolExecutor(workers or _cores()) as pool:
        outcomes = list(pool.map(prepare, enumerate(pictures)))
    prepared = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    errors = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)}
    nothing = torch.empty(0, dtype=torch.float32, device="cpu")
    return ImageBatch(torch.stack(prepared) if prepared else nothing, errors)


def _decode_repeated(pictures: "Sequence[Picture]") -> None:
    """Decodes PIL images that occur several times, since two threads must not decode one at once.

    `prepare` reports an image that cannot be decoded.
    """
    images = {id(picture): picture for picture in pictures if isinstance(picture, Image.Image)}
    counts = Counter(map(id, pictures))
    for key, image in images.items():
        if counts[key] > 1:
            with suppress(Exception):  # decoders raise many kinds for damaged data
                image.load()


@contextmanager
def open_picture(
    picture: "Picture",
    *,
    auto_orient: bool = True,
    least_side: int | None = None,
    name: str | None = None,
) -> Iterator[Image.Image]:
    """Opens one picture as `load_batch` does and gives it to a `with` statement.

    The image is upright and has 8 bits per channel; the table in `load_batch` says how. A JPEG that
    needs no turning is not decoded yet. The file is closed at the end. A PIL image that was given
    stays open and unchanged.

    Example:
        >>> with open_picture("cat.jpg") as image:
        ...     pixels = preprocess(image)

    Args:
        picture: A path, "-" for standard input, the bytes of a file, or a PIL image.
        auto_orient: Whether to apply the EXIF orientation.
        least_side: A JPEG file that has to be turned may be decoded at a half, a quarter or an
            eighth, as long as its shorter side keeps this many pixels. None decodes it whole.
        name: What errors call the picture; by default its path.

    Raises:
        ImageError: The picture does not exist or cannot be decoded. This covers the decoding that
            the body of the `with` statement starts.
        ArgumentTypeError: `picture` has none of the types above.
    """
    name = name or _name(picture, "picture")
    if isinstance(picture, Image.Image):
        least_side = None  # scaling would change the image that was given
    with _opened(picture, name) as image:
        with _reported(name, Exception):  # decoders raise many kinds for damaged data
            shown = as_displayed(image, auto_orient=auto_orient, least_side=least_side)
        with _reported(name, OSError):
            yield shown


def _preprocessed(
    image: Image.Image, preprocess: "Callable[[Image.Image], Tensor]", name: str
) -> "Tensor":
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
    """Opens a picture and closes it afterwards, unless it was open before."""
    if isinstance(picture, Image.Image):
        yield picture
        return
    with _reported(name, Exception):
        image = _identified(_content(picture))
    with image:
        yield image


def _identified(content: Path | io.BytesIO) -> Image.Image:
    """Opens a file by what it contains, also if an optional decoder is needed."""
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


# What each error of reading a picture means; the first row that fits counts.
_MEANINGS: tuple[tuple[type[Exception], str], ...] = (
    (ImageError, "{}."),
    (FileNotFoundError, "no such file, and nothing matches it as a pattern."),
    (IsADirectoryError, "a folder cannot be decoded; `find_images` gives the pictures in it."),
    (UnidentifiedImageError, "not a picture of any kind that Pillow can read."),
    (
        Image.DecompressionBombError,
        "not decoded, as it is too large ({}) Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS.",
    ),
    (Exception, "cannot be decoded ({}); it is damaged, truncated or of a kind not supported."),
)


@contextmanager
def _reported(name: str, kind: type[Exception]) -> Iterator[None]:
    """Turns errors of this kind into an ImageError that names the picture and the cause."""
    try:
        yield
    except MemoryError:
        raise
    except kind as error:
        raise ImageError(f"{name}: {_meaning(error).format(error)}") from error


def _meaning(error: Exception) -> str:
    *known, (_, otherwise) = _MEANINGS
    system = isinstance(error, OSError) and error.errno is not None  # a decoder's has no number
    unknown = "cannot be read ({})." if system else otherwise
    return next((text for kind, text in known if isinstance(error, kind)), unknown)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(picture: "Picture", otherwise: str) -> str:
    """Returns the path of a picture, or another name if it has none."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if isinstance(picture, bytes | Image.Image):
        return otherwise
    raise ArgumentTypeError(
        f"{otherwise} is a {type(picture).__name__}; expected a path, bytes or a PIL image."
    )


def _content(picture: "str | os.PathLike[str] | bytes") -> Path | io.BytesIO:
    if isinstance(picture, bytes):
        return io.BytesIO(picture)
    return io.BytesIO(sys.stdin.buffer.read()) if picture == STANDARD_INPUT else Path(picture)


def _matches(argument: str) -> list[str]:
    """Returns what a pattern matches; an argument that is no pattern or matches nothing is kept."""
    path = Path(argument)
    if argument == STANDARD_INPUT or path.exists() or not glob.has_magic(argument):
        return [argument]
    # Path.glob refuses absolute patterns, which people type.
    names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    if "**" in argument:  # it matches the files below the folders too
        names = [name for name in names if not Path(name).is_dir()]
    return names or [argument]


def _search(folder: Path, found: FoundImages) -> None:
    """Adds the pictures in and below a folder, and what is left out there."""
    pictures: list[Path] = []
    skipped: list[Path] = []

    def skip(error: OSError) -> None:
        skipped.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, onerror=skip):
        skipped += [path for name in folders if (path := Path(parent, name)).is_symlink()]
        for path in (Path(parent, name) for name in names):
            (pictures if _counts(path, folder) else skipped).append(path)
    found.names += sorted(map(str, pictures))
    found.skipped += sorted(map(str, skipped))
    if not pictures:
        found.empty_folders.append(str(folder))


def _counts(path: Path, folder: Path) -> bool:
    """Tells whether a file in a folder is taken for a picture."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in PICTURE_ENDINGS and path.is_file()
