"""Searches the collection of a page: pages of results, and near-duplicates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfclip.app.demo import Demo
from hfclip.app.limits import check_picture, read_query
from hfclip.app.times import Watch
from hfclip.errors import ArgumentError, DataError
from hfclip.search.duplicates import find_duplicates
from hfclip.search.queries import Query, vector_of
from hfclip.search.searcher import Searcher
from hfclip.search.thumbnails import read_thumbnail

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings

# Results of one page, and pixels of the longer side of a thumbnail.
PER_PAGE, SIDE = 24, 256
# Pictures of near-duplicates that are shown, and of one group.
SHOWN, OF_A_GROUP = 96, 12
_PAPER, _EMPTY = (255, 255, 255), (222, 222, 222)


class Found(NamedTuple):
    """A picture of the collection in a list of results.

    Attributes:
        key: Its unique name.
        row: Its row.
        score: Its cosine similarity to the query, or to the first picture of its group.
        group: The number of its group of near-duplicates, from 1, or None.
    """

    key: str
    row: int
    score: float
    group: int | None = None

    @property
    def name(self) -> str:
        """The last component of the key."""
        return PurePosixPath(self.key.replace("\\", "/")).name or self.key


@dataclass(frozen=True)
class Search:
    """A query that has been encoded.

    Attributes:
        words: What was searched, in words.
        vector: The vector of the query (D,), float32, of length 1.
        left_out: The rows that are left out of the results.
        count: The number of results over all pages.
    """

    words: str
    vector: NDArray[np.float32]
    left_out: frozenset[int]
    count: int

    @property
    def pages(self) -> int:
        """The number of pages, at least 1."""
        return max(1, math.ceil(self.count / PER_PAGE))


class NearDuplicates(NamedTuple):
    """Near-duplicates of the collection.

    Attributes:
        found: The first pictures of the first groups.
        groups: The number of all groups.
        members: The number of pictures that are near-duplicates of the first of their group.
    """

    found: list[Found]
    groups: int
    members: int


def begin_search(
    demo: Demo, words: str, picture: str | None, without: str, like: Sequence[str], watch: Watch
) -> Search:
    """Encodes a query: the average of words, a picture and pictures of the collection.

    Args:
        demo: The model and the collection.
        words: A text, which may be blank.
        picture: The file of a picture, or None.
        without: A text whose direction is removed from the query, which may be blank.
        like: Keys of the collection, which are left out of the results.
        watch: Measures the steps.

    Raises:
        ArgumentError: The query is empty, or nothing of it remains.
        LabelError: A text is too long.
        HfclipError: As `hfclip.search.queries.vector_of`.
    """
    embeddings = collection_of(demo)
    text, removed = read_query(words, demo.limits), read_query(without, demo.limits)
    if text is None and picture is None and not like:
        raise ArgumentError("There is nothing to search. Write words, or choose a picture.")
    if picture is not None:
        check_picture(picture, "The picture", demo.limits, demo.resized)
    query = Query(
        texts=[text] if text else [],
        images=[Path(picture).read_bytes()] if picture else [],
        like=like,
        without=[removed] if removed else [],
    )
    with watch.step("encoding the query"):
        vector = vector_of(query, embeddings, lambda: demo.loaded)
    left_out = frozenset(embeddings.position(key) for key in like)
    count = min(len(embeddings) - len(left_out), demo.limits.results)
    return Search(_described(text, picture, removed, like), vector, left_out, count)


def page_of(demo: Demo, search: Search, number: int, watch: Watch) -> list[Found]:
    """Returns a page of results, best first.

    Args:
        demo: The collection.
        search: The query.
        number: The number of the page, from 0.
        watch: Measures the steps.
    """
    embeddings = collection_of(demo)
    begin = number * PER_PAGE
    end = min(begin + PER_PAGE, search.count)
    with watch.step("searching"):
        rows, scores = Searcher(embeddings).nearest(search.vector[None], end + len(search.left_out))
    found = [
        Found(embeddings.keys[int(row)], int(row), float(score))
        for row, score in zip(rows[0], scores[0], strict=True)
        if int(row) not in search.left_out
    ]
    return found[begin:end]


def near_duplicates(demo: Demo, threshold: float, watch: Watch) -> NearDuplicates:
    """Finds near-duplicates in the collection.

    Args:
        demo: The collection.
        threshold: The smallest cosine similarity, above 0 and at most 1.
        watch: Measures the steps.

    Raises:
        DataError: The collection is too large for a page.
        ArgumentError: The threshold is out of range.
    """
    embeddings = collection_of(demo)
    if len(embeddings) > demo.limits.rows:
        raise DataError(
            f"The collection has {len(embeddings):,} pictures; this page compares up to "
            f"{demo.limits.rows:,}. Use `hfclip duplicates`."
        )
    with watch.step("comparing"):
        duplicates = demo.duplicates.get(
            threshold, lambda: find_duplicates(embeddings.vectors, threshold)
        )
        groups = list(duplicates.groups())
    found = [
        Found(embeddings.keys[row], row, float(duplicates.scores[row]), number)
        for number, rows in enumerate(groups, 1)
        for row in rows[:OF_A_GROUP].tolist()
    ]
    return NearDuplicates(list(islice(found, SHOWN)), len(groups), duplicates.members)


def thumbnails(demo: Demo, found: Sequence[Found], watch: Watch) -> list[Image.Image]:
    """Reads small pictures of results. A picture that cannot be read is a grey square."""
    embeddings = collection_of(demo)
    manifest = embeddings.manifest
    with watch.step("reading thumbnails"):
        read = [
            read_thumbnail(
                item,
                SIDE,
                _PAPER,
                auto_orient=manifest.auto_orient,
                max_pixels=min(manifest.max_pixels, demo.limits.pixels),
            )
            for item in embeddings.items([one.row for one in found])
        ]
    return [Image.new("RGB", (SIDE, SIDE), _EMPTY) if isinstance(one, str) else one for one in read]


def collection_of(demo: Demo) -> "Embeddings":
    """Returns the collection of a page.

    Raises:
        DataError: The page has none.
    """
    if demo.embeddings is None:
        raise DataError("This page has no collection. Start it with --embeddings.")
    return demo.embeddings


def _described(
    text: str | None, picture: str | None, without: str | None, like: Sequence[str]
) -> str:
    parts = [
        *([f"“{text}”"] if text else []),
        *(["the picture"] if picture else []),
        *(f"like {key}" for key in like),
    ]
    return " and ".join(parts) + (f", without “{without}”" if without else "")
