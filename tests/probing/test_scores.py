"""Accuracies and confusions, by hand."""

import numpy as np

from hfclip.probing.scores import Confusion, Count, scores_of


def test_scores_count_classes_and_confusions() -> None:
    targets = np.array([0, 0, 0, 1, 1, 3])
    guesses = np.array([0, 1, 1, 1, 2, 3])
    scores = scores_of(targets, guesses, ["a", "b", "c", "d"])
    assert scores.accuracy == 0.5
    assert scores.per_class == {"a": Count(1, 3), "b": Count(1, 2), "d": Count(1, 1)}
    assert scores.confusions == [Confusion("a", "b", 2), Confusion("b", "c", 1)]
    assert scores.to_dict()["confusions"][0] == {"label": "a", "guess": "b", "pictures": 2}


def test_perfect_guesses_have_no_confusions() -> None:
    scores = scores_of(np.array([1, 0]), np.array([1, 0]), ["a", "b"])
    assert (scores.accuracy, scores.confusions) == (1.0, [])
