"""A linear probe: a linear classifier on embeddings, saved as safetensors and JSON."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.embeddings import Embeddings
from hfclip.embedding.manifest import Manifest
from hfclip.errors import ArgumentError, DataError, LabelError, ShapeError
from hfclip.probing.labels import check_pictures
from hfclip.probing.regression import log_probabilities
from hfclip.probing.saved import Saved, read_probe, write_probe
from hfclip.probing.training import Trained, train
from hfclip.zeroshot.labels import Guess

if TYPE_CHECKING:
    from hfclip.embedding.options import Loaded

# Rows times labels that are ranked at once, to bound the memory.
_SCORES = 2**22
# How far a normalized embedding in float16 can be from length 1.
_TOLERANCE = 1e-2


class LinearProbe:
    """A linear classifier on the embeddings of a model, with K labels.

    It works with embeddings as the collection has them that it was trained on: of length 1, or raw
    with `manifest.normalized` False.

    Attributes:
        labels: The labels, K of them.
        weight: float32 (K, D).
        bias: float32 (K,).
        manifest: The model and the options that made the embeddings.
        facts: How it was trained: c, the labels' source, the division and the accuracies.
        device: The device for pictures. None selects the GPU if there is one.
    """

    def __init__(
        self,
        labels: Sequence[str],
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        manifest: Manifest,
        facts: Mapping[str, Any],
        *,
        device: str | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self.weight, self.bias = weight, bias
        self.manifest = manifest
        self.facts = dict(facts)
        self.device = device

    @classmethod
    def of(
        cls, trained: Trained, labels: Sequence[str], manifest: Manifest, facts: Mapping[str, Any]
    ) -> "LinearProbe":
        """Returns the probe of a trained solution. Labels without training rows are left out."""
        solution = trained.solution
        known = [labels[target] for target in solution.classes.tolist()]
        chosen = {"c": trained.c, "converged": solution.converged, "rows": trained.rows}
        return cls(known, solution.weight, solution.bias, manifest, chosen | dict(facts))

    @classmethod
    def fit(
        cls,
        embeddings: Embeddings,
        labels: Sequence[str | None],
        *,
        c: float | None = None,
        validation: float = 0.1,
        seed: int = 0,
    ) -> "LinearProbe":
        """Trains a probe on all rows of a collection that have a label.

        The regularization is chosen on a part that is divided off, as in the paper of CLIP; the
        probe is then trained on everything.

        Args:
            embeddings: The collection, with N rows.
            labels: The label of each row, or None: N entries.
            c: The inverse regularization. None searches it.
            validation: The share of each class that is divided off for the search.
            seed: Another seed divides off another part.

        Raises:
            DataError: The collection holds texts, or scikit-learn is not installed.
            ArgumentError: The number of labels is not N.
            LabelError: There are fewer than two labels.
        """
        check_pictures(embeddings)
        if len(labels) != len(embeddings):
            raise ArgumentError(f"There are {len(labels):,} labels for {len(embeddings):,} rows.")
        rows = np.flatnonzero([label is not None for label in labels])
        names = sorted({label for label in labels if label is not None})
        places = {label: place for place, label in enumerate(names)}
        targets = np.array([places[str(labels[row])] for row in rows.tolist()], np.int64)
        if len(names) < 2:
            raise LabelError(f"There are {len(names)} labels; expected two or more.")
        trained = train(embeddings[rows], targets, c=c, validation=validation, seed=seed)
        return cls.of(trained, names, embeddings.manifest, {})

    @classmethod
    def load(cls, folder: "str | os.PathLike[str]", *, device: str | None = None) -> "LinearProbe":
        """Loads a probe. Its model is loaded when a picture needs it.

        Args:
            folder: The folder that `save` or `hfclip probe` wrote.
            device: The device for pictures. None selects the GPU if there is one.

        Raises:
            DataError: The folder holds no probe, or a damaged one.
        """
        saved = read_probe(Path(folder))
        return cls(
            saved.labels, saved.weight, saved.bias, saved.manifest, saved.facts, device=device
        )

    def save(self, folder: "str | os.PathLike[str]", *, force: bool = False) -> None:
        """Writes the probe to a folder, whole or not at all: probe.json and probe.safetensors.

        Args:
            folder: A folder that is new or empty.
            force: Whether to replace files of the same names.

        Raises:
            ConfigError: The folder holds other files.
            OSError: The folder cannot be written.
        """
        saved = Saved(self.labels, self.weight, self.bias, self.manifest, self.facts)
        write_probe(Path(folder), saved, force=force)

    def probabilities(
        self, embeddings: "Embeddings | NDArray[np.floating[Any]]"
    ) -> NDArray[np.float32]:
        """Returns the probability of each label for each row: float32 (M, K).

        Args:
            embeddings: A collection of the same model, or vectors (M, D) in the form that
                `manifest.normalized` states. `hfclip.embed_images` returns such vectors.

        Raises:
            DataError: The collection is of another model, or is normalized and the probe is not.
            ShapeError: The vectors have another shape.
            ArgumentError: The vectors should have length 1, and have not.
        """
        vectors = self._vectors(embeddings)
        size = max(1, _SCORES // len(self.labels))
        blocks = [self._block(vectors[at : at + size]) for at in range(0, len(vectors), size)]
        return np.concatenate([np.empty((0, len(self.labels)), np.float32), *blocks])

    def rank(
        self, embeddings: "Embeddings | NDArray[np.floating[Any]]", top: int | None = None
    ) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each row, best first.

        Args:
            embeddings: As in `probabilities`.
            top: The number of labels, at least 1.

        Raises:
            ArgumentError: `top` is less than 1.
            HfclipError: As in `probabilities`.
        """
        if top is not None and top < 1:
            raise ArgumentError(f"`top` is {top}; expected at least 1, or None for all labels.")
        probabilities = self.probabilities(embeddings)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        chances = np.take_along_axis(probabilities, order, axis=1)
        return [
            [Guess(self.labels[place], chance) for place, chance in zip(*both, strict=True)]
            for both in zip(order.tolist(), chances.tolist(), strict=True)
        ]

    def rank_pictures(
        self, pictures: "Iterable[str | os.PathLike[str]]", top: int | None = None
    ) -> list[list[Guess]]:
        """Returns the `top` most probable labels (all by default) for each picture, best first.

        The pictures are read and encoded as those of the collection were.

        Args:
            pictures: Paths.
            top: The number of labels, at least 1.

        Raises:
            ImageError: A picture cannot be read.
            DataError: The model has changed since.
            HfclipError: As `hfclip.load`.
        """
        from hfclip.probing.pictures import encode_pictures  # noqa: PLC0415  # imports torch

        found: list[list[Guess]] = []
        for batch in encode_pictures(self.loaded, (os.fspath(one) for one in pictures)):
            for error in batch.errors.values():
                raise error
            found += self.rank(batch.vectors, top)
        return found

    def check(self, manifest: Manifest) -> None:
        """Checks that the probe can classify the embeddings of a collection.

        Raises:
            DataError: They are of another model, or are normalized and the probe's are not.
        """
        if not self.manifest.has_model_of(manifest):
            raise DataError(
                f"The probe was trained on embeddings of {self.manifest.model}, these are of "
                f"{manifest.model}. Train a probe for this model."
            )
        if manifest.normalized and not self.manifest.normalized:
            raise DataError(
                "The probe was trained on raw embeddings, and these are normalized, so their "
                "lengths are lost. Train a probe on normalized ones, or embed with --raw."
            )

    @cached_property
    def loaded(self) -> "Loaded":
        """The model of the probe, verified.

        Raises:
            DataError: The weights or the configuration have changed since.
            HfclipError: As `hfclip.load`.
        """
        from hfclip.embedding.options import load_model_of  # noqa: PLC0415  # imports torch

        return load_model_of(self.manifest, device=self.device)

    def _block(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        logs = log_probabilities(vectors.astype(np.float32, copy=False), self.weight, self.bias)
        return np.exp(logs, out=logs)

    def _vectors(
        self, embeddings: "Embeddings | NDArray[np.floating[Any]]"
    ) -> NDArray[np.floating[Any]]:
        if isinstance(embeddings, Embeddings):
            check_pictures(embeddings)
            self.check(embeddings.manifest)
            vectors, norms = embeddings.vectors, embeddings.norms
            if self.manifest.normalized and norms is not None:
                return vectors / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
            return vectors
        width = self.weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise ShapeError(f"The vectors are {embeddings.shape}; expected (M, {width}).")
        if self.manifest.normalized:
            norms = np.linalg.norm(embeddings.astype(np.float32, copy=False), axis=1)
            if not (np.abs(norms - 1) < _TOLERANCE).all():
                raise ArgumentError(
                    "A vector has not length 1. The probe was trained on normalized embeddings: "
                    "divide each vector by its norm."
                )
        return embeddings
