"""The measurements against results by hand, and what they must not depend on."""

import json
from typing import Any

import pytest
import torch

import hfclip
from conversion.digits import WORDS
from hfclip.errors import ArgumentError, ImageError, LabelError, TrainingError
from hfclip.training.evaluation import evaluate
from hfclip.training.metrics import Metrics
from training.samples import TEMPLATE, Lookup, digits, example, number_of, numbered

AXES = {"a cat": (1.0, 0.0), "a dog": (0.0, 1.0)}


def measure(model: Any, examples: Any, labels: Any = None, batch_size: int = 64) -> Metrics:
    return evaluate(model, number_of, examples, labels, "a {}", batch_size=batch_size)


def test_accuracy_is_the_share_of_pictures_whose_label_is_first() -> None:
    model = Lookup([(2.0, 1.0), (1.0, 2.0), (3.0, 1.0)], AXES)
    examples = [
        numbered(0, label="cat"),
        numbered(1, label="cat"),
        numbered(1, label="cat", key="again.png"),
        numbered(2, label="dog"),
        numbered(1, label="dog"),
    ]
    found = measure(model, examples, ["dog", "cat"])
    assert (found.accuracy, found.count) == (0.4, 5)
    assert found.per_class == {"dog": 0.5, "cat": 1 / 3}
    assert list(found.per_class) == ["dog", "cat"]


def test_a_label_without_a_picture_is_a_wrong_answer_and_has_no_accuracy() -> None:
    model = Lookup([(1.0, 3.0)], AXES)
    found = measure(model, [numbered(0, label="cat")], ["cat", "dog"])
    assert (found.accuracy, found.per_class) == (0.0, {"cat": 0.0})


def test_equal_captions_pictures_and_several_captions_all_count_as_right() -> None:
    texts = {"one": (1.0, 0.0, 0.0), "two": (0.0, 1.0, 0.0), "three": (0.0, 0.0, 1.0)}
    model = Lookup([(9.0, 8.0, 1.0), (1.0, 2.0, 9.0)], texts)
    examples = [
        numbered(0, "two", "three"),  # "one" comes first, but belongs to the same picture
        numbered(0, "one", key="the same picture"),
        numbered(1, "two"),  # "three" comes first and is wrong
    ]
    found = measure(model, examples)
    assert found.accuracy is None
    assert found.image_to_text == {1: 0.5}
    # "one" finds picture 0, "two" one of its two pictures; "three" finds picture 1 first.
    assert found.text_to_image == {1: 2 / 3}
    assert found.count == 3


def test_recall_counts_right_answers_within_the_first_k() -> None:
    texts = {f"number {i}": tuple(float(i == j) for j in range(12)) for i in range(12)}
    # Picture i has its own caption at place i of the ranking.
    rows = []
    for i in range(12):
        order = [j for j in range(12) if j != i]
        order.insert(i, i)
        rows.append([20.0 - order.index(j) for j in range(12)])
    examples = [numbered(i, f"number {i}") for i in range(12)]
    found = measure(Lookup(rows, texts), examples)
    assert found.image_to_text == {1: 1 / 12, 5: 5 / 12, 10: 10 / 12}


def test_a_k_at_which_any_ranking_is_right_is_left_out() -> None:
    texts = {f"number {i}": (1.0, float(i)) for i in range(6)}
    model = Lookup([(1.0, 0.0)] * 5, texts)
    found = measure(model, [numbered(i % 5, f"number {i}") for i in range(6)])
    assert list(found.image_to_text) == [1, 5]  # of 6 captions
    assert list(found.text_to_image) == [1]  # of 5 pictures


def test_constant_features_are_never_right() -> None:
    texts = {f"a number {i}": (1.0, 1.0) for i in range(12)}
    model = Lookup([(1.0, 1.0)] * 12, texts)
    examples = [numbered(i, label=f"number {i}") for i in range(12)]
    found = measure(model, examples, [f"number {i}" for i in range(12)])
    assert found.accuracy == 0
    assert found.image_to_text == found.text_to_image == {1: 0, 5: 0, 10: 0}


def test_scores_that_differ_by_rounding_are_a_tie_and_a_tie_is_wrong() -> None:
    model = Lookup([(1.0, 1.0 - 1e-7), (1.0, 0.999)], AXES)
    examples = [numbered(0, label="cat"), numbered(1, label="cat")]
    assert measure(model, examples, ["cat", "dog"]).accuracy == 0.5


