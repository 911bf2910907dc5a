"""Zero-shot classification of image features that were computed before."""

import pytest
import torch
from digit_folder import digit

import hfclip
from hfclip.errors import ArgumentError, ShapeError


@pytest.fixture(scope="module")
def classifier() -> hfclip.ZeroShotClassifier:
    model, preprocess = hfclip.load("digits", device="cpu")
    labels = ["zero", "one", "two", "seven"]
    return hfclip.ZeroShotClassifier(model, labels, ["a handwritten {}"], preprocess)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    _, preprocess = hfclip.load("digits", device="cpu")
    return torch.stack([preprocess(digit(number)) for number in range(8)])


def test_features_get_the_probabilities_of_their_pictures(
    classifier: hfclip.ZeroShotClassifier, pixels: torch.Tensor
) -> None:
    features = classifier.model.encode_image(pixels).detach()
    expected = classifier.probabilities(pixels)
    assert torch.equal(classifier.feature_probabilities(features), expected)
    assert classifier.rank_features(features, 2) == classifier.rank(pixels, 2)
    # Features of any length and dtype are normalized.
    longer = classifier.feature_probabilities(features * 7)
    torch.testing.assert_close(longer, expected, rtol=1e-4, atol=1e-6)
    half = classifier.feature_probabilities(features.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=5e-3)


def test_wrong_features_are_named(classifier: hfclip.ZeroShotClassifier) -> None:
    width = len(classifier.weights)
    for features in (
        torch.ones(width),
        torch.ones(2, width + 1),
        torch.ones(2, width, dtype=torch.int64),
    ):
        with pytest.raises(ShapeError, match=rf"expected a floating-point tensor \(B, {width}\)"):
            classifier.rank_features(features)
    with pytest.raises(ArgumentError, match="`top` is 0"):
        classifier.rank_features(torch.ones(2, width), 0)
