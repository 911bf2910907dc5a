"""Finds the columns of a table that hold the pictures, captions, labels and splits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hfclip.data.records import Choices
from hfclip.data.references import ParquetImage, ParquetRow
from hfclip.errors import DataError
from hfclip.images.formats import PICTURE_ENDINGS

# fmt: off
_IMAGE_NAMES = frozenset((
    "image", "img", "picture", "photo", "file", "filename", "file_name", "filepath", "file_path",
    "image_path", "image_file", "image_name", "path",
))
_CAPTION_NAMES = frozenset((
    "caption", "captions", "text", "texts", "sentence", "sentences", "title", "description",
    "descriptions", "prompt", "prompts", "alt",
))
_LABEL_NAMES = frozenset((
    "label", "labels", "class", "classes", "class_name", "label_name", "category", "target",
))
# fmt: on
_SPLIT_NAME = "split"
# Rows that are looked at.
SAMPLE = 200


@dataclass(frozen=True)
class Columns:
    """The names of the columns in use. At least one of `caption` and `label` is not None."""

    image: str
    caption: str | None
    label: str | None
    split: str | None

    def __str__(self) -> str:
        used = (
            ("picture", self.image),
            ("caption", self.caption),
            ("label", self.label),
            ("split", self.split),
        )
        return ", ".join(f"{role} {name!r}" for role, name in used if name is not None)


def find_columns(
    names: Sequence[str],
    sample: Sequence[Mapping[str, Any]],
    choices: Choices,
    what: str,
    more_labels: Iterable[str] = (),
) -> Columns:
    """Finds the columns by their content and names.

    The picture's column is found by the file names or pictures in it, then by its name. Captions
    and labels are found by name. If one of them is chosen, the other is used only if it is chosen
    too.

    Args:
        names: All columns.
        sample: The first rows.
        choices: The columns that a person chose.
        what: The table's name in errors.
        more_labels: Columns that hold labels, whatever their name.

    Raises:
        DataError: A chosen column does not exist, or two columns could be meant, or none.
    """
    for option, chosen in _options(choices):
        check_column(chosen, option, names, what)
    image = choices.image or find_image_column(names, sample, what)
    split = next((name for name in names if _plain(name) == _SPLIT_NAME), None)
    others = [name for name in names if name not in (image, split)]
    caption, label = choices.caption, choices.label
    if caption is None and label is None:
        known = frozenset(more_labels)
        captions = [name for name in others if is_caption_name(name) and name not in known]
        labels = [name for name in others if is_label_name(name) or name in known]
        caption = _only(captions, what, "captions", "caption_column")
        label = _only(labels, what, "labels", "label_column")
    if caption is None and label is None:
        raise DataError(
            f"{what}: no column is named like captions or labels. The columns are "
            f"{_listed(names)}. Name the captions with caption_column (--caption-column), or the "
            "labels with label_column (--label-column)."
        )
    used = [name for name in (image, caption, label) if name is not None]
    if len(set(used)) < len(used):
        raise DataError(f"{what}: a column cannot have two roles. Choose different columns.")
    return Columns(image, caption, label, split)


def check_column(chosen: str | None, option: str, names: Sequence[str], what: str) -> None:
    """Checks that a column exists if one is chosen.

    Args:
        chosen: The column, or None.
        option: The name of the option with which it was chosen.
        names: All columns.
        what: The table's name in the error.

    Raises:
        DataError: There is no such column.
    """
    if chosen is not None and chosen not in names:
        raise DataError(f"{what} has no column {chosen!r} ({option}); it has {_listed(names)}.")


def find_caption_column(names: Sequence[str], what: str) -> str | None:
    """Returns the column that is named like captions, or None.

    Raises:
        DataError: Several columns are.
    """
    return _only(
        [name for name in names if is_caption_name(name)], what, "captions", "caption_column"
    )


def looks_like_picture(value: Any) -> bool:
    """Returns whether a value is a picture, or text that ends like the file name of one."""
    if isinstance(value, ParquetImage | ParquetRow):
        return True
    return isinstance(value, str) and PurePosixPath(value.strip()).suffix.lower() in PICTURE_ENDINGS


def is_caption_name(name: str) -> bool:
    """Returns whether a column of this name holds captions."""
    return _is_named(name, _CAPTION_NAMES)


def is_label_name(name: str) -> bool:
    """Returns whether a column of this name holds labels."""
    return _is_named(name, _LABEL_NAMES)


def _options(choices: Choices) -> tuple[tuple[str, str | None], ...]:
    return (
        ("image_column", choices.image),
        ("caption_column", choices.caption),
        ("label_column", choices.label),
    )


def find_image_column(names: Sequence[str], sample: Sequence[Mapping[str, Any]], what: str) -> str:
    """Returns the column with pictures or their file names.

    Raises:
        DataError: There is no such column, or several.
    """
    by_content = [name for name in names if _holds_pictures(name, sample)]
    by_name = [name for name in by_content or names if _plain(name) in _IMAGE_NAMES]
    found = by_content if len(by_content) == 1 else by_name or by_content
    image = _only(found, what, "pictures", "image_column")
    if image is None:
        raise DataError(
            f"{what}: no column holds file names of pictures. The columns are {_listed(names)}. "
            "Name it with image_column (--image-column)."
        )
    return image


def _holds_pictures(name: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether most values of a column are pictures or their file names."""
    values = [value for row in sample if (value := row.get(name)) not in (None, "")]
    return bool(values) and 2 * sum(map(looks_like_picture, values)) > len(values)


def _only(found: Sequence[str], what: str, content: str, option: str) -> str | None:
    if len(found) > 1:
        flag = "--" + option.replace("_", "-")
        raise DataError(
            f"{what}: {len(found)} columns could hold the {content}: {_listed(found)}. Name one "
            f"with {option} ({flag})."
        )
    return found[0] if found else None


def _is_named(name: str, known: frozenset[str]) -> bool:
    """Returns whether a name, or its last word as in `alt_text`, is a known one."""
    plain = _plain(name).rstrip("0123456789").rstrip("_")
    return plain in known or plain.rpartition("_")[2] in known


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
