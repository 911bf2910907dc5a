"""Measures a model on pictures with labels or captions: zero-shot accuracy and recall.

The result does not depend on the batch size. Batches change features by rounding, so similarities
are computed in float64, and two that differ by less than `TIE` count as equal. Ties count against
the model: constant features are never right by the order of the data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from hfclip.data.records import Example
from hfclip.errors import ArgumentError, LabelError, TrainingError
from hfclip.images.reading import load_batch
from hfclip.model import CLIP
from hfclip.network.layers import normalize
from hfclip.text.tokenizer import tokenize
from hfclip.training.captions import captions_of
from hfclip.training.metrics import RECALL_AT, Metrics
from hfclip.zeroshot.classifier import CAPTIONS, label_features

Preprocess: TypeAlias = Callable[[Image.Image], Tensor]

# Cosine similarities that are closer count as equal. The same picture in two batches differs by
# about 1e-7 in float32.
TIE = 1e-6
# Similarities that are held at once, to bound the memory.
_SCORES = 2**24


def evaluate(
    model: CLIP,
    preprocess: Preprocess,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    template: str,
    *,
    batch_size: int = 64,
) -> Metrics:
    """Measures zero-shot accuracy, if there are labels, and recall in both directions.

    A picture may have several captions, and a caption several pictures: all of them are right.
    Pictures with the same digest are one picture. The model's modes and parameters stay the same.

    Args:
        model: The model. Its weights may have any floating-point dtype, on any device.
        preprocess: The transform of `hfclip.load`, without augmentation.
        examples: The pictures.
        labels: All labels of the data, in order, or None. Each picture must have one of them.
        template: The caption of a label, with {}.
        batch_size: The number of pictures that are encoded at once.

    Raises:
        ArgumentError: There is no picture.
        LabelError: A picture has no label, or one that is not in `labels`, or there is a picture
            without a label and without a caption.
        ImageError: A picture cannot be read.
        TrainingError: A feature is NaN or infinite.
    """
    if not examples:
        raise ArgumentError("There is no picture to evaluate the model on.")
    targets = None if labels is None else _targets(examples, labels)
    pairs = _Pairs.of(examples, template)
    with _undisturbed(model):
        texts = _encode_captions(model, pairs.captions)
        distinct = _encode_pictures(model, preprocess, pairs.pictures, batch_size)
        classes = None if labels is None else _label_features(model, labels, template)
    accuracy: float | None = None
    per_class: Mapping[str, float] = {}
    if classes is not None and targets is not None and labels is not None:
        images = distinct[torch.tensor(pairs.rows)]
        right = _first_right(images, classes, [[target] for target in targets]) < 1
        accuracy, per_class = _mean(right), _per_class(right, torch.tensor(targets), labels)
    return Metrics(
        accuracy,
        per_class,
        _recalls(distinct, texts, pairs.captions_of),
        _recalls(texts, distinct, pairs.pictures_of),
        len(examples),
    )


class _Pairs(NamedTuple):
    """The distinct pictures and captions, and which of them belong together.

    Attributes:
        pictures: The first example of each distinct picture.
        captions: The distinct captions.
        rows: The index of each example's picture.
        captions_of: The indices of each picture's captions.
        pictures_of: The indices of each caption's pictures.
    """

    pictures: list[Example]
    captions: list[str]
    rows: list[int]
    captions_of: list[list[int]]
    pictures_of: list[list[int]]

    @classmethod
    def of(cls, examples: Sequence[Example], template: str) -> "_Pairs":
        first: dict[str, Example] = {}
        own: dict[str, dict[str, None]] = {}
        for example in examples:
            captions = captions_of(example, template)
            if not captions:
                raise LabelError(f"{example.key} has neither a caption nor a label.")
            first.setdefault(example.digest, example)
            own.setdefault(example.digest, {}).update(dict.fromkeys(captions))
        numbers: dict[str, int] = {}
        captions_of_each = [
            [numbers.setdefault(caption, len(numbers)) for caption in captions]
            for captions in own.values()
        ]
        pictures_of: list[list[int]] = [[] for _ in numbers]
        for picture, places in enumerate(captions_of_each):
            for caption in places:
                pictures_of[caption].append(picture)
        order = {digest: place for place, digest in enumerate(first)}
        rows = [order[example.digest] for example in examples]
        return cls(list(first.values()), list(numbers), rows, captions_of_each, pictures_of)


def _targets(examples: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """Returns the index of each example's label."""
    places = {label: place for place, label in enumerate(labels)}
    for example in examples:
        if example.label not in places:
            found = "no label" if example.label is None else f"the label {example.label!r}"
            raise LabelError(
                f"{example.key} has {found}; expected one of the {len(labels)} labels."
            )
    return [places[example.label] for example in examples if example.label is not None]


