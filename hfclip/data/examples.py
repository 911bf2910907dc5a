"""Reads a data set of any format, checks it, and divides it: `read_dataset`."""

from collections.abc import Sequence
from pathlib import Path

from hfclip.data.checks import check_pictures, find_long_captions
from hfclip.data.joining import Joined, join, note_copies, note_new_labels, note_shared
from hfclip.data.names import no_training
from hfclip.data.records import Choices, Dataset, Example, Findings, Skipped
from hfclip.data.skipped import check_skipped
from hfclip.data.sources import read_source
from hfclip.data.splits import describe, divide
from hfclip.errors import ArgumentError, DataError
from hfclip.hub.fetch import Access

__all__ = ["Dataset", "Example", "Skipped", "read_dataset"]


def read_dataset(
    source: str | Path,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
    validation: float = 0.1,
    seed: int = 0,
    max_skipped: float = 0.05,
    context_length: int = 77,
    access: Access | None = None,
    progress: bool = False,
) -> Dataset:
    """Reads pictures with captions, labels or both, and checks every picture.

    ======================  ======================================================================
    Source                  What is read
    ======================  ======================================================================
    Folder of folders       A folder for each class; or train, val, test with class folders.
    metadata.csv, .jsonl    In a folder with the pictures: file_name, and text or label.
    CSV, TSV, JSONL, JSON   A row for each picture or caption. Delimiter and columns are found.
    COCO captions           captions_*.json beside the folder of the pictures.
    Parquet                 Pictures as bytes, as a struct, or as paths; several files in a folder.
    WebDataset              One tar, a folder, or a pattern such as `data-{000..119}.tar`.
    hf:org/name             A dataset on the Hub in one of these formats; `@revision` at the end.
    ======================  ======================================================================

    Splits in the data are kept. Without a validation split, a part of train is divided off: see
    `hfclip.data.splits.divide`. A table that is named itself may name pictures anywhere. Paths in a
    folder, a Parquet file of a folder or a repository never leave that folder.

    Args:
        source: The data.
        image_column: The column of the pictures; in a tar, their ending.
        caption_column: The column of the captions; in a tar, an ending or a field of .json.
        label_column: The column of the labels; likewise. If only one of these two is given, the
            other is not looked for.
        delimiter: The character between the cells of a CSV file.
        validation: The share of train for validation if the data gives no validation split.
        seed: Another seed gives another validation split.
        max_skipped: The largest share of pictures or rows that may be skipped.
        context_length: The context length of the model, which decides what captions are too long.
        access: The settings for the Hub.
        progress: Whether to show a progress bar if standard error is a terminal.

    Returns:
        The checked data set. Pictures that cannot be decoded and rows without a caption or label
        are in `skipped`. Pictures with a caption that is too long are used, and are in `truncated`.

    Raises:
        DataError: The data is malformed or ambiguous, or too much of it is skipped.
        ArgumentError: A number is outside its range.
        HubError: A dataset cannot be downloaded.
    """
    _check_arguments(validation, max_skipped)
    choices = Choices(image_column, caption_column, label_column, delimiter)
    findings = read_source(source, choices, access or Access())
    checked, unreadable = check_pictures(findings.records, progress=progress)
    findings.skipped.extend(unreadable)
    check_skipped(findings.skipped, len(checked), max_skipped, str(source))
    findings.notes.extend(note_copies(checked))
    joined = join(checked)
    train, held_out, test = _splits(joined, str(source), validation, seed, findings)
    used = (*train, *held_out, *test)
    truncated, note = find_long_captions(used, context_length)
    findings.notes.extend([note] if note else [])
    if findings.skipped:
        findings.notes.append(f"Skipped {len(findings.skipped):,} pictures or rows.")
    labels = {example.label for example in used if example.label is not None}
    return Dataset(
        train,
        held_out,
        test,
        tuple(sorted(labels)) if all(example.label is not None for example in used) else None,
        tuple(findings.skipped),
        tuple(findings.notes),
        tuple(truncated),
    )


def _check_arguments(validation: float, max_skipped: float) -> None:
    if not 0 <= validation < 1:
        raise ArgumentError(f"validation is {validation}; expected at least 0 and less than 1.")
    if not 0 <= max_skipped <= 1:
        raise ArgumentError(f"max_skipped is {max_skipped}; expected a number from 0 to 1.")


def _splits(
    joined: Joined, source: str, share: float, seed: int, findings: Findings
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]:
    """Returns train, validation and test in their order, and adds notes on them."""
    if None in joined and len(joined) > 1:
        raise DataError(f"{source} gives a split for some pictures only. Give one for all or none.")
    rest = joined.get(None, []) + joined.get("train", [])
    if not rest:
        raise no_training(source, joined)
    train, held_out, test = rest, joined.get("validation", []), joined.get("test", [])
    origin = "given"
    if not held_out:
        train, held_out = divide(rest, share, seed)
        origin = f"divided off train by picture and seed {seed}"
    splits = tuple(tuple(sorted(split, key=_place)) for split in (train, held_out, test))
    notes = [f"train: {describe(splits[0])}."]
    notes.append(f"validation, {origin}: {describe(splits[1])}." if held_out else "No validation.")
    if test:
        notes.append(f"test, given: {describe(splits[2])}.")
    for name, split in (("validation", splits[1]), ("test", splits[2])):
        notes += [
            note
            for look in (note_shared, note_new_labels)
            if (note := look(splits[0], split, name)) is not None
        ]
    findings.notes.extend(notes)
    return splits[0], splits[1], splits[2]


def _place(example: Example) -> tuple[str, Sequence[str], str]:
    return example.digest, example.captions, example.label or ""
