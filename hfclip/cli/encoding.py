"""Encodes labels for `hfclip classify`, with an optimized model where that saves time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from hfclip.errors import OptimizationError

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.cli.zero_shot import Question
    from hfclip.light import LightCLIP
    from hfclip.light.weights import Floats
    from hfclip.model import CLIP
    from hfclip.zeroshot.classifier import Encoder

# `optimize` takes as long as encoding a few dozen pictures or a few hundred captions. From these
# numbers on it saves time. CPU time of ViT-B/32 on one core of an AVX-512 server: optimize
# 1.3 s, a caption 15 ms with the model and 8 ms optimized.
MANY_PICTURES = 64
MANY_CAPTIONS = 256


class Encoders:
    """A model and its optimized form, which is built at most once and only if it saves time."""

    def __init__(self, model: "CLIP") -> None:
        self.model = model

    def for_pictures(self, count: int) -> "Encoder":
        """Returns the fastest encoder for this number of pictures."""
        return self._optimized if self._saves_time(count, MANY_PICTURES) else self.model

    def for_captions(self, count: int) -> "Encoder":
        """Returns the fastest encoder for this number of captions."""
        return self._optimized if self._saves_time(count, MANY_CAPTIONS) else self.model

    def name_for_captions(self, count: int) -> str:
        """Returns a name for the encoder that `for_captions` returns, without building it."""
        return "optimized" if self._saves_time(count, MANY_CAPTIONS) else "model"

    @property
    def computes_as_numpy(self) -> bool:
        """Whether the features differ from those of NumPy only by rounding."""
        model = self.model
        return model.logit_scale.device.type == "cpu" and model.dtype.itemsize == 4  # float32

    def _saves_time(self, count: int, many: int) -> bool:
        return count >= many and self.model.logit_scale.device.type == "cpu"

    @cached_property
    def _optimized(self) -> "Encoder":
        from hfclip.fast.optimize import optimize  # noqa: PLC0415

        try:
            return optimize(self.model)
        except OptimizationError:  # rare weights lose too much precision if optimized
            return self.model


def encode_labels(encoders: Encoders, question: "Question") -> "Tensor":
    """Returns the label features (N, D), from the label cache if possible.

    Args:
        encoders: The model and its optimized form.
        question: The labels and templates, and whether to read and write the label cache.
    """
    labels, templates = question.labels, question.templates
    if not question.remember:
        return _compute(encoders, labels, templates)
    from hfclip.zeroshot.cache import features_key, read_features, write_features  # noqa: PLC0415
    from hfclip.zeroshot.shared import write_shared  # noqa: PLC0415

    name = encoders.name_for_captions(len(labels) * len(templates))
    key = features_key(encoders.model, labels, templates, name)
    features = read_features(key)
    if features is None:
        features = _compute(encoders, labels, templates)
        write_features(key, features)
        if question.key and encoders.computes_as_numpy:
            write_shared(question.key, features.numpy())
    return features.to(encoders.model.logit_scale.device)


def encode_labels_in_numpy(
    model: "LightCLIP", question: "Question", cached: "Floats | None"
) -> "Floats":
    """Returns the label features (N, D): those of the cache, or new ones, which it writes there."""
    if cached is not None:
        return cached
    from hfclip.zeroshot.shared import write_shared  # noqa: PLC0415
    from hfclip.zeroshot.without_torch import CAPTIONS, label_features  # noqa: PLC0415

    labels, templates = question.labels, question.templates
    count = len(labels) * len(templates)
    with _progress(count, CAPTIONS) as on_progress:
        features = label_features(model, labels, templates, on_progress)
    if question.key:
        write_shared(question.key, features)
    return features


def _compute(encoders: Encoders, labels: Sequence[str], templates: Sequence[str]) -> "Tensor":
    from hfclip.zeroshot.classifier import CAPTIONS, label_features  # noqa: PLC0415

    count = len(labels) * len(templates)
    encoder = encoders.for_captions(count)
    with _progress(count, CAPTIONS) as on_progress:
        return label_features(encoder, labels, templates, on_progress=on_progress)


@contextmanager
def _progress(count: int, few: int) -> Iterator[Callable[[int], object]]:
    """Shows a progress bar for more than a few captions; yields what advances it."""
    if count <= few:
        yield lambda _: None
        return
    from tqdm import tqdm  # noqa: PLC0415

    with tqdm(
        desc="encoding labels", total=count, unit="caption", leave=False, disable=None
    ) as bar:
        yield bar.update
