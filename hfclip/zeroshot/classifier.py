"""A zero-shot classifier: ranks labels by the similarity of their captions to an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from hfclip.config import ClipConfig
from hfclip.errors import ArgumentError, ShapeError
from hfclip.images.exact import Recipe
from hfclip.images.preprocess import transform_of
from hfclip.images.reading import Picture, load_batch
from hfclip.network.layers import normalize
from hfclip.text.tokenizer import tokenize
from hfclip.zeroshot.labels import (
    DEFAULT_TEMPLATE,
    Guess,
    Template,
    check_labels,
    check_templates,
    make_caption,
)

# Captions per batch. It bounds the memory that many labels need.
CAPTIONS = 256
# Pictures per batch.
_PICTURES = 64

Preprocess: TypeAlias = Callable[[Image.Image], Tensor]
Images: TypeAlias = "Tensor | Picture | Iterable[Picture]"

_PICTURE_TYPES = (str, PathLike, bytes, Image.Image)


class Encoder(Protocol):
    """The methods that a classifier needs. `CLIP` and the result of `optimize` have them."""

    @property
    def logit_scale(self) -> Tensor:
        """Returns the logarithm of the scale of cosine similarities, on the model's device."""
        ...

    @property
    def context_length(self) -> int:
        """Returns the maximum number of tokens in a text."""
        ...

    def encode_image(self, image: Tensor, /) -> Tensor:
        """Encodes images: (B, 3, S, S) -> (B, D)."""
        ...

    def encode_text(self, text: Tensor, /) -> Tensor:
        """Encodes token ids: (T, L) integers -> (T, D)."""
        ...


class ZeroShotClassifier:
    """Ranks labels by the cosine similarity of their captions to an image.

    Each template is filled with each label. The normalized features of a label's captions are
    averaged and normalized again, as in OpenAI's evaluation of prompt ensembles. For many images,
    the result of `hfclip.optimize` is faster than a `CLIP`.

    Args:
        model: A `CLIP`, a `FastCLIP`, or another object with their methods.
        labels: An iterable of strings without repetition.
        templates: Strings with {} for the label, or functions from a label to a caption.
        preprocess: A transform from a PIL image to a tensor (3, S, S). By default it follows the
            model's configuration. Preprocessed tensors do not need it.
        features: Label features (N, D) of unit norm that `label_features` returned for this model,
            these labels and these templates. The text tower is then not used.

    Attributes:
        labels: The labels, in the given order.
        weights: Label features as unit columns (D, N), in the dtype of the model's features.

    Raises:
        LabelError: There is no label, a label is empty or repeated, or a template has no {}.
        ArgumentTypeError: A label or a template has the wrong type.
        TextTooLongError: A caption has more tokens than the model's context length.
        ShapeError: The number of rows of `features` is not the number of labels.
    """

    def __init__(
        self,
        model: Encoder,
        labels: Iterable[str],
        templates: Iterable[Template] = (DEFAULT_TEMPLATE,),
        preprocess: Preprocess | None = None,
        *,
        features: Tensor | None = None,
    ) -> None:
        self.model = model
        self.labels = check_labels(labels)
        if features is None:
            features = label_features(model, self.labels, templates)
        if features.ndim != 2 or len(features) != len(self.labels):
            raise ShapeError(
                f"`features` is {_describe(features)}; expected (N, D) with one row for each of "
                f"the {len(self.labels)} labels."
            )
        self.weights = features.to(model.logit_scale.device).t()
        config = getattr(model, "config", None)
        self._side = config.image_resolution if isinstance(config, ClipConfig) else None
        self._preprocess = preprocess or _own_preprocess(config)

    @torch.no_grad()
    def probabilities(self, images: Images) -> Tensor:
        """Returns the probability of each label for each image: (B, N) float32.

        Args:
            images: Preprocessed images (B, 3, S, S) of any floating-point dtype; or one picture or
                an iterable of pictures, each a PIL image, a path or the bytes of a file.

        Returns:
            Probabilities on the model's device. Each row sums to 1.

        Raises:
            ShapeError: The images have the wrong shape or type.
            ImageError: A picture cannot be read.
            ArgumentError: A picture needs a preprocess, and neither the classifier nor the model
                has one.
        """
        if isinstance(images, Tensor):
            return self._classify(images)
        rows = [self._classify(pixels) for pixels in self._read(images)]
        return torch.cat(rows) if rows else self.weights.new_empty(0, len(self.labels)).float()

    def rank(self, images: Images, top: int | None = None) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each image, best first.

        Args:
            images: Images or pictures, as in `probabilities`.
            top: The number of labels, at least 1.

        Raises:
            ArgumentError: `top` is less than 1.
            HfclipError: As in `probabilities`.
        """
        count = self._count(top)
        return self._ranked(self.probabilities(images), count)

    @torch.no_grad()
    def feature_probabilities(self, features: Tensor) -> Tensor:
        """Returns the probability of each label for image features: (B, D) -> (B, N) float32.

        Args:
            features: Features of the same model, of any floating-point dtype and any length, on any
                device. They are normalized.

        Returns:
            Probabilities on the model's device, computed in float32. Each row sums to 1.

        Raises:
            ShapeError: The features have the wrong shape or dtype.
        """
        width = len(self.weights)
        if features.ndim != 2 or features.shape[1] != width or not features.is_floating_point():
            raise ShapeError(
                f"The features are {_describe(features)}; expected a floating-point tensor "
                f"(B, {width}), as `encode_image` returns it."
            )
        weights = self.weights.float()
        unit = normalize(features.to(weights.device).float())
        return (self.model.logit_scale.float().exp() * unit @ weights).softmax(dim=-1)

    def rank_features(self, features: Tensor, top: int | None = None) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each row of image features.

        Args:
            features: Features (B, D), as in `feature_probabilities`.
            top: The number of labels, at least 1.

        Raises:
            ArgumentError: `top` is less than 1.
            ShapeError: As in `feature_probabilities`.
        """
        count = self._count(top)
        return self._ranked(self.feature_probabilities(features), count)

    def _count(self, top: int | None) -> int:
        if top is not None and top < 1:
            raise ArgumentError(f"`top` is {top}; expected at least 1, or None for all labels.")
        return len(self.labels) if top is None else min(top, len(self.labels))

    def _ranked(self, probabilities: Tensor, count: int) -> list[list[Guess]]:
        best, order = probabilities.topk(count)
        return [
            [Guess(self.labels[i], p) for i, p in zip(row, chances, strict=True)]
            for row, chances in zip(order.tolist(), best.tolist(), strict=True)
        ]

    def _classify(self, images: Tensor) -> Tensor:
        """Returns the probabilities of preprocessed images: (B, 3, S, S) -> (B, N)."""
        side = self._side
        sound = images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3
        if not sound or (side is not None and images.shape[2:] != (side, side)):
            raise self._shape_error(images)
        features = normalize(self.model.encode_image(images.to(self.weights.device)))
        logits = self.model.logit_scale.exp() * features @ self.weights
        return logits.float().softmax(dim=-1)

    def _read(self, pictures: "Picture | Iterable[Picture]") -> Iterator[Tensor]:
        """Reads pictures and yields them in batches (B, 3, S, S)."""
        if isinstance(pictures, _PICTURE_TYPES):
            pictures = [pictures]
        if not isinstance(pictures, Iterable):
            raise self._shape_error(pictures)
        if hasattr(pictures, "shape") and getattr(pictures, "ndim", 1) != 1:  # an array of pixels
            raise self._shape_error(pictures)
        remaining = iter(pictures)
        while batch := list(islice(remaining, _PICTURES)):
            for picture in batch:
                if not isinstance(picture, _PICTURE_TYPES):
                    raise self._shape_error(picture, f"a {type(pictures).__name__} of ")
            if self._preprocess is None:
                raise ArgumentError(
                    "The model has no configuration for the preprocess. Pass `preprocess` to the "
                    "classifier, or pass preprocessed images (B, 3, S, S)."
                )
            pixels, errors = load_batch(batch, self._preprocess)
            for error in errors.values():
                raise error
            yield pixels

    def _shape_error(self, images: object, container: str = "") -> ShapeError:
        side = self._side or "S"
        found = container + _describe(images)
        advice = "Preprocess each image and stack the results, or pass PIL images or paths."
        if isinstance(images, Tensor) and images.ndim == 3 and not container:
            advice = "Add the batch dimension: image.unsqueeze(0)."
        return ShapeError(
            f"The images are {found}; expected a floating-point torch.Tensor "
            f"(B, 3, {side}, {side}). {advice}"
        )


