import pytest
import torch
from torch import Tensor

import hfclip
from hfclip import zeroshot
from hfclip.zeroshot import ZeroShotClassifier


@pytest.fixture(scope="module")
def model() -> hfclip.CLIP:
    return hfclip.load("digits", device="cpu")[0]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def test_one_template_gives_the_probabilities_of_the_models_own_logits(
    model: hfclip.CLIP, images: Tensor
) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two", "three"], ["the digit {}"])
    logits, _ = model(
        images, hfclip.tokenize(["the digit one", "the digit two", "the digit three"])
    )
    assert torch.allclose(classifier.probabilities(images), logits.softmax(dim=-1), atol=1e-5)


@torch.no_grad()
def test_several_templates_are_averaged_on_the_sphere(model: hfclip.CLIP, images: Tensor) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two"], ["a {}", "{} {}"])
    features = model.encode_text(hfclip.tokenize(["a two", "two two"]))
    features /= features.norm(dim=-1, keepdim=True)
    mean = features.sum(dim=0)
    assert torch.allclose(classifier.weights[:, 1], mean / mean.norm(), atol=1e-6)


def test_labels_that_are_encoded_some_at_a_time_give_the_same(
    model: hfclip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, templates = ["one", "two", "three", "four"], ["a {}", "the digit {}", "{}"]
    together = ZeroShotClassifier(model, labels, templates)
    monkeypatch.setattr(zeroshot, "CAPTIONS", 5)
    apart = ZeroShotClassifier(model, labels, templates)
    assert together.weights.shape == (64, 4)
    assert torch.allclose(apart.weights, together.weights, atol=1e-6)


def test_an_optimized_model_gives_the_same_probabilities(
    model: hfclip.CLIP, images: Tensor
) -> None:
    labels, templates = ["one", "two", "three"], ["a {}", "the digit {}"]
    own = ZeroShotClassifier(model, labels, templates).probabilities(images)
    fast = ZeroShotClassifier(hfclip.optimize(model), labels, templates).probabilities(images)
    assert torch.allclose(fast, own, atol=1e-5)


def test_labels_are_ranked_best_first(model: hfclip.CLIP, images: Tensor) -> None:
    classifier = ZeroShotClassifier(model, ["one", "two", "three"])
    probabilities = classifier.probabilities(images)
    for row, guesses in zip(probabilities.tolist(), classifier.rank(images), strict=True):
        assert [guess.probability for guess in guesses] == sorted(row, reverse=True)
        assert all(row[classifier.labels.index(label)] == p for label, p in guesses)
    assert [len(guesses) for guesses in classifier.rank(images, top=2)] == [2, 2, 2]
    assert [len(guesses) for guesses in classifier.rank(images, top=9)] == [3, 3, 3]


def test_braces_in_a_label_are_left_alone(model: hfclip.CLIP) -> None:
    braces = ZeroShotClassifier(model, ["{0} and {x}"], ["a {}"])
    with torch.no_grad():
        expected = model.encode_text(hfclip.tokenize(["a {0} and {x}"]))[0]
    assert torch.allclose(braces.weights[:, 0], expected / expected.norm(), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], ["a {}"], "give at least one"),
        (["cat", " "], ["a {}"], "none empty"),
        (["cat", "dog", "cat"], ["a {}"], "twice: cat"),
        (["cat"], ["a photo"], "needs a {} where the label goes"),
        (["cat"], [], "needs a {}"),
        ("cat", ["a {}"], "lists of strings"),
    ],
)
def test_labels_that_make_no_classifier_are_refused(
    model: hfclip.CLIP, labels: list[str], templates: list[str], message: str
) -> None:
    with pytest.raises(hfclip.LabelError) as caught:
        ZeroShotClassifier(model, labels, templates)
    assert message in str(caught.value)