@contextmanager
def _undisturbed(model: CLIP) -> Iterator[None]:
    """Puts a model into eval mode without gradients and autocast, and restores its modes."""
    modes = {module: module.training for module in model.modules()}
    device = model.logit_scale.device.type
    try:
        model.eval()
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _encode_pictures(
    model: CLIP, preprocess: Preprocess, examples: Sequence[Example], batch_size: int
) -> Tensor:
    """Returns the features of pictures, (N, D) of unit norm, float64 on the CPU."""
    device, found = model.logit_scale.device, []
    for start in range(0, len(examples), batch_size):
        some = examples[start : start + batch_size]
        pixels, errors = load_batch([example.image.read() for example in some], preprocess)
        for place, error in errors.items():
            raise type(error)(f"{some[place].key}: {error}")
        features = model.encode_image(pixels.to(device))
        found.append(_checked(features, f"the picture {some[0].key} and those after it"))
    return torch.cat(found)


def _encode_captions(model: CLIP, captions: Sequence[str]) -> Tensor:
    """Returns the features of captions, (N, D) of unit norm, float64 on the CPU."""
    device, found = model.logit_scale.device, []
    for start in range(0, len(captions), CAPTIONS):
        some = list(captions[start : start + CAPTIONS])
        ids = tokenize(some, model.context_length, truncate=True, padding="longest")
        found.append(_checked(model.encode_text(ids.to(device)), f"the caption {some[0]!r}"))
    return torch.cat(found)


def _label_features(model: CLIP, labels: Sequence[str], template: str) -> Tensor:
    return _checked(label_features(model, labels, (template,)), "the labels")


def _checked(features: Tensor, what: str) -> Tensor:
    """Normalizes features in float64 on the CPU."""
    normalized = normalize(features.cpu().double())
    if not normalized.isfinite().all():  # zeros have no direction: they become NaN
        raise TrainingError(
            f"The features of {what} are NaN, infinite or zero, so the weights are of no use. "
            "Train with a lower learning rate, and go on from an earlier checkpoint."
        )
    return normalized


def _recalls(
    queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]]
) -> dict[int, float]:
    """Returns the share of queries with a right candidate among the first k, by k."""
    before = _first_right(queries, candidates, right)
    return {k: _mean(before < k) for k in RECALL_AT if k == 1 or k < len(candidates)}


def _first_right(queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]]) -> Tensor:
    """Returns the number of wrong candidates before the first right one of each query.

    Args:
        queries: Features (Q, D) of unit norm.
        candidates: Features (C, D) of unit norm.
        right: The indices of the right candidates of each query.

    Returns:
        Numbers (Q,). A wrong candidate with an equal score counts.
    """
    at_once = max(1, _SCORES // len(candidates))
    found = []
    for start in range(0, len(queries), at_once):
        scores = queries[start : start + at_once] @ candidates.t()  # (q, C)
        is_right = torch.zeros(scores.shape, dtype=torch.bool)
        for row, places in enumerate(right[start : start + at_once]):
            is_right[row, list(places)] = True
        best = scores.masked_fill(~is_right, -torch.inf).amax(dim=1, keepdim=True)
        found.append(((scores > best - TIE) & ~is_right).sum(dim=1))
    return torch.cat(found)


def _per_class(right: Tensor, targets: Tensor, labels: Sequence[str]) -> Mapping[str, float]:
    present = set(targets.tolist())
    return {
        label: _mean(right[targets == place])
        for place, label in enumerate(labels)
        if place in present
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
