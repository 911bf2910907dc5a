"""Turns texts, pictures and keys into the vector of a query."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hfclip.errors import ArgumentError, TextTooLongError
from hfclip.text.bpe import shared_tokenizer, shortened

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings
    from hfclip.embedding.options import Loaded
    from hfclip.images.reading import Picture

# Below this length a sum of vectors has no direction of its own.
_NOTHING = 1e-6
_ROUNDS = 1_000


class TextEncoder(Protocol):
    """Encodes the texts of a query: a model in torch or in NumPy."""

    @property
    def context_length(self) -> int:
        """The largest number of tokens of a text."""

    def start_texts(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Encodes texts and returns a function that waits for the features (T, D)."""


@dataclass(frozen=True)
class Query:
    """A query: any number of texts, pictures and keys, which are averaged.

    Attributes:
        texts: Texts, used as they are given unless there are templates.
        images: Paths, bytes of files, or PIL images.
        like: Keys of the collection.
        without: Texts whose direction is removed.
        weights: One weight for each text, then each picture, then each key. None weighs them
            equally. A negative weight moves the query away.
        templates: Captions with {} for the text, such as "a photo of a {}". Several are averaged.
    """

    texts: "Sequence[str]" = ()
    images: "Sequence[Picture]" = ()
    like: "Sequence[str]" = ()
    without: "Sequence[str]" = ()
    weights: "Sequence[float] | None" = None
    templates: "Sequence[str]" = ()

    def check(self) -> None:
        """Checks the query before a model is loaded.

        Raises:
            ArgumentError: The query is empty, a weight is missing, or a template has no {}.
        """
        count = len(self.texts) + len(self.images) + len(self.like)
        if not count:
            raise ArgumentError("The query is empty; expected a text, a picture or a key.")
        if any(not text.strip() for text in (*self.texts, *self.without)):
            raise ArgumentError("A text of the query is empty.")
        if self.weights is not None and len(self.weights) != count:
            raise ArgumentError(
                f"There are {len(self.weights)} weights for {count} queries; expected one for each "
                "text, then for each picture, then for each key."
            )
        for template in self.templates:
            if "{}" not in template:
                raise ArgumentError(f"The template {template!r} has no {{}} for the text.")


def vector_of(
    query: Query,
    embeddings: "Embeddings",
    load: "Callable[[], Loaded]",
    load_for_texts: Callable[[], TextEncoder] | None = None,
) -> NDArray[np.float32]:
    """Returns the vector of a query, float32 (D,), of length 1.

    Args:
        query: The query.
        embeddings: The collection, for the keys.
        load: Loads the model. It is called only if the query has a picture, or a text without
            `load_for_texts`.
        load_for_texts: Loads the model for the texts, if another one is to encode them.

    Raises:
        DataError: The collection has no such key, or its model cannot be loaded.
        TextTooLongError: A text has more tokens than the model reads.
        ImageError: A picture cannot be read.
        ArgumentError: The query is empty, or nothing of it remains.
    """
    query.check()
    rows = [embeddings.position(key) for key in query.like]
    encoder = load_for_texts or (lambda: load().encoder)
    vectors = [
        *_texts(query.texts, query.templates, encoder),
        *_pictures(query.images, load),
        *(_unit(embeddings.vectors[row]) for row in rows),
    ]
    weights = [1.0] * len(vectors) if query.weights is None else query.weights
    without = _texts(query.without, query.templates, encoder)
    return combined(vectors, weights, without).astype(np.float32)


def combined(
    vectors: Iterable[NDArray[np.float64]],
    weights: Iterable[float],
    without: Sequence[NDArray[np.float64]] = (),
) -> NDArray[np.float64]:
    """Returns the weighted sum of vectors of length 1, scaled to length 1.

    With `without` it returns the direction closest to the sum that is similar to none of these
    vectors: every cosine with them is at most 0. For a sum q and one vector u it is
    q - max(0, q . u) u, scaled to length 1.

    Args:
        vectors: Vectors (D,) of length 1.
        weights: The weight of each.
        without: Vectors (D,) of length 1.

    Raises:
        ArgumentError: The sum is zero, or nothing of it remains without these vectors.
    """
    total = np.sum([w * v for w, v in zip(weights, vectors, strict=True)], axis=0)
    if np.linalg.norm(total) < _NOTHING:
        raise ArgumentError("The weighted queries cancel each other. Use other weights.")
    total = _unit(total)
    # Hildreth's method: each step satisfies one of the conditions again.
    removed = np.zeros(len(without))
    for _ in range(_ROUNDS if len(without) > 1 else 1):
        before = removed.copy()
        for place, direction in enumerate(without):
            amount = max(0.0, removed[place] + float(total @ direction))
            total = total + (removed[place] - amount) * direction
            removed[place] = amount
        if np.abs(removed - before).max(initial=0.0) < _NOTHING**2:
            break
    if np.linalg.norm(total) < _NOTHING:
        raise ArgumentError("Nothing of the query remains without what is to be left out.")
    return _unit(total)


def _texts(
    texts: Sequence[str], templates: Sequence[str], load: Callable[[], TextEncoder]
) -> list[NDArray[np.float64]]:
    """Returns a vector of length 1 for each text."""
    if not texts:
        return []
    encoder = load()
    captions = [[form.replace("{}", text) for form in templates or ["{}"]] for text in texts]
    for caption in (caption for forms in captions for caption in forms):
        _check_length(caption, encoder.context_length)
    found = [encoder.start_texts(forms)() for forms in captions]
    return [_unit(np.mean([_unit(vector) for vector in one], axis=0)) for one in found]


def _check_length(text: str, context_length: int) -> None:
    count = len(shared_tokenizer().encode(text)) + 2
    if count > context_length:
        raise TextTooLongError(
            f"The query {shortened(text)} has {count:,} tokens, including the start and end "
            f"tokens; the model reads {context_length}. Shorten it."
        )


def _pictures(
    pictures: "Sequence[Picture]", load: "Callable[[], Loaded]"
) -> list[NDArray[np.float64]]:
    """Returns a vector of length 1 for each picture, read like those of the collection."""
    if not pictures:
        return []
    import torch  # noqa: PLC0415  # `load` has imported it

    from hfclip.embedding.decoding import pixel_limit  # noqa: PLC0415

    loaded = load()
    with pixel_limit(loaded.manifest.max_pixels):
        prepared = [loaded.reader(one, _name(one)) for one in pictures]
    vectors = loaded.encoder.start(torch.stack([one.pixels for one in prepared]))()
    return [_unit(vector) for vector in vectors]


def _name(picture: "Picture") -> str:
    return os.fspath(picture) if isinstance(picture, str | os.PathLike) else "the picture"


def _unit(vector: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    long = np.asarray(vector, np.float64)
    return long / (np.linalg.norm(long) or 1.0)
