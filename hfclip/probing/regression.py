"""Logistic regression with the regularization chosen as in the paper of CLIP.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
appendix A.3: L-BFGS of scikit-learn with at most 1,000 iterations, and an L2 regularization from
1e-6 to 1e6 in 96 logarithmic steps, found by a search that halves the interval around the best.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.errors import DataError, LabelError

ITERATIONS = 1_000
# The exponents of the regularization: 10 ** (step / 8) for the steps from -48 to 48.
_PER_DECADE, _LARGEST = 8, 48
# The steps between the first candidates: 1e-6, 1e-4, ..., 1e6.
_COARSE = 16
# The most fits of a search: 7 candidates, then 2 for each of the 4 times that the steps are halved.
FITS = 15
# For one picture of each class, nothing is left to choose with: the value of OpenAI's README.
DEFAULT_C = 0.316

Vectors = NDArray[np.float32]
Targets = NDArray[np.int64]


class Solution(NamedTuple):
    """A fitted logistic regression over K classes. The logits are `vectors @ weight.T + bias`.

    Attributes:
        classes: The targets, int64 (K,), ascending.
        weight: float32 (K, D).
        bias: float32 (K,).
        converged: Whether L-BFGS ended before the limit of iterations.
    """

    classes: Targets
    weight: Vectors
    bias: NDArray[np.float32]
    converged: bool


class Quality(NamedTuple):
    """How well a regularization does on validation.

    Attributes:
        right: The number of rows whose first class is right.
        loss: The sum of the cross entropies of rows whose class was in training.
        rows: The number of rows.
    """

    right: int
    loss: float
    rows: int

    def plus(self, other: "Quality") -> "Quality":
        """Returns the quality on these and other rows."""
        return Quality(self.right + other.right, self.loss + other.loss, self.rows + other.rows)


def check_installed() -> None:
    """Checks that scikit-learn is installed.

    Raises:
        DataError: It is not.
    """
    try:
        import sklearn  # noqa: F401, PLC0415
    except ImportError as error:
        raise DataError('A probe needs scikit-learn: pip install "hfclip[probe]"') from error


def fit(vectors: Vectors, targets: Targets, c: float) -> Solution:
    """Fits a logistic regression with scikit-learn, in float64.

    Args:
        vectors: Embeddings, float32 (M, D).
        targets: Their classes, int64 (M,).
        c: The inverse of the L2 regularization: the loss is c times the sum of the cross entropies,
            plus half the sum of the squared weights. The bias is not regularized.

    Raises:
        DataError: scikit-learn is not installed.
        LabelError: There are fewer than two classes.
    """
    check_installed()
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    classes = np.unique(targets)
    if len(classes) < 2:
        raise LabelError(f"There are {len(classes)} classes for training; expected two or more.")
    model = LogisticRegression(C=c, max_iter=ITERATIONS, solver="lbfgs")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(vectors.astype(np.float64), targets)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    weight, bias = model.coef_, model.intercept_
    if len(classes) == 2:  # scikit-learn has one logit, the difference of two
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Solution(classes, weight.astype(np.float32), bias.astype(np.float32), converged)


def log_probabilities(
    vectors: Vectors, weight: Vectors, bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the logarithm of the probability of each class: (M, D) -> (M, K) float32."""
    logits = vectors @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def measure(solution: Solution, vectors: Vectors, targets: Targets) -> Quality:
    """Measures a solution on rows: vectors float32 (M, D), targets int64 (M,)."""
    logs = log_probabilities(vectors, solution.weight, solution.bias)
    right = int((solution.classes[logs.argmax(axis=1)] == targets).sum())
    known = np.flatnonzero(np.isin(targets, solution.classes))
    columns = np.searchsorted(solution.classes, targets[known])
    return Quality(right, -float(logs[known, columns].sum(dtype=np.float64)), len(targets))


def best_c(quality: Callable[[float], Quality]) -> tuple[float, Quality]:
    """Finds the inverse regularization with the most right rows by the search of the paper.

    Among equal ones it takes the lower cross entropy, then the stronger regularization.

    Args:
        quality: Measures an inverse regularization. It is called at most `FITS` times.

    Returns:
        The inverse regularization and its quality.
    """
    found: dict[int, Quality] = {}

    def try_step(step: int) -> None:
        if abs(step) <= _LARGEST and step not in found:
            found[step] = quality(_c(step))

    def best() -> int:
        return min(found, key=lambda step: (-found[step].right, found[step].loss, step))

    for step in range(-_LARGEST, _LARGEST + 1, _COARSE):
        try_step(step)
    width = _COARSE
    while width > 1:
        width //= 2
        peak = best()
        try_step(peak - width)
        try_step(peak + width)
    return _c(best()), found[best()]


def _c(step: int) -> float:
    return float(10 ** (step / _PER_DECADE))


def folds_of(targets: Targets, most: int) -> Sequence[NDArray[np.bool_]]:
    """Divides rows into folds that each have about the same number of rows of each class.

    Args:
        targets: The classes, int64 (M,). Rows of a class are taken in their order.
        most: The largest number of folds. It is lowered to the rows of the largest class.

    Returns:
        For each fold which rows belong to it, bool (M,). None if there would be one fold, or fewer
        than two classes outside a fold.
    """
    places = np.empty(len(targets), np.int64)
    for target in np.unique(targets):
        rows = np.flatnonzero(targets == target)
        places[rows] = np.arange(len(rows))
    count = min(most, int(places.max()) + 1)
    folds = [places % count == fold for fold in range(count)]
    if count < 2 or any(len(np.unique(targets[~fold])) < 2 for fold in folds):
        return []
    return folds
