"""What a data set consists of: pictures with their captions and labels."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hfclip.data.references import ImageRef
from hfclip.errors import DataError

Split: TypeAlias = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Example:
    """A picture of a data set, with its captions, its label, or both.

    Attributes:
        key: A readable name: the path relative to the source, or a row such as "table.csv:12".
        digest: The sha256 of the picture's bytes, in hexadecimal.
        captions: The distinct captions in alphabetical order; empty if there is only a label.
        label: The name of the class, or None.
        image: A reference that reads the picture's bytes: `image.read()`.
    """

    key: str
    digest: str
    captions: tuple[str, ...]
    label: str | None
    image: ImageRef


@dataclass(frozen=True)
class Skipped:
    """A picture or a row that is not used, or not as a whole, and the reason."""

    key: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A checked data set. Each split is sorted by (digest, captions, label).

    The same pictures, captions and labels in another format give the same splits in the same
    order. Only the keys and references differ.

    Attributes:
        train: The examples for training.
        validation: The examples for choosing and measuring during training.
        test: The examples for one measurement at the end; empty if the data has no such split.
        labels: The distinct class names in alphabetical order, or None if an example has no label.
        skipped: The pictures and rows that are not used.
        notes: What was found and decided, in words.
        truncated: The pictures that are used with a part of a caption.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...] | None
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    truncated: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Record:
    """A picture as a format lists it. Its bytes were not read yet.

    Attributes:
        key: A readable name.
        image: A reference to the picture.
        captions: The captions, not empty and without white space around them.
        label: The name of the class, or None.
        split: The split that the data gives, or None.
    """

    key: str
    image: ImageRef
    captions: tuple[str, ...]
    label: str | None
    split: Split | None


@dataclass
class Findings:
    """What the reader of a format found: the records, the rows that it skipped, and notes."""

    records: list[Record] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def skip(self, key: str, reason: str) -> None:
        """Adds a row that is not used."""
        self.skipped.append(Skipped(key, reason))


@dataclass(frozen=True)
class Choices:
    """What a person chooses where the content of the data is ambiguous. None means: find it.

    Attributes:
        image: The column of the pictures.
        caption: The column of the captions.
        label: The column of the class names.
        delimiter: The character between the cells of a CSV file.
    """

    image: str | None = None
    caption: str | None = None
    label: str | None = None
    delimiter: str | None = None


class UnusableRowError(DataError):
    """A row of the data cannot be used. It is skipped, with the message as the reason."""