@torch.no_grad()
def label_features(
    model: Encoder,
    labels: Iterable[str],
    templates: Iterable[Template] = (DEFAULT_TEMPLATE,),
    on_progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Encodes labels into features (N, D) of unit norm, in the dtype of the model's features.

    Encodes captions in batches. The memory does not grow with the number of templates; it grows
    with the number of labels by one row each.

    Args:
        model: The model, as in `ZeroShotClassifier`.
        labels: The labels, as in `ZeroShotClassifier`.
        templates: The templates, as in `ZeroShotClassifier`.
        on_progress: A function that is called after each batch with its number of captions.

    Raises:
        HfclipError: As in `ZeroShotClassifier`.
    """
    labels, templates = check_labels(labels), check_templates(templates)
    at_once = max(1, CAPTIONS // len(templates))
    rows = []
    for start in range(0, len(labels), at_once):
        some = labels[start : start + at_once]
        captions = [make_caption(template, label) for label in some for template in templates]
        encoded = torch.cat(list(_encoded(model, captions)))  # (captions, D)
        rows.append(normalize(encoded.view(len(some), len(templates), -1).mean(dim=1)))
        if on_progress:
            on_progress(len(captions))
    return torch.cat(rows)


def _encoded(model: Encoder, captions: Sequence[str]) -> Iterator[Tensor]:
    """Yields the features (n, D) of unit norm of one batch of captions after the other."""
    for start in range(0, len(captions), CAPTIONS):
        some = captions[start : start + CAPTIONS]
        tokens = tokenize(some, model.context_length, padding="longest")
        yield normalize(model.encode_text(tokens.to(model.logit_scale.device)))


def _own_preprocess(config: object) -> Preprocess | None:
    if not isinstance(config, ClipConfig):
        return None
    transform: Preprocess = transform_of(Recipe.of(config))
    return transform


def _describe(value: object) -> str:
    """Describes a value by its type and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape else "")
