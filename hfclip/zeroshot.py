"""A classifier out of words: labels and templates in, ranked labels out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hfclip.errors import LabelError
from hfclip.tokenizer import tokenize

DEFAULT_TEMPLATE = "a photo of a {}"
# Captions that are encoded at once, so that a thousand labels need no more memory than some.
CAPTIONS = 256


class Guess(NamedTuple):
    """One label and how probable it is among the labels that were given."""

    label: str
    probability: float


class Encoder(Protocol):
    """What a classifier asks of a model: a `CLIP` has it, and so does what `optimize` makes."""

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of what cosines are multiplied by, on the device that computes."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens in a text at most."""
        ...

    def encode_image(self, image: Tensor, /) -> Tensor:
        """Encodes images: (B, 3, S, S) -> (B, D)."""
        ...

    def encode_text(self, text: Tensor, /) -> Tensor:
        """Encodes token ids: (T, L) integers -> (T, D)."""
        ...


class ZeroShotClassifier:
    """Ranks labels by how near their captions lie to an image.

    Each label is put into each template; the normalised features of its captions are averaged and
    normalised again, as in OpenAI's evaluation of prompt ensembles. The model is a `CLIP`, or for
    many images sooner what `hfclip.optimize` made of one.

    Attributes:
        labels: The labels, in the order given.
        weights: Unit columns (D, N) in the type of the model's features, one for each label.

    Raises:
        LabelError: There is no label, a label is empty or repeated, or a template has no {}.
    """

    def __init__(
        self, model: Encoder, labels: Sequence[str], templates: Sequence[str] = (DEFAULT_TEMPLATE,)
    ) -> None:
        _check(labels, templates)
        self.model = model
        self.labels = tuple(labels)
        self.weights = _label_features(model, labels, templates).t()

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Of preprocessed images (B, 3, S, S): (B, N) float32, each row sums to 1."""
        features = _unit(self.model.encode_image(images.to(self.weights.device)))
        logits = self.model.logit_scale.exp() * features @ self.weights
        return logits.float().softmax(dim=-1)

    def rank(self, images: Tensor, top: int | None = None) -> list[list[Guess]]:
        """The `top` most probable labels (all by default) for each image, best first."""
        count = len(self.labels) if top is None else min(top, len(self.labels))
        probabilities, order = self.probabilities(images).topk(count)
        return [
            [Guess(self.labels[i], p) for i, p in zip(row, chances, strict=True)]
            for row, chances in zip(order.tolist(), probabilities.tolist(), strict=True)
        ]


@torch.no_grad()
def _label_features(model: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit rows (N, D)."""
    captions = [template.replace("{}", label) for label in labels for template in templates]
    rows = torch.cat(list(_encoded(model, captions)))
    return _unit(rows.view(len(labels), len(templates), -1).mean(dim=1))


def _encoded(model: Encoder, captions: Sequence[str]) -> Iterator[Tensor]:
    """Unit rows (n, D) of some captions after the other."""
    for start in range(0, len(captions), CAPTIONS):
        some = captions[start : start + CAPTIONS]
        tokens = tokenize(some, model.context_length, padding="longest")
        yield _unit(model.encode_text(tokens.to(model.logit_scale.device)))


def _unit(features: Tensor) -> Tensor:
    unit: Tensor = features / features.norm(dim=-1, keepdim=True)
    return unit


def _check(labels: Sequence[str], templates: Sequence[str]) -> None:
    if isinstance(labels, str) or isinstance(templates, str):
        raise LabelError("Labels and templates are lists of strings; a single string was given.")
    if not labels or not all(label.strip() for label in labels):
        raise LabelError(f"The labels are {list(labels)}; give at least one, and none empty.")
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise LabelError(f"Labels are given twice: {', '.join(repeated)}. Give each once.")
    lacking = [template for template in templates if "{}" not in template]
    if not templates or lacking:
        raise LabelError(
            f"The templates are {list(templates)}; each needs a {{}} where the label goes, as in "
            f"{DEFAULT_TEMPLATE!r}."
        )
