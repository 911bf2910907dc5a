"""Trains a classifier on rows of a collection, with the regularization chosen on validation."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.errors import ArgumentError
from hfclip.probing.division import Indices, drawn, part_of_each_class
from hfclip.probing.regression import (
    DEFAULT_C,
    Quality,
    Solution,
    Targets,
    Vectors,
    best_c,
    check_installed,
    fit,
    folds_of,
    measure,
)

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings

# The folds of a cross-validation.
FOLDS = 4

OnFit = Callable[[], object]


class Trained(NamedTuple):
    """A trained classifier.

    Attributes:
        solution: The classifier.
        c: The inverse regularization.
        validation: The accuracy on validation with this regularization, or None without any.
        rows: The number of rows that it was trained on.
    """

    solution: Solution
    c: float
    validation: float | None
    rows: int


def contents_of(embeddings: "Embeddings") -> NDArray[np.uint8]:
    """Returns a digest of the content of each row, uint8 (N, 32).

    Where the collection does not know the content, equal embeddings count as equal contents.
    """
    digests = embeddings.digests(np.arange(len(embeddings)))
    for row in np.flatnonzero(~digests.any(axis=1)).tolist():
        digest = hashlib.sha256(embeddings.vectors[row].tobytes()).digest()
        digests[row] = np.frombuffer(digest, np.uint8)
    return digests


def train(
    embeddings: "Embeddings", targets: Targets, *, c: float | None, validation: float, seed: int
) -> Trained:
    """Trains on all rows. A part of each class is divided off to choose the regularization.

    Args:
        embeddings: M rows.
        targets: The class of each row, int64 (M,).
        c: The inverse regularization. None searches it.
        validation: The share of each class for the search.
        seed: Another seed divides off another part.
    """
    check_installed()
    vectors = embeddings.vectors
    if c is not None:
        check_c(c)
        return Trained(fit(vectors, targets, c), c, None, len(targets))
    rows = drawn(contents_of(embeddings), targets, seed)
    chosen = part_of_each_class(rows, validation)
    return train_with(vectors, targets, np.flatnonzero(~chosen), np.flatnonzero(chosen))


def train_with(
    vectors: Vectors,
    targets: Targets,
    train_rows: Indices,
    validation_rows: Indices,
    on_fit: OnFit | None = None,
) -> Trained:
    """Chooses the regularization on validation, then trains on training and validation together.

    Args:
        vectors: float32 (M, D).
        targets: int64 (M,).
        train_rows: The rows for training.
        validation_rows: The rows for validation. Without any, the regularization is `DEFAULT_C`.
        on_fit: Called after each fit.
    """
    done = on_fit or _nothing
    both = np.sort(np.concatenate([train_rows, validation_rows]))

    def quality(c: float) -> Quality:
        solution = fit(vectors[train_rows], targets[train_rows], c)
        done()
        return measure(solution, vectors[validation_rows], targets[validation_rows])

    accuracy: float | None = None
    c = DEFAULT_C
    if len(validation_rows):
        c, found = best_c(quality)
        accuracy = found.right / found.rows
    solution = fit(vectors[both], targets[both], c)
    done()
    return Trained(solution, c, accuracy, len(both))


def train_few(vectors: Vectors, targets: Targets, on_fit: OnFit | None = None) -> Trained:
    """Trains on few rows. The regularization is chosen by cross-validation within them.

    With one row of each class there is nothing to choose with: it is then `DEFAULT_C`.

    Args:
        vectors: float32 (M, D).
        targets: int64 (M,).
        on_fit: Called after each regularization that was tried, and at the end.
    """
    done = on_fit or _nothing
    folds = folds_of(targets, FOLDS)

    def quality(c: float) -> Quality:
        total = Quality(0, 0.0, 0)
        for fold in folds:
            solution = fit(vectors[~fold], targets[~fold], c)
            total = total.plus(measure(solution, vectors[fold], targets[fold]))
        done()
        return total

    accuracy: float | None = None
    c = DEFAULT_C
    if folds:
        c, found = best_c(quality)
        accuracy = found.right / found.rows
    solution = fit(vectors, targets, c)
    done()
    return Trained(solution, c, accuracy, len(targets))


def check_c(c: float) -> None:
    """Raises ArgumentError if an inverse regularization is not positive and finite."""
    if not 0 < c < float("inf"):
        raise ArgumentError(f"c is {c}; expected a positive number.")


def _nothing() -> None:
    """Does nothing."""
