"""Joins the records of one picture to one example, so that every format gives the same examples."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from hfclip.data.checks import Checked
from hfclip.data.records import Example, Split

# The examples of each split; None if the data gives no split for them.
Joined: TypeAlias = dict[Split | None, list[Example]]


def join(checked: Iterable[Checked]) -> Joined:
    """Joins the records with the same bytes, label and split.

    An example has the distinct captions of its records in alphabetical order, and the key of the
    first record. A format that lists a picture once per caption gives the same examples as one
    that lists it once.
    """
    groups: dict[tuple[Split | None, str, str | None], list[Checked]] = {}
    for item in checked:
        groups.setdefault((item.record.split, item.digest, item.record.label), []).append(item)
    joined: Joined = {}
    for (split, digest, label), items in groups.items():
        captions = {caption for item in items for caption in item.record.captions}
        first = items[0].record
        example = Example(first.key, digest, tuple(sorted(captions)), label, first.image)
        joined.setdefault(split, []).append(example)
    return joined


def note_copies(checked: Sequence[Checked]) -> list[str]:
    """Returns notes on pictures that occur more than once, and on copies with different labels."""
    by_digest: dict[tuple[Split | None, str], dict[tuple[object, str | None], Checked]] = {}
    for item in checked:
        record = item.record
        group = by_digest.setdefault((record.split, item.digest), {})
        group.setdefault((record.image, record.label), item)
    notes = []
    copied = [list(group.values()) for group in by_digest.values() if len(group) > 1]
    same = [items for items in copied if len({item.record.label for item in items}) < len(items)]
    if same:
        notes.append(
            f"{len(same):,} pictures occur more than once and count once, such as {_keys(same[0])}."
        )
    different = [items for items in copied if len({item.record.label for item in items}) > 1]
    if different:
        pair = {item.record.label: item for item in reversed(different[0])}
        notes.append(
            f"{len(different):,} identical pictures have different labels, such as "
            f"{_keys(list(reversed(pair.values())))}. All of them are used."
        )
    return notes


def note_shared(train: Sequence[Example], other: Sequence[Example], name: str) -> str | None:
    """Returns a note on pictures that are in two splits, or None if there is none.

    Args:
        train: The examples for training.
        other: The examples of another split.
        name: The name of the other split.
    """
    known = {example.digest: example.key for example in train}
    shared = {example.digest: example.key for example in other if example.digest in known}
    if not shared:
        return None
    digest, key = next(iter(shared.items()))
    return (
        f"{len(shared):,} identical pictures are in train and in {name}, such as {known[digest]} "
        f"and {key}. Results on {name} are too good by these."
    )


def note_new_labels(train: Sequence[Example], other: Sequence[Example], name: str) -> str | None:
    """Returns a note on labels of another split that training never shows, or None."""
    known = {example.label for example in train}
    new = Counter(item.label for item in other if item.label not in known and item.label)
    if not new:
        return None
    labels = ", ".join(sorted(new)[:5])
    return f"{len(new):,} labels of {name} are not in train: {labels}."


def _keys(items: Sequence[Checked]) -> str:
    return " and ".join(item.record.key for item in items[:2])