def test_the_result_does_not_depend_on_the_batch_size_or_on_autocast() -> None:
    model, preprocess = hfclip.load("digits", "cpu")
    examples = digits()[:100] + digits(turns=1)[:60]
    found = [
        evaluate(model, preprocess, examples, WORDS, TEMPLATE, batch_size=size)
        for size in (1, 7, 160)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].accuracy is not None
    assert 0.5 < found[0].accuracy < 0.8
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert evaluate(model, preprocess, examples, WORDS, TEMPLATE) == found[0]


def test_the_bundled_model_has_its_known_accuracy() -> None:
    """The same numbers were measured with another program: 98.89 % upright and 9.75 % turned."""
    model, preprocess = hfclip.load("digits", "cpu")
    upright = evaluate(model, preprocess, digits(), WORDS, TEMPLATE)
    turned = evaluate(model, preprocess, digits(turns=1), WORDS, TEMPLATE)
    assert upright.accuracy == pytest.approx(0.9889, abs=5e-5)
    assert turned.accuracy == pytest.approx(0.0975, abs=5e-5)
    # With one caption a label, both are the same question.
    assert upright.image_to_text[1] == upright.accuracy


def test_modes_gradients_and_parameters_are_as_before() -> None:
    model = Lookup([(1.0, 0.0), (float("nan"), 0.0)], AXES)
    model.train()
    model.inner.eval()
    model.logit_scale.requires_grad_(False)
    for numbers, fails in (([0], False), ([1], True)):
        examples = [numbered(number, label="cat") for number in numbers]
        try:
            measure(model, examples, ["cat", "dog"])
        except TrainingError:
            assert fails
        assert (model.training, model.inner.training) == (True, False)
        assert (torch.is_grad_enabled(), model.logit_scale.requires_grad) == (True, False)
    model.inner.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measure(model, [numbered(0, label="cat")], ["cat", "dog"])
    assert model.inner.training
    assert model.modes == [(False, False, False)] * 3


@pytest.mark.parametrize("row", [(float("nan"), 1.0), (float("inf"), 1.0), (0.0, 0.0)])
def test_features_without_a_direction_are_an_error(row: tuple[float, float]) -> None:
    examples = [numbered(0, label="cat"), numbered(1, label="cat", key="odd.png")]
    model = Lookup([(1.0, 0.0), row], AXES)
    with pytest.raises(TrainingError, match=r"the picture odd\.png .* are NaN, infinite or zero"):
        measure(model, examples, ["cat", "dog"], batch_size=1)
    model = Lookup([(1.0, 0.0)] * 2, {**AXES, "a dog": row})
    with pytest.raises(TrainingError, match=r"the labels|the caption"):
        measure(model, examples, ["cat", "dog"])


def test_unknown_labels_and_missing_captions_are_named() -> None:
    model = Lookup([(1.0, 0.0)], AXES)
    with pytest.raises(LabelError, match=r"0\.png has the label 'cow'; expected one of the 2"):
        measure(model, [numbered(0, label="cow")], ["cat", "dog"])
    with pytest.raises(LabelError, match=r"0\.png has no label"):
        measure(model, [numbered(0, "a cat")], ["cat", "dog"])
    with pytest.raises(LabelError, match=r"0\.png has neither a caption nor a label"):
        measure(model, [numbered(0)])
    with pytest.raises(ArgumentError, match="no picture"):
        measure(model, [])


def test_an_unreadable_picture_is_named() -> None:
    model = Lookup([(1.0, 0.0)], AXES)
    with pytest.raises(ImageError, match=r"^bad\.png: "):
        measure(model, [example("bad.png", b"no picture", label="cat")], ["cat", "dog"])


def test_metrics_survive_json() -> None:
    metrics = Metrics(0.75, {"cat": 1.0, "dog": 0.5}, {1: 0.25, 5: 1 / 3}, {1: 0.1}, 12)
    assert Metrics.from_dict(json.loads(json.dumps(metrics.to_dict()))) == metrics
    without = Metrics(None, {}, {1: 0.25}, {1: 0.1}, 12)
    assert Metrics.from_dict(json.loads(json.dumps(without.to_dict()))) == without


def test_the_headline_is_the_accuracy_or_the_mean_recall() -> None:
    assert Metrics(0.75, {}, {1: 0.25}, {1: 0.1}, 12).headline == ("accuracy", 0.75)
    assert Metrics(None, {}, {1: 0.25, 5: 1.0}, {1: 0.75}, 12).headline == ("recall@1", 0.5)
    shares = Metrics(None, {}, {1: 0.25, 5: 1.0}, {1: 0.75}, 12).shares()
    assert list(shares.items()) == [
        ("recall@1", 0.5),
        ("image to text recall@1", 0.25),
        ("image to text recall@5", 1.0),
        ("text to image recall@1", 0.75),
    ]
