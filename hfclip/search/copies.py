"""Copies the originals of results into a folder."""

import io
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from hfclip.embedding.items import Item
from hfclip.errors import DataError, HfclipError
from hfclip.images.formats import PICTURE_ENDINGS

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')
# Bytes of a name without its rank and ending. Most file systems allow 255 in all.
_LONGEST = 150


def copy_originals(items: Sequence[Item], folder: Path) -> list[tuple[str, str]]:
    """Copies pictures into a folder, named by their rank: 01-cat.jpg, 02-dog.jpg.

    A picture is written whole under another name and then renamed. An existing file is never
    replaced, and nothing is written outside the folder.

    Args:
        items: The inputs, best first. Those in tars, tables and remote files are extracted.
        folder: The folder. It is made if it does not exist.

    Returns:
        The key and the reason of each input that could not be copied.

    Raises:
        DataError: The folder cannot be made, or has a file with a name of this copy.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be used as a folder ({error}).") from error
    digits = max(2, len(str(len(items))))
    ranks = [f"{rank:0{digits}d}-" for rank in range(1, len(items) + 1)]
    taken = next((name for name in present if name.startswith(tuple(ranks))), None)
    if taken is not None:
        raise DataError(
            f"{folder} already has {taken}, and nothing is replaced. Name a new or empty folder."
        )
    failed = []
    for rank, item in zip(ranks, items, strict=True):
        try:
            content = _content(item)
            _write_new(folder / _name(rank, item.key, content), content)
        except (OSError, HfclipError) as error:
            failed.append((item.key, str(error)))
    return failed


def _content(item: Item) -> bytes:
    if item.error is not None:
        raise DataError(item.error)
    if item.image is None:
        raise DataError("it is a text, not a picture")
    return item.content()


def _name(rank: str, key: str, content: bytes) -> str:
    """Returns a file name: the rank, the last component of the key, and a picture's ending."""
    last = PurePosixPath(key.replace("\\", "/")).name
    ending = PurePosixPath(last).suffix
    if ending.lower() not in PICTURE_ENDINGS:
        ending = _ending(content)
    else:
        last = last.removesuffix(ending)
    stem = _UNSAFE.sub("-", last).strip(" .")
    stem = stem.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
    return f"{rank}{stem or 'picture'}{ending}"


def _ending(content: bytes) -> str:
    """Returns the ending for the format of a picture."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = (image.format or "").lower()
    except Exception:  # noqa: BLE001  # decoders raise many; the bytes are copied all the same
        return ".bin"
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file whole. Raises FileExistsError if the name is taken."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename, it never replaces a file
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError(f"{path} exists.") from None
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)
