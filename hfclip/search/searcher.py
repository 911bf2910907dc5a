"""Searches a collection by texts, pictures and keys."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.embeddings import Embeddings
from hfclip.errors import ArgumentError, DataError
from hfclip.search import exact
from hfclip.search.collection_index import RECALL, open_collection_index
from hfclip.search.queries import Query, TextEncoder, vector_of

if TYPE_CHECKING:
    from hfclip.embedding.options import Loaded
    from hfclip.embedding.text_model import TextModel
    from hfclip.images.reading import Picture
    from hfclip.layouts.files import Source
    from hfclip.light.choice import Choice


class Hit(NamedTuple):
    """A result of a search.

    Attributes:
        key: The unique name of the input.
        score: The cosine similarity to the query.
        row: The row in the collection.
        caption: The caption beside the picture, or the text; None if there is none.
    """

    key: str
    score: float
    row: int
    caption: str | None


class Searcher:
    """Searches a collection. The model is loaded once, when a query needs it.

    The results are exact, because every row is compared, unless an index is used. The first 5 of 15
    results are the results of a search for 5, also with an index.

    Attributes:
        embeddings: The collection.
        index: The index that is used, or None.
    """

    def __init__(
        self,
        embeddings: "Embeddings | str | os.PathLike[str]",
        *,
        device: str | None = None,
        index: bool = False,
        recall: float = RECALL,
        backend: "Choice" = "auto",
    ) -> None:
        """Prepares a search.

        Args:
            embeddings: An open collection, a part of one such as `embeddings[:1000]`, or a folder.
            device: The device of the model. None selects the GPU if there is one.
            index: Whether to use the index that `hfclip search OUT --index` has built. A query then
                has at most 200 results.
            recall: The share of the 10 best results that the index has to find.
            backend: What encodes texts. "numpy" starts without torch, "torch" is faster for many
                searches; "auto" takes what probably answers one search sooner, and torch from the
                first query with a picture on. Scores differ by rounding.

        Raises:
            ArgumentError: `backend` has another value, or is "numpy" for a GPU.
            DataError: As `Embeddings`; the collection has no embedding; or `index` is True and
                there is no index, the collection has changed since it was built, or its recall is
                lower.
        """
        self.embeddings = (
            embeddings if isinstance(embeddings, Embeddings) else Embeddings(embeddings)
        )
        if backend != "auto":
            from hfclip.light.choice import check  # noqa: PLC0415  # imports more than keys need

            check(backend, device)
        self._backend, self._device = backend, device
        if not len(self.embeddings):
            errors = len(self.embeddings.errors)
            reason = f"all {errors:,} inputs have errors" if errors else "it has no inputs"
            raise DataError(f"{self.embeddings.out} has no embedding to search: {reason}.")
        self.index = open_collection_index(self.embeddings, recall) if index else None

    def search(
        self,
        texts: "str | Sequence[str]" = (),
        *,
        images: "Sequence[Picture]" = (),
        like: Sequence[str] = (),
        without: Sequence[str] = (),
        weights: Sequence[float] | None = None,
        templates: Sequence[str] = (),
        top: int = 10,
        min_score: float | None = None,
    ) -> list[Hit]:
        """Finds the inputs that are most similar to a query.

        Each text, picture and key has a vector of length 1. Their weighted sum, scaled to length 1,
        is the query. `without` then removes directions, see `hfclip.search.queries.combined`.

        Args:
            texts: One text or several. They are used as they are given unless there are templates.
            images: Paths, bytes of files, or PIL images.
            like: Keys of the collection. They are left out of the results.
            without: Texts whose direction is removed from the query.
            weights: One weight for each text, then each picture, then each key. Default: 1.
            templates: Captions with {} for the text, such as "a photo of a {}". Several are
                averaged.
            top: The largest number of results.
            min_score: The lowest score of a result, or None.

        Returns:
            The results, best first. Equal scores are in the order of the collection.

        Raises:
            DataError: The collection has no such key, or its model differs from the one that made
                the embeddings.
            TextTooLongError: A text has more tokens than the model reads.
            ImageError: A picture cannot be read.
            ArgumentError: The query is empty, or an argument has an unsupported value.
        """
        if top < 1:
            raise ArgumentError(f"top is {top}; expected at least 1.")
        given = (texts,) if isinstance(texts, str) else tuple(texts)
        query = Query(given, images, like, without, weights, templates)
        query.check()
        if images and self._backend == "numpy":
            raise ArgumentError(
                "The backend numpy reads no pictures for a query. Use the backend torch."
            )
        vector = vector_of(
            query, self.embeddings, lambda: self._loaded, lambda: self._encoder_for(query)
        )
        own = {self.embeddings.position(key) for key in like}
        rows, scores = self.nearest(vector[None], top + len(own))
        found = [
            (int(row), float(score))
            for row, score in zip(rows[0], scores[0], strict=True)
            if int(row) not in own and (min_score is None or score >= min_score)
        ]
        keys, captions = self.embeddings.keys, self.embeddings.captions
        return [Hit(keys[row], score, row, captions[row]) for row, score in found[:top]]

    def nearest(
        self, vectors: NDArray[np.floating[Any]], top: int = 10
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the rows with the largest cosine similarities, for many vectors in one pass.

        Args:
            vectors: Vectors of any length, (Q, D).
            top: The number of rows for each vector. At most N rows are returned.

        Returns:
            Row numbers (Q, K), int64, and cosine similarities (Q, K), float32, with
            K = min(top, N); best first. Equal scores are ordered by row number.

        Raises:
            ArgumentError: The shape is another, a vector is zero or not finite, or `top` is less
                than 1.
        """
        queries = np.asarray(vectors, np.float32)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=-1, keepdims=True)
        if queries.ndim == 2 and not (lengths > 0).all():
            raise ArgumentError("A vector has length 0 or is not finite.")
        queries = (queries / lengths).astype(np.float32)
        search = exact.search if self.index is None else self.index.search
        return search(self.embeddings.vectors, queries, top, norms=self.embeddings.norms)

    def _encoder_for(self, query: Query) -> TextEncoder:
        """Returns the model that encodes the texts of a query."""
        if query.images or "_loaded" in vars(self):
            return self._loaded.encoder
        if "_text_model" in vars(self):
            return self._text_model
        from hfclip.light.choice import choose  # noqa: PLC0415

        captions = len((*query.texts, *query.without)) * max(1, len(query.templates))
        backend = choose(self._backend, self._source, device=self._device, captions=captions)
        return self._text_model if backend == "numpy" else self._loaded.encoder

    @cached_property
    def _source(self) -> "Source":
        from hfclip.embedding.identity import find_model_of  # noqa: PLC0415

        return find_model_of(self.embeddings.manifest)

    @cached_property
    def _text_model(self) -> "TextModel":
        from hfclip.embedding.text_model import TextModel  # noqa: PLC0415

        return TextModel(self._source, self.embeddings.manifest)

    @cached_property
    def _loaded(self) -> "Loaded":
        from hfclip.embedding.options import load_model_of  # noqa: PLC0415  # imports torch

        return load_model_of(self.embeddings.manifest, self._device, self._source)
