"""The measurements at the end of a fine-tune."""

from typing import Any

import pytest
from coloured import COLOURS, example, small_model

from hfclip.data.records import Dataset
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of
from hfclip.model import CLIP
from hfclip.training.evaluation import evaluate
from hfclip.training.exam import Exam, conclude


def exam_with(test_pictures: int) -> Exam:
    """Returns an exam of 6 pictures for choices, 3 not to be forgotten, and a test split."""
    *own, kept = ([example(label, 10 * place + seed) for label in COLOURS for seed in range(count)]
                  for place, count in enumerate((2, test_pictures, 1)))  # fmt: skip
    labels, nothing = tuple(sorted(COLOURS)), ()
    data = Dataset(nothing, tuple(own[0]), tuple(own[1]), labels, nothing, nothing)
    keep = Dataset(tuple(kept), nothing, nothing, labels, nothing, nothing)
    return Exam(data, keep, transform_of(Recipe.of(small_model().config)), "a {} picture")


@pytest.mark.parametrize("test_pictures", [0, 1])
def test_no_weights_are_measured_twice_on_the_same_pictures(
    test_pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, base, exam = small_model(), small_model().state_dict(), exam_with(test_pictures)
    model.load_state_dict({**base, "visual.proj": base["visual.proj"].flip(1)})
    start = small_model()
    known = {0.0: exam.validation(start), 1.0: exam.validation(model)}
    expected = exam.last(start), exam.last(model)
    seen: list[CLIP] = []

    def counted(model: CLIP, *values: Any) -> Any:
        seen.append(model)
        return evaluate(model, *values)

    monkeypatch.setattr("hfclip.training.exam.evaluate", counted)
    final = conclude(model, base, exam, known, mix=True)
    # Nine mixtures on two data sets, and each of the weights at the end on the test split.
    at_the_end = len({0.0, 1.0, final.alpha}) if test_pictures else 0
    assert len(seen) == 9 * 2 + at_the_end
    assert (final.before, final.tuned) == expected
    assert final.before != final.tuned
    monkeypatch.undo()
    model.load_state_dict(dict(final.weights))
    assert final.mixed == exam.last(model)
    assert (final.alphas[0.0], final.alphas[1.0]) == (known[0.0], known[1.0])
    assert final.alphas[final.alpha] == exam.validation(model)


def test_without_mixing_nothing_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exam = exam_with(0)
    known = {0.0: exam.validation(small_model()), 1.0: exam.validation(small_model())}
    monkeypatch.setattr("hfclip.training.exam.evaluate", None)
    final = conclude(small_model(), small_model().state_dict(), exam, known, mix=False)
    assert (final.before, final.tuned, final.mixed) == (known[0.0], known[1.0], known[1.0])
