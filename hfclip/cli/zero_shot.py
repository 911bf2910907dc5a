"""Ranks labels for pictures and collections with NumPy or torch, for `hfclip classify`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from hfclip.cli.encoding import Encoders, encode_labels, encode_labels_in_numpy

if TYPE_CHECKING:
    from hfclip.cli.results import Result
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.embedding.manifest import Manifest
    from hfclip.layouts.files import Source
    from hfclip.light.choice import Choice
    from hfclip.light.costs import Backend
    from hfclip.light.weights import Floats
    from hfclip.zeroshot.labels import Guess

# Pictures per batch.
BATCH = 16


@dataclass(frozen=True)
class Question:
    """The labels, and how they are ranked.

    Attributes:
        source: The files of the model.
        labels: The labels.
        templates: The templates of their captions.
        top: The number of labels in an answer.
        device: The device, or None.
        backend: The wish for a backend.
        remember: Whether to read and write the label cache.
        auto_orient: Whether to apply the EXIF orientation.
    """

    source: "Source"
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    top: int
    device: str | None = None
    backend: "Choice" = "auto"
    remember: bool = True
    auto_orient: bool = True

    def choose(self, pictures: int) -> "tuple[Backend, Floats | None]":
        """Returns the backend for a number of pictures, and cached label features for NumPy."""
        from hfclip.light.choice import choose  # noqa: PLC0415

        features = self.cached_features() if self.backend != "torch" else None
        captions = 0 if features is not None else len(self.labels) * len(self.templates)
        backend = choose(
            self.backend, self.source, device=self.device, pictures=pictures, captions=captions
        )
        return backend, features

    @property
    def key(self) -> str | None:
        """The key of the label features in the cache, or None if they are not cached."""
        from hfclip.zeroshot.shared import shared_key  # noqa: PLC0415

        return shared_key(self.source, self.labels, self.templates) if self.remember else None

    def cached_features(self) -> "Floats | None":
        """Returns the label features from the cache, or None."""
        from hfclip.zeroshot.shared import read_shared  # noqa: PLC0415

        key = self.key
        return read_shared(key) if key else None


class Classifier(Protocol):
    """What `ZeroShotClassifier` and `LightClassifier` have in common."""

    def rank(self, images: Any, /, top: int | None = None) -> "list[list[Guess]]":
        """Ranks the labels for preprocessed images (B, 3, S, S)."""


def rank_pictures(names: list[str], question: Question) -> "Iterator[Result]":
    """Loads the model and returns the ranked labels of each picture, or its error.

    Args:
        names: The names of pictures, as of `hfclip.images.reading.find_images`.
        question: The labels and the model.
    """
    backend, features = question.choose(len(names))
    if backend == "torch":
        return _by_torch(names, question)
    return _by_numpy(names, question, features)


def rank_rows(
    question: Question, manifest: "Manifest"
) -> "Callable[[Embeddings], list[list[Guess]]]":
    """Loads the model of a collection and returns a function that ranks the labels for its rows.

    Args:
        question: The labels and the files of the model.
        manifest: The manifest of the collection.

    Raises:
        DataError: The configuration of the model has changed since it made the embeddings.
    """
    backend, features = question.choose(0)
    if backend == "numpy":
        from hfclip.embedding.text_model import TextModel  # noqa: PLC0415
        from hfclip.zeroshot.without_torch import LightClassifier  # noqa: PLC0415

        model = TextModel(question.source, manifest).model
        features = encode_labels_in_numpy(model, question, features)
        light = LightClassifier(model, question.labels, features)
        return lambda rows: light.rank_features(rows.to_numpy(), question.top)
    import torch  # noqa: PLC0415

    from hfclip.embedding.options import load_model_of  # noqa: PLC0415
    from hfclip.zeroshot.classifier import ZeroShotClassifier  # noqa: PLC0415

    network = load_model_of(manifest, question.device, question.source).model
    weights = encode_labels(Encoders(network), question)
    classifier = ZeroShotClassifier(network, question.labels, features=weights)
    return lambda rows: classifier.rank_features(torch.from_numpy(rows.to_numpy()), question.top)


def _by_numpy(
    names: list[str], question: Question, features: "Floats | None"
) -> "Iterator[Result]":
    import numpy as np  # noqa: PLC0415

    from hfclip.images.reading import prepare_each  # noqa: PLC0415
    from hfclip.light.loading import load_source  # noqa: PLC0415
    from hfclip.zeroshot.without_torch import LightClassifier  # noqa: PLC0415

    model, preprocess = load_source(question.source)
    features = encode_labels_in_numpy(model, question, features)

    def read(batch: list[str]) -> tuple[Any, dict[int, Any]]:
        pixels, errors = prepare_each(
            batch, preprocess.recipe.pixels, auto_orient=question.auto_orient
        )
        return np.stack(pixels) if pixels else [], errors

    return _ranked(names, LightClassifier(model, question.labels, features), read, question.top)


def _by_torch(names: list[str], question: Question) -> "Iterator[Result]":
    from hfclip.devices import choose_device  # noqa: PLC0415
    from hfclip.images.reading import load_batch  # noqa: PLC0415
    from hfclip.loading import load_source  # noqa: PLC0415
    from hfclip.zeroshot.classifier import ZeroShotClassifier  # noqa: PLC0415

    model, preprocess = load_source(question.source, choose_device(question.device))
    encoders = Encoders(model)
    features = encode_labels(encoders, question)
    encoder = encoders.for_pictures(len(names))

    def read(batch: list[str]) -> tuple[Any, dict[int, Any]]:
        return load_batch(batch, preprocess, auto_orient=question.auto_orient)

    classifier = ZeroShotClassifier(encoder, question.labels, features=features)
    return _ranked(names, classifier, read, question.top)


def _ranked(
    names: list[str],
    classifier: Classifier,
    read: Callable[[list[str]], tuple[Any, dict[int, Any]]],
    top: int,
) -> "Iterator[Result]":
    """Yields the ranked labels of each picture, or its error if it cannot be read."""
    remaining = iter(names)
    while batch := list(islice(remaining, BATCH)):
        pixels, errors = read(batch)
        ranked = iter(classifier.rank(pixels, top) if len(pixels) else [])
        for index, name in enumerate(batch):
            yield name, errors[index] if index in errors else next(ranked)
