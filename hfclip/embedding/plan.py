"""Plans a run: lists the inputs of the sources and divides them into parts."""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfclip.data.records import UnusableRowError
from hfclip.data.references import FileImage
from hfclip.data.tars import cells_of, picture_of, tar_samples
from hfclip.embedding.items import Item
from hfclip.errors import DataError
from hfclip.images.formats import PICTURE_ENDINGS


@dataclass(frozen=True)
class PartPlan:
    """The inputs of a part, in the order of its rows."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Plan:
    """The parts of a run. The digest changes when an input, its content or the order changes."""

    parts: tuple[PartPlan, ...]
    digest: str

    @property
    def count(self) -> int:
        """The number of inputs."""
        return sum(len(part.items) for part in self.parts)


def make_plan(
    sources: Sequence[str],
    *,
    kind: Literal["images", "texts"],
    image_column: str | None = None,
    caption_column: str | None = None,
    key_column: str | None = None,
    part_size: int = 5_000,
) -> Plan:
    """Lists the inputs of folders, patterns, picture files, tars and text files.

    Raises:
        DataError: A source does not exist, is of an unknown kind, or two inputs have one key.
    """
    items: dict[str, Item] = {}
    for source in sources:
        for item in _items(source, kind, image_column, caption_column):
            if items.setdefault(item.key, item) != item:
                raise DataError(f"Two inputs have the key {item.key!r}. Rename one of them.")
    if key_column is not None:
        raise DataError("key_column is for tables, which cannot be embedded yet.")
    ordered = [items[key] for key in sorted(items)]
    digest = hashlib.sha256("\n".join(map(repr, ordered)).encode("utf-8", "surrogatepass"))
    return Plan(divided(ordered, 0, part_size), digest.hexdigest())


def divided(items: Sequence[Item], first: int, size: int) -> tuple[PartPlan, ...]:
    """Divides inputs into parts that are numbered from `first` on."""
    return tuple(
        PartPlan(f"part-{first + start // size:05d}", tuple(items[start : start + size]))
        for start in range(0, len(items), size)
    )


def _items(source: str, kind: str, image: str | None, caption: str | None) -> Iterator[Item]:
    if "://" in source:
        raise DataError(f"{source} is remote; only local sources can be embedded. Download it.")
    path = Path(source).expanduser()
    if kind == "texts":
        yield from _texts(path)
    elif path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in PICTURE_ENDINGS:
                yield _file(file)
    elif path.suffix.lower() == ".tar":
        yield from _tar(path, image, caption)
    elif path.suffix.lower() == ".txt":
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                yield _file(path.parent / line.strip())
    elif path.suffix.lower() in PICTURE_ENDINGS and path.exists():
        yield _file(path)
    elif glob.has_magic(source):
        for name in glob.glob(str(path), recursive=True):  # noqa: PTH207
            yield from _items(
                glob.escape(name) if not Path(name).exists() else name, kind, image, caption
            )
    else:
        raise DataError(f"{source} does not exist, or is neither a folder, tar, list nor picture.")


def _file(path: Path) -> Item:
    try:
        found = path.stat()
    except OSError as error:
        return Item(path.as_posix(), None, None, error=f"cannot be read: {error.strerror}")
    return Item(path.as_posix(), FileImage(str(path)), None, found.st_size, found.st_mtime_ns)


def _texts(path: Path) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}).") from error
    for number, line in enumerate(lines, 1):
        yield Item(f"{path.as_posix()}:{number:08d}", None, line, len(line.encode()))


def _tar(path: Path, image: str | None, caption: str | None) -> Iterator[Item]:
    try:
        samples, _ = tar_samples(path, [])
        mtime = path.stat().st_mtime_ns
    except (OSError, DataError) as error:
        yield Item(path.as_posix(), None, None, error=str(error))
        return
    for name, sample in samples.items():
        key = f"{path.as_posix()}/{name}"
        try:
            if sample.problem:
                raise UnusableRowError(sample.problem)
            found = picture_of(sample, image)
            text = cells_of(sample).get(caption or "txt")
        except UnusableRowError as error:
            yield Item(key, None, None, mtime_ns=mtime, error=str(error))
            continue
        yield Item(key, found, None if text is None else str(text).strip(), found.size, mtime)
