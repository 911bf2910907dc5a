"""Zero-shot classification in NumPy: the results of `hfclip.zeroshot.classifier`, without torch."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from hfclip.errors import ArgumentError
from hfclip.light import LightCLIP
from hfclip.light.weights import Array, Floats
from hfclip.text.tokenizer import token_ids
from hfclip.zeroshot.labels import Guess, check_labels, check_templates, make_caption

# Captions per batch. It bounds the memory that many labels need.
CAPTIONS = 256


class LightClassifier:
    """Ranks labels by the cosine similarity of their captions to an image, in NumPy.

    Args:
        model: The model.
        labels: The labels, as in `ZeroShotClassifier`.
        features: The features (N, D) of unit norm that `label_features` returned for these labels.

    Raises:
        LabelError: There is no label, or a label is empty or repeated.
    """

    def __init__(self, model: LightCLIP, labels: Iterable[str], features: Floats) -> None:
        self.model = model
        self.labels = check_labels(labels)
        self._features = features

    def rank(self, pixels: Array, top: int | None = None) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each image, best first.

        Args:
            pixels: Preprocessed images, floats (B, 3, S, S).
            top: The number of labels, at least 1.

        Raises:
            ArgumentError: `top` is less than 1.
            ShapeError: The images have the wrong shape or type.
        """
        if top is not None and top < 1:
            raise ArgumentError(f"`top` is {top}; expected at least 1, or None for all labels.")
        return self.rank_features(self.model.encode_image(pixels), top)

    def rank_features(self, features: Floats, top: int | None = None) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each row of image features.

        Args:
            features: Features of the same model, floats (B, D) of any length.
            top: The number of labels, at least 1.
        """
        scale = np.float32(math.exp(self.model.logit_scale))
        logits = scale * unit(features) @ self._features.T  # (B, N)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        best = np.argsort(-chances, axis=1, kind="stable")[:, :top]
        return [
            [Guess(self.labels[place], float(row[place])) for place in order]
            for row, order in zip(chances, best.tolist(), strict=True)
        ]


def label_features(
    model: LightCLIP,
    labels: Iterable[str],
    templates: Iterable[str],
    on_progress: Callable[[int], object] | None = None,
) -> Floats:
    """Encodes labels into features (N, D) of unit norm: `classifier.label_features` in NumPy.

    Args:
        model: The model.
        labels: The labels, as in `ZeroShotClassifier`.
        templates: The templates, as in `ZeroShotClassifier`.
        on_progress: A function that is called after each batch with its number of captions.

    Raises:
        LabelError: A label or a template is missing, empty or repeated.
        TextTooLongError: A caption has more tokens than the model's context length.
    """
    labels, forms = check_labels(labels), check_templates(templates)
    at_once = max(1, CAPTIONS // len(forms))
    rows = []
    for start in range(0, len(labels), at_once):
        some = labels[start : start + at_once]
        captions = [make_caption(form, label) for label in some for form in forms]
        ids = token_ids(captions, model.config.context_length, padding="longest")
        encoded = unit(model.encode_text(ids)).reshape(len(some), len(forms), -1)
        rows.append(unit(encoded.mean(axis=1)))
        if on_progress:
            on_progress(len(captions))
    return np.concatenate(rows)


def unit(vectors: Floats) -> Floats:
    """Scales each vector to length 1: (..., D) -> (..., D)."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled
