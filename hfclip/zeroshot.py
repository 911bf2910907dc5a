"""A classifier out of words: labels and templates in, ranked labels out."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hfclip.errors import LabelError
from hfclip.model import CLIP
from hfclip.tokenizer import tokenize

DEFAULT_TEMPLATE = "a photo of a {}"


class Guess(NamedTuple):
    """One label and how probable it is among the labels that were given."""

    label: str
    probability: float


class ZeroShotClassifier:
    """Ranks labels by how near their captions lie to an image.

    Each label is put into each template; the normalised features of its captions are averaged and
    normalised again, as in OpenAI's evaluation of prompt ensembles.

    Attributes:
        labels: The labels, in the order given.
        weights: Unit columns (D, N) in the model's dtype, one for each label.

    Raises:
        LabelError: There is no label, a label is empty or repeated, or a template has no {}.
    """

    def __init__(
        self, model: CLIP, labels: Sequence[str], templates: Sequence[str] = (DEFAULT_TEMPLATE,)
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
def _label_features(model: CLIP, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit rows (N, D): a label at a time, so that a thousand labels need no more memory."""
    device = model.logit_scale.device
    rows = []
    for label in labels:
        captions = [template.replace("{}", label) for template in templates]
        tokens = tokenize(captions, model.context_length, padding="longest").to(device)
        rows.append(_unit(_unit(model.encode_text(tokens)).mean(dim=0)))
    return torch.stack(rows)


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
