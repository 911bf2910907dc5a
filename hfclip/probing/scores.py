"""Counts how many guesses are right: in all, of each class, and which classes are confused."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The pairs of classes that are kept.
_PAIRS = 20


class Count(NamedTuple):
    """How many rows of a class were guessed right, of how many."""

    right: int
    total: int


class Confusion(NamedTuple):
    """How often a class was taken for another one."""

    label: str
    guess: str
    pictures: int


class Scores(NamedTuple):
    """How good a classifier is on test rows.

    Attributes:
        accuracy: The share of rows whose first label is right.
        per_class: The right and all rows of each class that the test has, by the label.
        confusions: The most frequent confusions, most frequent first.
    """

    accuracy: float
    per_class: Mapping[str, Count]
    confusions: Sequence[Confusion]

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores as values for JSON."""
        return {
            "accuracy": self.accuracy,
            "per_class": {label: count._asdict() for label, count in self.per_class.items()},
            "confusions": [confusion._asdict() for confusion in self.confusions],
        }


def scores_of(
    targets: NDArray[np.int64], guesses: NDArray[np.int64], labels: Sequence[str]
) -> Scores:
    """Scores guesses.

    Args:
        targets: The index of the right label of each row, int64 (T,).
        guesses: The index of the guessed label of each row, int64 (T,).
        labels: The labels.
    """
    right = targets == guesses
    totals = np.bincount(targets, minlength=len(labels)).tolist()
    hits = np.bincount(targets[right], minlength=len(labels)).tolist()
    per_class = {
        label: Count(hit, total)
        for label, hit, total in zip(labels, hits, totals, strict=True)
        if total
    }
    pairs, counts = np.unique(
        np.stack([targets[~right], guesses[~right]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:_PAIRS]
    confusions = [
        Confusion(labels[pairs[place, 0]], labels[pairs[place, 1]], int(counts[place]))
        for place in order.tolist()
    ]
    return Scores(float(right.mean()), per_class, confusions)
