"""Exact search: one pass over a float32 matrix, in blocks of rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 65_536
"""Rows of one block."""


def search(
    vectors: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    top: int,
    *,
    block: int = BLOCK,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Finds the rows with the largest inner products, for several queries in one pass.

    Args:
        vectors: Matrix (N, D), float32. A mapped file is read once.
        queries: Matrix (Q, D), float32.
        top: Number of rows for each query. At most N rows are returned.
        block: Number of rows that are multiplied at once.

    Returns:
        Row numbers (Q, K), int64, and scores (Q, K), float32, with K = min(top, N).
        The best row comes first. Equal scores are ordered by row number.

    Raises:
        ValueError: The shapes do not agree, or `top` or `block` is less than 1.
    """
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise ValueError(
            f"Expected vectors (N, D) and queries (Q, D), found {vectors.shape} and "
            f"{queries.shape}. Encode the queries with the model that made the vectors."
        )
    if top < 1 or block < 1:
        raise ValueError(f"Expected top and block of at least 1, found {top} and {block}.")
    rows = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), block):
        products = queries @ vectors[start : start + block].T
        found = [_best(line, min(top, products.shape[1])) for line in products]
        if not found:
            break
        local = np.stack(found)
        values = np.take_along_axis(products, local, axis=1)
        rows = np.concatenate([rows, local + start], axis=1)
        scores = np.concatenate([scores, values], axis=1)
        order = np.stack([np.lexsort((r, -s)) for r, s in zip(rows, scores, strict=True)])[:, :top]
        rows = np.take_along_axis(rows, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
    return rows, scores


def _best(line: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Returns the `count` best positions of a line; a tie at the limit goes to the first rows."""
    limit = np.partition(line, len(line) - count)[len(line) - count]
    above = np.flatnonzero(line > limit)
    equal = np.flatnonzero(line == limit)[: count - len(above)]
    return np.concatenate([above, equal]).astype(np.int64)
