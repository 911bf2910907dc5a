"""Reads a folder of class folders, with folders for the splits or without."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from hfclip.data.names import no_training, split_named
from hfclip.data.records import Findings, Record
from hfclip.data.references import FileImage
from hfclip.errors import DataError
from hfclip.images.reading import find_images


def add_class_folders(folder: Path, findings: Findings) -> None:
    """Adds the pictures of a folder, each with the name of its class folder as the label.

    The folder holds class folders, or folders such as train, val and test that hold class folders.
    A picture further below belongs to the class folder that it is in.

    Raises:
        DataError: There is no class folder, or split folders and class folders are mixed.
    """
    found = find_images([str(folder)])
    paths = [Path(name).relative_to(folder) for name in found]
    splits = _split_folders(folder, paths)
    if found.skipped:
        names = ", ".join(str(Path(name).relative_to(folder)) for name in found.skipped[:3])
        findings.notes.append(
            f"Ignored {len(found.skipped):,} hidden files, files without the ending of a picture "
            f"and links to folders: {names}{', ...' if len(found.skipped) > 3 else ''}."
        )
    unlabelled: Counter[str] = Counter()
    for path in paths:
        split = split_named(path.parts[0]) if splits else None
        inside = path.parts[1:] if splits else path.parts
        if splits and path.parts[0] not in splits and len(path.parts) > 1:
            unlabelled[path.parts[0]] += 1
        elif len(inside) < 2 or (splits and split is None):
            findings.skip(path.as_posix(), "the picture is in no class folder")
        else:
            image = FileImage(str(folder / path))
            findings.records.append(Record(path.as_posix(), image, (), inside[0], split))
    for name, count in unlabelled.items():
        findings.notes.append(
            f"Ignored the folder {name}: its {count:,} pictures are in no class folder."
        )
    if not findings.records:
        raise DataError(
            f"{folder} holds {len(paths):,} pictures but no class folders. Expected a folder for "
            "each class, metadata.csv or metadata.jsonl, a CSV, TSV or JSONL table, COCO captions, "
            "Parquet files or WebDataset tars."
        )
    findings.notes.append(_note(splits))


def _split_folders(folder: Path, paths: Sequence[PurePath]) -> list[str]:
    """Returns the split folders that hold class folders; none if the classes are at the top.

    Raises:
        DataError: Class folders are beside split folders, or no split is for training.
    """
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    with_classes = {path.parts[0] for path in paths if len(path.parts) > 2}
    splits = sorted(name for name in with_classes if split_named(name))
    others = sorted(name for name in tops if not split_named(name))
    if splits and others:
        raise DataError(
            f"{folder} holds the split folder {splits[0]} beside {others[0]}, which is no split. "
            "Move all class folders into split folders, or rename the class."
        )
    if not others and tops and not splits:
        raise DataError(
            f"{folder}: the split folders {', '.join(sorted(tops))} hold pictures, but no class "
            "folders. Make a folder for each class, or add a metadata.csv with labels or captions."
        )
    given = [split_named(name) for name in splits]
    if splits and "train" not in given:
        raise no_training(str(folder), given)
    return splits


def _note(splits: Sequence[str]) -> str:
    where = f" in the split folders {', '.join(splits)}" if splits else ""
    return f"Format: class folders{where}; the label is the name of the folder."
