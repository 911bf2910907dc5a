"""A classifier out of words: labels and templates in, ranked labels out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import NamedTuple, Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from hfclip.config import ClipConfig
from hfclip.errors import ArgumentError, ShapeError
from hfclip.images.preprocess import image_transform
from hfclip.images.reading import Picture, load_batch
from hfclip.text.tokenizer import tokenize
from hfclip.zeroshot.labels import (
    DEFAULT_TEMPLATE,
    Template,
    check_labels,
    check_templates,
    make_caption,
)

# Captions that are encoded at once, so that a thousand labels need no more memory than some.
CAPTIONS = 256
# Pictures that are read and encoded at once.
_PICTURES = 64

Preprocess: TypeAlias = Callable[[Image.Image], Tensor]
Images: TypeAlias = "Tensor | Picture | Iterable[Picture]"

_PICTURE_TYPES = (str, PathLike, bytes, Image.Image)


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

    Args:
        model: A `CLIP`, a `FastCLIP`, or another object with their methods.
        labels: Strings, in any iterable. Each label is given once.
        templates: Strings with {} for the label, or functions from a label to a caption.
        preprocess: Turns a PIL image into a tensor (3, S, S). By default it is made from the
            model's configuration. Only pictures and paths need it; tensors do not.
        features: Unit rows (N, D) that `label_features` returned for this model, these labels
            and these templates. The text tower is then not used.

    Attributes:
        labels: The labels, in the order given.
        weights: Unit columns (D, N) in the type of the model's features, one for each label.

    Raises:
        LabelError: There is no label, a label is empty or repeated, or a template has no {}.
        ArgumentTypeError: A label or a template has another type.
        TextTooLongError: A caption has more tokens than the context of the model.
        ShapeError: `features` has another number of rows than there are labels.
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
                f"The label features are {_describe(features)}; expected is one row for each of "
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
            images: Preprocessed images (B, 3, S, S) of any float type; or one picture or an
                iterable of pictures, each a PIL image, a path or the bytes of a file.

        Returns:
            Probabilities on the model's device. Each row sums to 1.

        Raises:
            ShapeError: The images have another shape or type.
            ImageError: A picture cannot be read.
            ArgumentError: There are pictures, and neither the classifier nor the model says how
                to preprocess them.
        """
        if isinstance(images, Tensor):
            return self._classify(images)
        rows = [self._classify(pixels) for pixels in self._read(images)]
        return torch.cat(rows) if rows else self.weights.new_empty(0, len(self.labels)).float()

    def rank(self, images: Images, top: int | None = None) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each image, best first.

        Args:
            images: As in `probabilities`.
            top: The number of labels, at least 1.

        Raises:
            ArgumentError: `top` is less than 1.
            HfclipError: As in `probabilities`.
        """
        if top is not None and top < 1:
            raise ArgumentError(f"top is {top}; expected is at least 1, or None for all labels.")
        count = len(self.labels) if top is None else min(top, len(self.labels))
        probabilities, order = self.probabilities(images).topk(count)
        return [
            [Guess(self.labels[i], p) for i, p in zip(row, chances, strict=True)]
            for row, chances in zip(order.tolist(), probabilities.tolist(), strict=True)
        ]

    def _classify(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, N)."""
        side = self._side
        sound = images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3
        if not sound or (side is not None and images.shape[2:] != (side, side)):
            raise self._shape_error(images)
        features = _unit(self.model.encode_image(images.to(self.weights.device)))
        logits = self.model.logit_scale.exp() * features @ self.weights
        return logits.float().softmax(dim=-1)

    def _read(self, pictures: "Picture | Iterable[Picture]") -> Iterator[Tensor]:
        """Reads pictures and gives them in batches (B, 3, S, S)."""
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
                    "The model has no configuration that says how to preprocess pictures. Give "
                    "preprocess= to the classifier, or preprocessed images (B, 3, S, S)."
                )
            pixels, errors = load_batch(batch, self._preprocess)
            for error in errors.values():
                raise error
            yield pixels

    def _shape_error(self, images: object, container: str = "") -> ShapeError:
        side = self._side or "S"
        found = container + _describe(images)
        advice = "Put each through the preprocess and stack them, or give PIL images or paths."
        if isinstance(images, Tensor) and images.ndim == 3 and not container:
            advice = "Add the dimension of the batch: image.unsqueeze(0)."
        return ShapeError(
            f"The images are {found}; expected are floats (B, 3, {side}, {side}) in a "
            f"torch.Tensor. {advice}"
        )


@torch.no_grad()
def label_features(
    model: Encoder,
    labels: Iterable[str],
    templates: Iterable[Template] = (DEFAULT_TEMPLATE,),
    on_progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Encodes labels: unit rows (N, D) in the type of the model's features.

    The captions of some labels are encoded at a time, so memory does not grow with the number of
    templates, and with the number of labels only by their rows.

    Args:
        model: As in `ZeroShotClassifier`.
        labels: As in `ZeroShotClassifier`.
        templates: As in `ZeroShotClassifier`.
        on_progress: Is called with the number of captions after some have been encoded.

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
        rows.append(_unit(encoded.view(len(some), len(templates), -1).mean(dim=1)))
        if on_progress:
            on_progress(len(captions))
    return torch.cat(rows)


def _encoded(model: Encoder, captions: Sequence[str]) -> Iterator[Tensor]:
    """Unit rows (n, D) of some captions after the other."""
    for start in range(0, len(captions), CAPTIONS):
        some = captions[start : start + CAPTIONS]
        tokens = tokenize(some, model.context_length, padding="longest")
        yield _unit(model.encode_text(tokens.to(model.logit_scale.device)))


def _own_preprocess(config: object) -> Preprocess | None:
    if not isinstance(config, ClipConfig):
        return None
    transform: Preprocess = image_transform(
        config.image_resolution, config.image_mean, config.image_std
    )
    return transform


def _unit(features: Tensor) -> Tensor:
    unit: Tensor = features / features.norm(dim=-1, keepdim=True)
    return unit


def _describe(value: object) -> str:
    """Returns the type and the shape of a value."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape else "")
