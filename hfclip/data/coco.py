"""Reads captions in COCO's format: a JSON object with images and annotations, beside a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfclip.data.records import Findings, Record, Split, UnusableRowError
from hfclip.data.rows import Place, captions_of
from hfclip.errors import DataError

# Pictures that are looked for to find their folder.
_TRIED = 20


def is_coco(content: Any) -> bool:
    """Returns whether the content of a JSON file is in COCO's format."""
    return isinstance(content, dict) and all(
        isinstance(content.get(name), list) for name in ("images", "annotations")
    )


def has_captions(content: Any) -> bool:
    """Returns whether annotations in COCO's format are captions, and not boxes or key points."""
    return any(isinstance(row, dict) and "caption" in row for row in content["annotations"])


def add_coco(
    path: Path,
    content: Any,
    folders: Sequence[Path],
    boundary: Path | None,
    split: Split | None,
    findings: Findings,
) -> None:
    """Adds the pictures of a COCO file with all their captions.

    Args:
        path: The JSON file.
        content: Its content.
        folders: Where the folder of the pictures is looked for: these and the folders in them.
        boundary: The folder that no path may leave, or None.
        split: The split of the pictures.
        findings: The findings to which they are added.

    Raises:
        DataError: The annotations are no captions, or the pictures' folder is not found.
    """
    if not has_captions(content):
        raise DataError(
            f"{path} holds no captions: its annotations are of another kind, such as boxes. Use "
            "the file with captions, such as captions_train2017.json."
        )
    names = {
        row["id"]: row["file_name"]
        for row in content["images"]
        if isinstance(row, dict) and _is_id(row.get("id")) and isinstance(row.get("file_name"), str)
    }
    captions: dict[Any, list[str]] = {}
    for number, row in enumerate(content["annotations"], 1):
        try:
            captions.setdefault(_image_id(row, names), []).extend(captions_of(row.get("caption")))
        except UnusableRowError as error:
            findings.skip(f"{path.name}: annotation {number}", str(error))
    place = Place(_picture_folder(path, list(names.values()), folders), boundary)
    findings.notes.append(f"Format: COCO captions in {path.name}, pictures in {place.folder.name}.")
    for image_id, name in names.items():
        if image_id not in captions:
            findings.skip(name, "the picture has no caption")
            continue
        try:
            image = place.find(name)
        except UnusableRowError as error:
            findings.skip(name, str(error))
        else:
            findings.records.append(Record(name, image, tuple(captions[image_id]), None, split))


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _image_id(row: Any, names: dict[Any, str]) -> Any:
    image_id = row.get("image_id") if isinstance(row, dict) else None
    if not _is_id(image_id) or image_id not in names:
        raise UnusableRowError("the annotation belongs to no picture of the file")
    return image_id


def _picture_folder(path: Path, names: Sequence[str], folders: Sequence[Path]) -> Path:
    """Returns the folder that holds most of the first pictures."""
    tried = [name for name in names[:_TRIED] if "\0" not in name]
    counts = {
        folder: sum((folder / name).is_file() for name in tried) for folder in _candidates(folders)
    }
    best = max(counts, key=lambda folder: counts[folder], default=None)
    if best is None or not counts[best]:
        shown = tried[0] if tried else "no picture"
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(
            f"{path} names {shown}, but it is neither in {looked} nor in a folder there. Put the "
            "folder of the pictures beside the JSON file."
        )
    return best


def _candidates(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield folder
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        yield from inside
        yield from sorted(path for path in folder.glob("images/*") if path.is_dir())
