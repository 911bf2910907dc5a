"""Measures which share of the best rows an approximate search finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hfclip.search.exact import search

BEST = 10
"""Number of rows that an exact search gives for each query of a measurement."""

QUERIES = 400
"""Largest number of queries of one kind."""

# Rows that are checked at once.
BLOCK = 65_536

# Takes queries (Q, D) and a number of rows. Returns row numbers and scores, (Q, K).
Search: TypeAlias = Callable[
    [NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]
]


class Recall(NamedTuple):
    """The share of the best rows that a search finds.

    Attributes:
        share: The mean over the queries.
        error: Its standard error.
    """

    share: float
    error: float

    @property
    def safe(self) -> float:
        """The share less its standard error, because the same queries choose what is measured."""
        return self.share - self.error


@dataclass(frozen=True)
class Question:
    """Queries of one kind with the answers of exact search.

    Attributes:
        name: The kind, such as "images" or "captions".
        queries: Matrix (Q, D), float32.
        own: The rows (Q,) that the queries are, which count as not in the collection; -1 for
            queries that are no rows.
        least: The score (Q,) of the last of the best rows.
        count: The number of best rows.
    """

    name: str
    queries: NDArray[np.float32]
    own: NDArray[np.int64]
    least: NDArray[np.float32]
    count: int

    def recall(self, approximate: Search) -> "Recall":
        """Measures the share of the best rows that a search finds.

        A row counts if its score is at least that of the last of the best rows. So any of several
        equal rows counts.
        """
        rows, scores = approximate(self.queries, self.count + 1)
        shares = [
            float((score[row != own][: self.count] >= least).mean())
            for own, least, row, score in zip(self.own, self.least, rows, scores, strict=True)
        ]
        return Recall(float(np.mean(shares)), float(np.std(shares)) / len(shares) ** 0.5)


def choose_held_out(rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Chooses the rows that serve as queries, at most a tenth of all, in ascending order."""
    random = np.random.default_rng(seed)
    return np.sort(random.choice(rows, min(QUERIES, rows // 10), replace=False))


def ask(
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32] | None,
    held_out: NDArray[np.int64],
    name: str,
    others: Mapping[str, NDArray[np.float32]],
) -> list[Question]:
    """Answers the queries of a measurement by exact search, in one pass over the vectors.

    Args:
        vectors: Matrix (N, D), float32, N at least 2.
        norms: The norms of the vectors (N,), float32, or None for vectors of length 1.
        held_out: The rows that serve as queries (Q,).
        name: The kind of these queries.
        others: Queries (Q, D), float32, by their kind. Rows with NaN are left out; of many, a
            random choice is taken.
    """
    random = np.random.default_rng(len(held_out))
    kinds = {name: (np.asarray(vectors[held_out]), held_out)}
    for other, queries in others.items():
        chosen = _choose_finite(queries, random)
        if len(chosen):
            kinds[other] = np.asarray(queries[chosen]), np.full(len(chosen), -1)
    count = min(BEST, len(vectors) - 1)
    rows, scores = search(
        vectors, np.concatenate([queries for queries, _ in kinds.values()]), count + 1, norms=norms
    )
    questions, start = [], 0
    for kind, (queries, own) in kinds.items():
        part = slice(start, start := start + len(queries))
        least = [
            score[row != me][count - 1]
            for me, row, score in zip(own, rows[part], scores[part], strict=True)
        ]
        questions.append(Question(kind, queries, own, np.array(least, np.float32), count))
    return questions


def _choose_finite(queries: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.int64]:
    """Chooses at most `QUERIES` rows without NaN, ascending. Reads the rows in blocks."""
    blocks = range(0, len(queries), BLOCK)
    counts = [len(_finite(queries[start : start + BLOCK])) for start in blocks]
    total = sum(counts)
    places = np.sort(random.choice(total, min(QUERIES, total), replace=False))
    chosen, before = [np.empty(0, np.int64)], 0
    for start, count in zip(blocks, counts, strict=True):
        first, last = np.searchsorted(places, [before, before + count])
        if first < last:
            valid = _finite(queries[start : start + BLOCK])
            chosen.append(start + valid[places[first:last] - before])
        before += count
    return np.concatenate(chosen)


def _finite(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(rows).all(axis=1))
