"""Exact search: one pass over a float32 matrix, in blocks of rows.

A matrix product gives a row another last bit when it is computed for other shapes. Scores therefore
come from a second step: the product only selects candidates, within the bound of its rounding
errors, and each candidate is scored alone, in float64. So neither the score of a row nor the order
depends on the number of queries, on `top` or on the block.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hfclip.errors import ArgumentError

BLOCK = 262_144
"""Rows of one block."""

# Candidates that are scored at once.
_SCORED = 4_096
# So many products of the matrix and a vector are faster than one product of two matrices.
_FEW = 4
# Largest number of scores of a block, for many queries: 32 MiB.
_PRODUCTS = 2**23


def search(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    top: int,
    *,
    norms: NDArray[np.float32] | None = None,
    block: int = BLOCK,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Finds the rows with the largest scores, for several queries in one pass.

    Args:
        vectors: Matrix (N, D), float32, with finite values. A mapped file is read once.
        queries: Matrix (Q, D), float32, with finite values.
        top: Number of rows for each query. At most N rows are returned.
        norms: The norms of the vectors (N,), float32. The score is then the inner product divided
            by the norm. None for vectors of length 1: the score is the inner product.
        block: Largest number of rows that are multiplied at once.

    Returns:
        Row numbers (Q, K), int64, and scores (Q, K), float32, with K = min(top, N).
        The best row comes first. Equal scores are ordered by row number.

    Raises:
        ArgumentError: The shapes do not agree, a query is not finite, or `top` or `block` is less
            than 1.
    """
    _check(vectors, queries, top, norms, block)
    found = [_Best(query, min(top, len(vectors))) for query in queries]
    block = max(1, min(block, _PRODUCTS // max(1, len(queries))))
    for start in range(0, len(vectors), block):
        rows = vectors[start : start + block]
        lengths = None if norms is None else norms[start : start + block]
        for best, products in zip(found, _products(rows, queries, lengths), strict=True):
            best.add(start, rows, products, lengths)
    shape = len(found), min(top, len(vectors))
    return (
        np.array([best.rows for best in found], np.int64).reshape(shape),
        np.array([best.scores for best in found], np.float32).reshape(shape),
    )


def _check(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    top: int,
    norms: NDArray[np.float32] | None,
    block: int,
) -> None:
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise ArgumentError(
            f"Expected vectors (N, D) and queries (Q, D), found {vectors.shape} and "
            f"{queries.shape}. Encode the queries with the model that made the vectors."
        )
    if norms is not None and norms.shape != vectors.shape[:1]:
        raise ArgumentError(f"Expected norms ({len(vectors)},), found {norms.shape}.")
    if top < 1 or block < 1:
        raise ArgumentError(f"Expected top and block of at least 1, found {top} and {block}.")
    if not np.isfinite(queries).all():
        raise ArgumentError("A query has values that are not finite (NaN or infinity).")


def _products(
    rows: NDArray[np.float32], queries: NDArray[np.float32], norms: NDArray[np.float32] | None
) -> Iterator[NDArray[np.float32]]:
    """Yields approximate scores (B,) of a block for each query."""
    few = len(queries) <= _FEW
    lines = (rows @ query for query in queries) if few else iter(queries @ rows.T)
    yield from lines if norms is None else (line / _divisors(norms) for line in lines)


def _divisors(norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the norms, with 1 for a vector of zeros, whose score is 0."""
    return np.where(norms > 0, norms, np.float32(1))


class _Best:
    """The best rows for one query in the blocks so far.

    Attributes:
        rows: The row numbers (k,), best first.
        scores: Their scores (k,), float32.
    """

    def __init__(self, query: NDArray[np.float32], count: int) -> None:
        self.rows = np.empty(0, np.int64)
        self.scores = np.empty(0, np.float32)
        self._count = count
        self._query = query.astype(np.float64)
        # A sum of D products in any order has an error of at most about D * 2**-24 times the norms
        # (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3); here twice that.
        self._error = float(np.linalg.norm(self._query)) * (len(query) + 2) * 2.0**-23

    def add(
        self,
        start: int,
        rows: NDArray[np.float32],
        products: NDArray[np.float32],
        norms: NDArray[np.float32] | None,
    ) -> None:
        """Adds the rows (B, D) of a block, which begins at row `start`."""
        for chosen in self._candidates(products):
            scores = self._scores(rows[chosen], None if norms is None else norms[chosen])
            self.rows = np.concatenate([self.rows, chosen + start])
            self.scores = np.concatenate([self.scores, scores])
            order = np.lexsort((self.rows, -self.scores))[: self._count]
            self.rows, self.scores = self.rows[order], self.scores[order]

    def _candidates(self, products: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
        """Yields the positions of all rows of a block that may belong to the best, in pieces."""
        limit = -np.inf
        if len(self.rows) == self._count:
            limit = float(self.scores[-1]) - self._error
        chosen = np.flatnonzero(products >= limit)
        if len(chosen) > 2 * self._count:
            candidates = products[chosen]
            best = np.partition(candidates, len(chosen) - self._count)[-self._count]
            chosen = chosen[candidates >= float(best) - 2 * self._error]
        for begin in range(0, len(chosen), _SCORED):
            yield chosen[begin : begin + _SCORED]

    def _scores(
        self, rows: NDArray[np.float32], norms: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Returns the scores of rows. Each row is summed alone, so its score is always the same."""
        scores: NDArray[np.float64] = (rows.astype(np.float64) * self._query).sum(axis=1)
        if norms is not None:
            scores = scores / _divisors(norms)
        return scores.astype(np.float32)
