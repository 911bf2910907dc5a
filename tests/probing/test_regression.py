"""The fit and the search of the regularization."""

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hfclip.errors import DataError, LabelError
from hfclip.probing.regression import (
    FITS,
    Quality,
    Targets,
    Vectors,
    best_c,
    fit,
    folds_of,
    log_probabilities,
    measure,
)


def clusters(classes: int, count: int = 30, seed: int = 0) -> tuple[Vectors, Targets]:
    """Returns rows around a centre for each class, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, 8))
    targets = np.arange(classes * count) % classes
    vectors = centres[targets] + rng.standard_normal((classes * count, 8))
    return vectors.astype(np.float32), targets.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("c", [0.01, 3.0])
def test_a_fit_gives_the_probabilities_of_scikit_learn(classes: int, c: float) -> None:
    vectors, targets = clusters(classes)
    solution = fit(vectors, targets * 10, c)
    model = LogisticRegression(C=c, max_iter=1000).fit(vectors.astype(np.float64), targets)
    logs = log_probabilities(vectors, solution.weight, solution.bias)
    np.testing.assert_allclose(np.exp(logs), model.predict_proba(vectors), atol=1e-5)
    assert solution.classes.tolist() == [10 * place for place in range(classes)]
    assert solution.weight.shape == (classes, 8)
    assert solution.converged


def test_the_quality_counts_right_rows_and_sums_cross_entropies() -> None:
    vectors, targets = clusters(3)
    solution = fit(vectors, targets, 1.0)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(vectors.astype(np.float64), targets)
    others, truth = clusters(3, seed=1)
    truth[:5] = 7  # a class that was not in training is never right, and has no cross entropy
    quality = measure(solution, others, truth)
    assert quality.right == int((model.predict(others)[5:] == truth[5:]).sum())
    chances = model.predict_proba(others)[np.arange(5, 90), truth[5:]]
    assert quality.loss == pytest.approx(-np.log(chances).sum(), rel=1e-4)
    assert quality.rows == 90


@pytest.mark.parametrize("peak", [-48, -47, -17, 0, 1, 5, 23, 48])
def test_the_search_finds_the_peak_in_steps_of_an_eighth_of_a_decade(peak: int) -> None:
    tried: list[float] = []

    def quality(c: float) -> Quality:
        tried.append(c)
        return Quality(1000 - abs(round(8 * np.log10(c)) - peak), 0.0, 1000)

    c, found = best_c(quality)
    assert c == pytest.approx(10 ** (peak / 8))
    assert found.right == 1000
    assert len(tried) == len(set(tried)) <= FITS
    assert [round(8 * np.log10(one)) for one in tried[:7]] == [-48, -32, -16, 0, 16, 32, 48]


def test_among_equal_accuracies_the_lower_loss_then_the_stronger_regularization_is_taken() -> None:
    c, _ = best_c(lambda c: Quality(10, abs(np.log10(c) - 1.5), 10))
    assert c == pytest.approx(10**1.5)
    c, _ = best_c(lambda _: Quality(10, 0.0, 10))
    assert c == pytest.approx(1e-6)


def test_folds_have_each_class_and_single_rows_stay() -> None:
    folds = folds_of(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2]), 4)
    assert np.stack(folds).sum(axis=0).tolist() == [1] * 10
    assert [fold.tolist().index(True) for fold in folds] == [0, 1, 2, 3]
    assert [int(fold[:5].sum()) for fold in folds] == [2, 1, 1, 1]
    assert len(folds_of(np.array([0, 0, 1, 1]), 4)) == 2
    assert folds_of(np.array([0, 1, 2]), 4) == []
    assert folds_of(np.array([0, 0, 1]), 4) == []  # one class would be left


def test_one_class_and_a_missing_package_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clusters(2)
    with pytest.raises(LabelError, match="1 classes for training; expected two or more"):
        fit(vectors, np.zeros(len(vectors), np.int64), 1.0)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    message = r'^A probe needs scikit-learn: pip install "hfclip\[probe\]"$'
    with pytest.raises(DataError, match=message):
        fit(vectors, np.zeros(len(vectors), np.int64), 1.0)


def test_a_fit_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfclip.probing.regression.ITERATIONS", 2)
    assert not fit(*clusters(3), 100.0).converged
