"""Turns the rows of a table into records: paths, captions, labels and splits as text.

A table that a person names may name pictures anywhere. A table inside a folder, a tar or a
repository may come from elsewhere: its paths stay in that folder.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfclip.data.columns import Columns
from hfclip.data.names import split_named
from hfclip.data.records import Findings, Record, Split, UnusableRowError
from hfclip.data.references import FileImage, ImageRef
from hfclip.errors import DataError


@dataclass(frozen=True)
class Place:
    """The folder to which the paths of a table are relative.

    Attributes:
        folder: The folder.
        boundary: The folder that no path may leave, or None if paths may lead anywhere.
    """

    folder: Path
    boundary: Path | None

    def find(self, path: str) -> FileImage:
        """Returns a reference to a picture. Does not check whether it exists.

        Raises:
            UnusableRowError: The path is empty, a URL, or leaves the boundary.
        """
        path = path.strip()
        if not path or "\0" in path:
            raise UnusableRowError("the path of the picture is empty or malformed")
        if "://" in path:
            raise UnusableRowError(f"{path} is a URL; download the pictures first")
        found = Path(os.path.abspath(self.folder / path))  # noqa: PTH100  # keeps links
        if "\\" in path and os.sep == "/" and not found.exists():
            return self.find(path.replace("\\", "/"))
        if self.boundary is not None and not found.is_relative_to(_absolute(self.boundary)):
            raise UnusableRowError(f"{path} is outside the folder {self.boundary}")
        return FileImage(str(found))


@dataclass(frozen=True)
class Table:
    """How the rows of a table become records.

    Attributes:
        columns: The columns in use.
        place: The folder of its paths.
        split: The split of all rows if no column gives one.
        class_names: The names of classes that the label column numbers, or None.
    """

    columns: Columns
    place: Place
    split: Split | None = None
    class_names: Sequence[str] | None = None

    def record(self, key: str, cells: Mapping[str, Any]) -> Record:
        """Returns the record of a row.

        Raises:
            UnusableRowError: A value is missing or of the wrong type.
            DataError: The value of the split column is unknown.
        """
        columns = self.columns
        split = self.split if columns.split is None else _split(key, cells.get(columns.split))
        captions = captions_of(cells.get(columns.caption)) if columns.caption is not None else ()
        label = None
        if columns.label is not None:
            label = label_of(cells.get(columns.label), self.class_names)
        return Record(key, self._image(cells.get(columns.image)), captions, label, split)

    def add(self, rows: Iterable[tuple[str, Mapping[str, Any]]], findings: Findings) -> None:
        """Adds the record of each row to `findings`. Unusable rows are skipped."""
        for key, cells in rows:
            try:
                findings.records.append(self.record(key, cells))
            except UnusableRowError as error:
                findings.skip(key, str(error))

    def _image(self, value: Any) -> ImageRef:
        if value is None:
            raise UnusableRowError("the picture is missing")
        if isinstance(value, ImageRef):
            return value
        return self.place.find(text_of(value, "path of the picture"))


def captions_of(value: Any) -> tuple[str, ...]:
    """Returns the captions of a cell, which holds one or a list. Empty ones in a list are dropped.

    Raises:
        UnusableRowError: There is no caption, or a value is not text.
    """
    values = value if isinstance(value, list | tuple) else [value]
    texts = (text_of(item, "caption").strip() for item in values if item is not None)
    captions = tuple(text for text in texts if text)
    if not captions:
        raise UnusableRowError("the caption is empty")
    return captions


def label_of(value: Any, class_names: Sequence[str] | None = None) -> str:
    """Returns the class name of a cell.

    Args:
        value: A class name, or an index if there are class names.
        class_names: The names of the classes, or None. An index comes before a name.

    Raises:
        UnusableRowError: The label is missing, not text, or not an index of `class_names`.
    """
    if value is None:
        raise UnusableRowError("the label is missing")
    label = text_of(value, "label").strip()
    if not label:
        raise UnusableRowError("the label is empty")
    if class_names is None:
        return label
    if label.isdecimal() and int(label) < len(class_names):
        return class_names[int(label)]
    if label in class_names:
        return label
    raise UnusableRowError(f"the label is {label}; expected 0 to {len(class_names) - 1}")


def text_of(value: Any, what: str) -> str:
    """Returns text or a number as text; a whole number has no decimals.

    Raises:
        UnusableRowError: The value is neither text nor a finite number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnusableRowError(f"the {what} is {_shown(value)}; expected text")
    return str(value)


def _split(key: str, value: Any) -> Split:
    split = split_named(value) if isinstance(value, str) else None
    if split is None:
        raise DataError(
            f"{key} has the split {_shown(value)}; expected train, validation or test. Correct it, "
            "or rename the column 'split'."
        )
    return split


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)} values"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # keeps links, unlike Path.resolve
