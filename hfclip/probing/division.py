"""Divides labelled rows into training, validation and test. Equal contents are never on two sides.

The division depends on the contents, the labels and the seed alone, not on names or the order.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.data.records import Split
from hfclip.errors import DataError

Indices = NDArray[np.int64]


class Rows(NamedTuple):
    """Labelled rows. M is their number.

    Attributes:
        targets: The index of each row's label, int64 (M,).
        contents: A number for the content of each row, int64 (M,). Equal contents are equal.
        draws: A random number for the content of each row, uint64 (M,).
    """

    targets: Indices
    contents: Indices
    draws: NDArray[np.uint64]

    def take(self, rows: Indices) -> "Rows":
        """Returns some of the rows."""
        return Rows(self.targets[rows], self.contents[rows], self.draws[rows])


class Division(NamedTuple):
    """The indices of rows on each side, int64, ascending.

    Attributes:
        train: The rows for training.
        validation: The rows that choose the regularization.
        test: The rows that measure the result.
        given: The names of the splits that were given. The others are divided off.
        left_out: The number of rows that are on no side, because a later side has their content.
    """

    train: Indices
    validation: Indices
    test: Indices
    given: tuple[str, ...]
    left_out: int


def drawn(digests: NDArray[np.uint8], targets: Indices, seed: int) -> Rows:
    """Returns rows whose random numbers come from their contents and a seed.

    Args:
        digests: The sha256 of each content, uint8 (M, 32).
        targets: The index of each row's label, int64 (M,).
        seed: Another seed gives other numbers.
    """
    distinct, contents = np.unique(digests, axis=0, return_inverse=True)
    draws = np.array([_draw(digest.tobytes(), seed) for digest in distinct], np.uint64)
    contents = contents.reshape(-1).astype(np.int64)
    return Rows(targets, contents, draws[contents])


def _draw(digest: bytes, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest.hex()}".encode()).digest()[:8], "big")


def divide(
    rows: Rows, splits: Sequence[Split | None], *, test: float = 0.2, validation: float = 0.1
) -> Division:
    """Divides rows as their splits say, and divides off what these lack.

    Without splits, a share of each class is divided off for the test, and of the rest for
    validation. With train and test, validation is divided off train. With train and validation and
    no test, the given validation is the test, so that what measures the result has chosen nothing.

    A content that is on two sides stays on the last of train, validation and test.

    Args:
        rows: M rows.
        splits: The split of each row, or None: M entries, or none at all.
        test: The share of the contents of each class for the test.
        validation: The share of the contents of each class in training for validation.

    Raises:
        DataError: Some rows have a split and others not, or a side has no row.
    """
    named = {split for split in splits if split}
    if not named - {"train"}:
        everything = np.arange(len(rows.targets))
        held_out = part_of_each_class(rows, test)
        return _with_validation(rows, everything[~held_out], everything[held_out], (), validation)
    if None in splits:
        raise DataError(
            f"{sum(split is None for split in splits):,} of {len(splits):,} labelled pictures are "
            f"in no split, the others in {', '.join(sorted(named))}. Put all of them in a split, "
            "or divide them without the given splits (--split random)."
        )
    sides = np.array(splits, dtype=object)
    given = {name: np.flatnonzero(sides == name) for name in ("train", "validation", "test")}
    if not len(given["train"]):
        raise DataError(
            f"The pictures are in the splits {', '.join(sorted(named))}, and none is in train."
        )
    if not len(given["test"]):
        return _with_validation(
            rows, given["train"], given["validation"], ("train", "validation"), validation
        )
    if not len(given["validation"]):
        return _with_validation(rows, given["train"], given["test"], ("train", "test"), validation)
    chosen = _without(rows, given["validation"], given["test"])
    train = _without(rows, given["train"], np.concatenate([chosen, given["test"]]))
    left_out = len(sides) - len(train) - len(chosen) - len(given["test"])
    names = ("train", "validation", "test")
    return _checked(Division(train, chosen, given["test"], names, left_out))


def _with_validation(
    rows: Rows, train: Indices, test: Indices, given: tuple[str, ...], share: float
) -> Division:
    kept = _without(rows, train, test)
    chosen = part_of_each_class(rows.take(kept), share)
    left_out = len(train) - len(kept)
    return _checked(Division(kept[~chosen], kept[chosen], test, given, left_out))


def _without(rows: Rows, some: Indices, others: Indices) -> Indices:
    """Returns those of some rows whose content no other row has."""
    return some[~np.isin(rows.contents[some], rows.contents[others])]


def part_of_each_class(rows: Rows, share: float) -> NDArray[np.bool_]:
    """Chooses a share of the contents of each class, at random, and all rows with them.

    At least one content of a class is chosen, and at least one is not. So a class with one content
    is not chosen. A content with several labels counts for the first.

    Args:
        rows: M rows.
        share: The share, from 0 to 1.

    Returns:
        Whether each row is chosen, bool (M,).
    """
    contents, first = np.unique(rows.contents, return_index=True)
    chosen = [
        members[: min(max(1, round(share * len(members))), len(members) - 1)]
        for members in _by_class(rows, first)
    ]
    return np.isin(rows.contents, contents[np.concatenate([*chosen, np.empty(0, np.int64)])])


def few_of_each_class(rows: Rows, count: int) -> Indices:
    """Returns the index of one row for each of at most `count` contents of each class, at random.

    Returns:
        Indices into the rows, int64, ascending.
    """
    _, first = np.unique(rows.contents, return_index=True)
    chosen = [first[members[:count]] for members in _by_class(rows, first)]
    return np.sort(np.concatenate([*chosen, np.empty(0, np.int64)]))


def _by_class(rows: Rows, first: Indices) -> list[Indices]:
    """Returns the indices of the contents of each class, in the order of their random numbers."""
    targets = rows.targets[first]
    order = np.lexsort((rows.contents[first], rows.draws[first], targets))
    _, starts = np.unique(targets[order], return_index=True)
    return list(np.split(order, starts[1:])) if len(order) else []


def _checked(division: Division) -> Division:
    for name, rows in (("training", division.train), ("test", division.test)):
        if not len(rows):
            raise DataError(
                f"No picture is left for the {name}: each content is used on one side. Add "
                "pictures, or divide them without the given splits (--split random)."
            )
    return division
