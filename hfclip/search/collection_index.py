"""The index of a collection: its place beside the matrix, and the queries that measure it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.embeddings import Embeddings
from hfclip.errors import ArgumentError, HfclipError
from hfclip.search.index import Index, build_index, open_index
from hfclip.search.recall import QUERIES
from hfclip.text.vocabulary import words

if TYPE_CHECKING:
    from hfclip.embedding.options import Loaded

RECALL = 0.95
"""Share of the 10 best results of exact search that an index has to find."""

# Letters of the shortest word that a text of the measurement is made with.
_SHORTEST = 4
_TEXTS_AT_ONCE = 64


def open_collection_index(embeddings: Embeddings, recall: float = RECALL) -> Index:
    """Opens the index of a collection.

    Raises:
        ArgumentError: `embeddings` is a part of a collection.
        DataError: There is no index, it is damaged, the collection has changed since it was built,
            or its recall is lower than `recall`.
    """
    if not embeddings.is_whole:
        raise ArgumentError("An index searches whole collections; search a part of one without it.")
    return open_index(_folder(embeddings), embeddings.folder.name, recall=recall)


def build_collection_index(
    embeddings: Embeddings,
    load: "Callable[[], Loaded]",
    *,
    recall: float = RECALL,
    warn: Callable[[str], None],
    progress: bool = False,
) -> Index:
    """Builds the index of a collection beside its matrix, and replaces an earlier one.

    The recall is measured with rows of the collection, and for pictures also with texts, which are
    distributed differently: with the captions, or with texts made from words of the vocabulary.

    Args:
        embeddings: The whole collection.
        load: Loads the model of the collection. It is called for pictures without captions.
        recall: The recall that has to be reached.
        warn: Is called with a sentence if the model cannot be loaded. The recall for texts is then
            unknown.
        progress: Whether to show progress bars on standard error.

    Raises:
        ArgumentError: `embeddings` is a part of a collection, or `recall` is out of range.
        DataError: faiss is missing, the collection is too small, the recall is not reached, or the
            index cannot be written.
    """
    if not embeddings.is_whole:
        raise ArgumentError("An index is built of a whole collection, not of a part of one.")
    return build_index(
        _folder(embeddings),
        embeddings.vectors,
        embeddings.folder.name,
        recall=recall,
        name=embeddings.manifest.kind,
        others=lambda: _texts(embeddings, load, warn),
        norms=embeddings.norms,
        progress=progress,
    )


def _folder(embeddings: Embeddings) -> Path:
    return embeddings.folder.parent / "index"


def _texts(
    embeddings: Embeddings, load: "Callable[[], Loaded]", warn: Callable[[str], None]
) -> dict[str, NDArray[np.float32]]:
    """Returns vectors of texts by their kind; nothing for a collection of texts."""
    if embeddings.manifest.kind == "texts":
        return {}
    if embeddings.caption_vectors is not None:
        return {"captions": embeddings.caption_vectors}
    try:
        encoder = load().encoder
    except HfclipError as error:
        warn(f"The recall of the index for texts is not measured: {error}")
        return {}
    texts = [f"a photo of a {word}" for word in _words()]
    parts = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, QUERIES, _TEXTS_AT_ONCE)]
    return {"texts": np.concatenate([encoder.start_texts(part)() for part in parts])}


def _words() -> list[str]:
    """Returns words of the tokenizer's vocabulary, from frequent to rare ones."""
    found = [word for word in words() if word.isascii() and len(word) >= _SHORTEST]
    return [found[place * len(found) // QUERIES] for place in range(QUERIES)]
