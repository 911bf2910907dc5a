"""Finds the labels of a collection: the names of folders, its captions, or a CSV file."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from hfclip.data.names import split_named
from hfclip.data.records import Split
from hfclip.errors import ArgumentError, DataError, LabelError

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings

# Where the labels can come from, beside a file.
FOLDER, CAPTION = "folder", "caption"


class Labels(NamedTuple):
    """The labels of the rows of a collection.

    Attributes:
        names: The label of each row, or None: N entries.
        splits: The split that each row names, or None: N entries.
        source: Where the labels come from: "folder", "caption" or the name of the file.
        unknown: The number of keys in the file that the collection does not have.
    """

    names: Sequence[str | None]
    splits: Sequence[Split | None]
    source: str
    unknown: int = 0


def labels_from(embeddings: "Embeddings", source: str) -> Labels:
    """Returns the labels that a collection has itself.

    Args:
        embeddings: The collection, with N rows.
        source: "folder" for the name of the folder that a picture is in, or "caption" for the
            caption beside it, which `hfclip embed --caption-column` chose.

    Raises:
        ArgumentError: Another source is named.
        LabelError: A picture is in no folder, or no picture has a caption.
    """
    keys = list(embeddings.keys)
    if source == FOLDER:
        return Labels([_folder_of(key) for key in keys], _splits(keys, 2), source)
    if source != CAPTION:
        raise ArgumentError(
            f"Labels cannot be read from {source!r}; expected 'folder' or 'caption'. Of a table, a "
            "collection stores one column, the caption: embed the table again with "
            f"--caption-column {source} and name 'caption', or name a CSV file with the columns "
            "key and label (--labels-file)."
        )
    names = [caption.strip() or None if caption else None for caption in embeddings.captions]
    if not any(names):
        raise LabelError(
            f"No picture of {embeddings.out} has a caption. Embed them with --caption-column, or "
            "name a CSV file with the columns key and label (--labels-file)."
        )
    return Labels(names, _splits(keys, 1), source)


def labels_in(path: Path, embeddings: "Embeddings") -> Labels:
    """Reads labels from a CSV file with the columns key and label, and an optional column split.

    Rows of the collection that the file does not name, or names without a label, have none.

    Raises:
        LabelError: The file cannot be read, lacks a column, names a key twice or an unknown split,
            or names no key of the collection.
    """
    rows = dict(_read(path))
    keys = list(embeddings.keys)
    found = [rows.get(key, (None, None)) for key in keys]
    known = {*keys, *embeddings.errors}
    unknown = [key for key in rows if key not in known]
    if len(unknown) == len(rows):
        example = f" Its first key is {unknown[0]!r};" if unknown else ""
        raise LabelError(
            f"{path} names no key of {embeddings.out}.{example} the collection has keys such as "
            f"{keys[0]!r}."
        )
    return Labels(
        [label for label, _ in found], [split for _, split in found], path.name, len(unknown)
    )


def _folder_of(key: str) -> str:
    """Returns the name of the folder that a picture is in.

    Raises:
        LabelError: It is in none.
    """
    folder = PurePosixPath(key).parent.name
    if folder in ("", "..") or folder.casefold().endswith(".tar"):
        raise LabelError(
            f"{key!r} is in no folder that names its label. Use 'caption' for the captions of a "
            "table or a tar, or a CSV file with the columns key and label (--labels-file)."
        )
    return folder


def _splits(keys: Sequence[str], below: int) -> list[Split | None]:
    """Returns the split that a folder of each key names, such as train in photos/train/cat/1.jpg.

    Folders that all keys share name no split.

    Args:
        keys: The keys.
        below: The number of last parts of a key that name no split: the file, and the label.
    """
    folders = [PurePosixPath(key).parts[:-below] for key in keys]
    shared = _shared(folders)
    return [
        next((split for name in parts[shared:] if (split := split_named(name))), None)
        for parts in folders
    ]


def _shared(folders: Sequence[tuple[str, ...]]) -> int:
    """Returns the number of first parts that all folders share."""
    lowest, highest = min(folders, default=()), max(folders, default=())
    count = 0
    for one, other in zip(lowest, highest, strict=False):
        if one != other:
            break
        count += 1
    return count


def _read(path: Path) -> Iterator[tuple[str, tuple[str | None, Split | None]]]:
    """Yields the key, label and split of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read as UTF-8 ({error}).") from error
    lines = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"key", "label"} - set(lines.fieldnames or ())
    if missing:
        raise LabelError(
            f"{path} has the columns {', '.join(lines.fieldnames or ()) or 'none'}; expected a "
            f"first line with key and label, separated by a comma. It lacks {sorted(missing)[0]}."
        )
    first: dict[str, int] = {}
    try:
        for line in lines:
            number, key = lines.line_num, line["key"] or ""
            if key in first:
                raise LabelError(f"{path}: line {number} repeats the key of line {first[key]}.")
            first[key] = number
            label = (line["label"] or "").strip() or None
            yield key, (label, _split(line.get("split"), path, number))
    except csv.Error as error:
        raise LabelError(f"{path}: line {lines.line_num} is malformed ({error}).") from error


def _split(value: str | None, path: Path, line: int) -> Split | None:
    if not (value or "").strip():
        return None
    split = split_named(value or "")
    if split is None:
        raise LabelError(
            f"{path}: line {line} has the split {value!r}; expected train, validation or test."
        )
    return split


def check_pictures(embeddings: "Embeddings") -> None:
    """Checks that a collection holds pictures.

    Raises:
        DataError: It holds texts.
    """
    if embeddings.manifest.kind != "images":
        raise DataError(
            f"{embeddings.out} is a collection of texts; expected one of pictures, that "
            "`hfclip embed` wrote without --text."
        )
