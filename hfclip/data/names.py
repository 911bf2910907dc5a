"""Names of splits, as folders, files and columns use them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfclip.data.records import Split
from hfclip.errors import DataError

# "restval" is in the splits of COCO that captioning papers train on.
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_named(name: str) -> Split | None:
    """Returns the split of this name, in any case, or None."""
    return _SPLITS.get(name.strip().casefold())


def split_in(text: str) -> Split | None:
    """Returns the split that a text names among other words, as in `captions_train2017`, or None.

    A text that names two splits names none.
    """
    words = re.findall(r"[a-z]+", text.casefold())
    found = {split for word in words if (split := _SPLITS.get(word))}
    return found.pop() if len(found) == 1 else None


def splits_of_files(files: Sequence[Path], folder: Path) -> list[Split | None]:
    """Returns the split of each file, from its name or a folder's name.

    A single file has no split. Files without any split are parts of one set.

    Raises:
        DataError: Some files name a split and others do not, or no file is for training.
    """
    if len(files) == 1:
        return [None]
    splits = [_split_of_file(file.relative_to(folder)) for file in files]
    if None in splits and any(splits):
        without = files[splits.index(None)].relative_to(folder)
        raise DataError(
            f"{folder}: {without} belongs to no split, but other files do. Name the splits train, "
            "validation and test in all file names, or in none."
        )
    if any(splits) and "train" not in splits:
        raise no_training(str(folder), splits)
    return splits


def no_training(where: str, splits: Iterable[str | None]) -> DataError:
    """Returns the error for data without a split for training."""
    found = ", ".join(sorted({split for split in splits if split}))
    return DataError(f"{where} has the splits {found}, but none for training. Add a split 'train'.")


def _split_of_file(path: Path) -> Split | None:
    folders = [split for part in path.parts[:-1] if (split := split_named(part))]
    return folders[-1] if folders else split_in(path.name.partition(".")[0])
