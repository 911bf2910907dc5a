"""Reads WebDataset tars: the members of one example share their name up to the first dot.

Nothing is extracted. A name in a tar is only text, so it cannot lead to another file.
"""

import glob
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hfclip.data.columns import is_caption_name, is_label_name
from hfclip.data.json_rows import load_json
from hfclip.data.parquet_files import DamagedFileError
from hfclip.data.records import Choices, Findings, Record, Split, UnusableRowError
from hfclip.data.references import TarImage
from hfclip.data.rows import captions_of, label_of
from hfclip.errors import DataError
from hfclip.images.formats import PICTURE_ENDINGS, RAW_ENDINGS, RAW_REASON

_CAPTION, _LABEL, _JSON = "txt", "cls", "json"
_TEXTS = (_CAPTION, _LABEL, _JSON)
_LARGEST_TEXT = 2**20
_MOST_FILES = 100_000
# The file beside the tars that names the classes of an integer in .cls.
CLASS_FILES = ("classes.txt", "classes.json", "labels.txt", "labels.json")
_name_and_ending = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL).fullmatch


@dataclass
class Sample:
    """The members of one example.

    Attributes:
        pictures: The pictures by ending, such as "jpg".
        texts: The content of the text members by ending.
        has_raw: Whether it has the RAW file of a camera, which is not read.
        problem: Why it cannot be used, or None.
    """

    pictures: dict[str, TarImage] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    has_raw: bool = False
    problem: str | None = None


def add_tar(
    path: Path,
    name: str,
    split: Split | None,
    choices: Choices,
    class_names: Sequence[str] | None,
    findings: Findings,
) -> None:
    """Adds the examples of a tar. Reads texts, but no picture.

    The caption is the member .txt, the label the member .cls. The fields of .json are used if there
    is neither, or if they are chosen.

    Args:
        path: The tar.
        name: Its name in keys: "a.tar" gives "a.tar/0001" for the members 0001.jpg and 0001.txt.
        split: The split of all examples.
        choices: The endings or JSON fields that a person chose.
        class_names: The names of the classes that .cls numbers, or None.
        findings: The findings to which the examples are added.

    Raises:
        DataError: The file is no tar, is compressed or damaged, or its fields are ambiguous.
        OSError: The file cannot be read.
    """
    links: list[str] = []
    samples, is_ended = _tar_samples(path, links)
    if not is_ended:
        findings.notes.append(f"{path.name} has no end mark; check that it was copied to its end.")
    for key, sample in samples.items():
        try:
            findings.records.append(
                _record(f"{name}/{key}", sample, split, choices, class_names, str(path))
            )
        except UnusableRowError as error:
            findings.skip(f"{name}/{key}", str(error))
    if links:
        findings.notes.append(
            f"{path.name}: ignored {len(links):,} links and devices, such as {links[0]!r}."
        )


def expand_pattern(pattern: str) -> list[Path]:
    """Returns the files of a pattern such as `data-{000..119}.tar`, `{a,b}.tar` or `*.tar`.

    Raises:
        DataError: The braces stand for too many names.
    """
    names = list(expand_braces(pattern))
    found = [
        sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207
        for name in names
    ]
    return [Path(name) for group in found for name in group]


def read_class_names(folder: Path) -> list[str] | None:
    """Reads classes.txt (a name per line) or classes.json (a list, or indices by name) if present.

    Raises:
        DataError: The file does not name the classes 0, 1, 2 and so on.
        OSError: The file cannot be read.
    """
    for file in (folder / name for name in CLASS_FILES):
        if not file.is_file():
            continue
        if file.suffix == ".txt":
            try:
                lines = file.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8 ({error.reason}).") from None
            return [line.strip() for line in lines if line.strip()]
        return _names_by_index(file, load_json(file))
    return None


def _names_by_index(file: Path, content: Any) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, dict):
        pairs = [(key, value) for key, value in content.items() if isinstance(value, str)] or [
            (value, key) for key, value in content.items()
        ]
        names = {str(index): name for index, name in pairs}
        if all(str(index) in names for index in range(len(content))):
            return [names[str(index)] for index in range(len(content))]
    raise DataError(f"{file} does not name the classes 0, 1, 2, ...; expected a list of names.")


def expand_braces(pattern: str) -> Iterator[str]:
    """Yields the names for braces with a range or alternatives, from left to right.

    Raises:
        DataError: The braces stand for too many names.
    """
    names = [pattern]
    while any(_braces(name) for name in names):
        names = [made for name in names for made in _expand_first(name)]
        if len(names) > _MOST_FILES:
            raise DataError(f"{pattern} stands for more than {_MOST_FILES:,} files.")
    yield from names


_braces = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}").search


def _expand_first(name: str) -> list[str]:
    found = _braces(name)
    if found is None:
        return [name]
    first, last, alternatives = found.groups()
    if alternatives is not None:
        made = alternatives.split(",")
    elif int(last) - int(first) >= _MOST_FILES:
        raise DataError(f"{name} stands for more than {_MOST_FILES:,} files.")
    else:
        width = len(first) if first.startswith("0") else 0
        made = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    return [name[: found.start()] + text + name[found.end() :] for text in made]


def _tar_samples(path: Path, links: list[str]) -> tuple[dict[str, Sample], bool]:
    """Reads the headers and texts of a tar. Adds the names of links and devices to `links`.

    Returns:
        The examples by name, and whether the tar has the zeros that mark its end.

    Raises:
        DataError: The file is no tar, is compressed or damaged.
        OSError: The file cannot be read.
    """
    samples: dict[str, Sample] = {}
    with path.open("rb") as file:
        is_ended = add_samples(file, str(path), path.stat().st_size, samples, links)
    return samples, is_ended


def add_samples(
    file: IO[bytes], path: str, size: int, samples: dict[str, Sample], links: list[str]
) -> bool:
    """Adds the examples of an open tar to `samples`, also those before a damage.

    Args:
        file: The tar, which can seek.
        path: Its path or URL, for references and errors.
        size: The size of the file in bytes.
        samples: The examples by name.
        links: The names of links and devices are added here.

    Returns:
        Whether the tar has the zeros that mark its end.

    Raises:
        DamagedFileError: The file is no tar, is compressed or damaged.
        OSError: The file cannot be read.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + (member.size if member.isreg() else 0) > size:
                    raise DamagedFileError(
                        f"{path} is truncated in {member.name!r}. Copy it again."
                    )
                if member.isreg() and not member.issparse():
                    _add_member(samples, path, tar, member)
                elif not member.isdir():
                    links.append(member.name)
                tar.members = []  # type: ignore[attr-defined]  # it would keep all headers
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        if samples:
            raise DamagedFileError(f"{path} is damaged ({error}). Copy it again.") from error
        raise DamagedFileError(
            f"{path} is no uncompressed tar ({error}). Decompress it first, for example with "
            "`gzip -d`."
        ) from error
    return _is_ended(file, path, end, size)


def _is_ended(file: IO[bytes], path: str, end: int, size: int) -> bool:
    """Returns whether zeros follow the last member.

    Raises:
        DamagedFileError: Other bytes follow. tarfile stops silently at a damaged header.
    """
    file.seek(end)
    while chunk := file.read(2**20):
        if chunk.strip(b"\0"):
            raise DamagedFileError(f"{path} is damaged near byte {end:,}. Copy it again.")
    return size > end


def _add_member(
    samples: dict[str, Sample], path: str, tar: tarfile.TarFile, member: tarfile.TarInfo
) -> None:
    found = _name_and_ending(member.name)
    if found is None:
        return
    key, ending = found[1], found[2].lower()
    sample = samples.setdefault(key, Sample())
    if ending in sample.pictures or ending in sample.texts:
        sample.problem = f"two members are named {member.name!r}"
    elif f".{ending}" in PICTURE_ENDINGS:
        sample.pictures[ending] = TarImage(path, member.offset_data, member.size)
    elif f".{ending}" in RAW_ENDINGS:
        sample.has_raw = True
    elif ending in _TEXTS and member.size > _LARGEST_TEXT:
        sample.problem = f".{ending} is larger than {_LARGEST_TEXT:,} bytes"
    elif ending in _TEXTS:
        content = tar.extractfile(member)
        sample.texts[ending] = content.read() if content else b""


def _record(
    key: str,
    sample: Sample,
    split: Split | None,
    choices: Choices,
    class_names: Sequence[str] | None,
    what: str,
) -> Record:
    if sample.problem:
        raise UnusableRowError(sample.problem)
    image = picture_of(sample, choices.image)
    cells = cells_of(sample)
    caption, label = _fields(cells, choices, what)
    captions = captions_of(cells.get(caption)) if caption else ()
    names = class_names if label == _LABEL else None
    return Record(key, image, captions, label_of(cells.get(label), names) if label else None, split)


def picture_of(sample: Sample, chosen: str | None) -> TarImage:
    """Returns the only picture of an example, or that with the chosen ending.

    Raises:
        UnusableRowError: There is no such picture, or several.
    """
    if chosen is not None:
        picture = sample.pictures.get(chosen.lstrip(".").lower())
        if picture is None:
            raise UnusableRowError(f"there is no member .{chosen.lstrip('.')}")
        return picture
    if not sample.pictures:
        raise UnusableRowError(RAW_REASON if sample.has_raw else "there is no picture")
    if len(sample.pictures) > 1:
        endings = " and ".join(f".{ending}" for ending in sorted(sample.pictures))
        raise UnusableRowError(f"there are pictures {endings}; choose one with image_column")
    return next(iter(sample.pictures.values()))


def cells_of(sample: Sample) -> dict[str, Any]:
    """Returns the texts by ending, and the fields of .json.

    Raises:
        UnusableRowError: A text is not UTF-8, or .json is not JSON.
    """
    cells: dict[str, Any] = {}
    if _JSON in sample.texts:
        try:
            fields = json.loads(sample.texts[_JSON].decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise UnusableRowError("its .json is not JSON in UTF-8") from None
        cells = fields if isinstance(fields, dict) else {}
    for ending in (_CAPTION, _LABEL):
        if ending in sample.texts:
            try:
                cells[ending] = sample.texts[ending].decode("utf-8-sig")
            except UnicodeDecodeError:
                raise UnusableRowError(f"its .{ending} is not UTF-8") from None
    return cells


def _fields(cells: Mapping[str, Any], choices: Choices, what: str) -> tuple[str | None, str | None]:
    """Returns the names of the caption and of the label among the cells."""
    if choices.caption is not None or choices.label is not None:
        return choices.caption, choices.label
    caption = _CAPTION if _CAPTION in cells else None
    label = _LABEL if _LABEL in cells else None
    if caption is None and label is None:
        caption = _only([name for name in cells if is_caption_name(name)], what, "caption")
        label = _only([name for name in cells if is_label_name(name)], what, "label")
    if caption is None and label is None:
        raise UnusableRowError("there is neither a caption (.txt, .json) nor a label (.cls, .json)")
    return caption, label


def _only(names: Sequence[str], what: str, role: str) -> str | None:
    if len(names) > 1:
        raise DataError(
            f"{what}: {len(names)} fields of .json could hold the {role}: {', '.join(names)}. Name "
            f"one with {role}_column (--{role}-column)."
        )
    return names[0] if names else None
