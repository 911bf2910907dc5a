"""Finds near-duplicates: rows whose cosine with an earlier row reaches a threshold.

A group is a first row and all later rows that reach the threshold with it. Connected components
would join rows that are not similar through a chain of rows that are, and complete linkage needs
all pairs in memory. Here every member is similar to the first of its group, no two firsts are
similar, and memory is constant for each row, even if all rows are equal. A row that is similar to
several firsts belongs to the earliest of them, so equal rows are always in one group.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hfclip.errors import ArgumentError

BLOCK = 4_096
"""Rows of one block. The products of two blocks take 64 MiB."""

# Cosines of equal rows differ from 1 by rounding, so a threshold of 1 finds them too.
_TOLERANCE = 1e-6
# Rows of a block of products from which pairs are taken at once.
_SLICE = 256


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, most similar first.

    Attributes:
        rows: The two rows of each pair (P, 2), int64, the earlier row first.
        scores: Their cosines (P,), float32.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Duplicates:
    """The near-duplicates among N rows.

    Attributes:
        firsts: For each row the first row of its group (N,), int64; itself for a first row and for
            a row without near-duplicates.
        scores: The cosine of each row with that row (N,), float32.
        count: The number of all pairs that reach the threshold.
        pairs: The most similar of these pairs.
    """

    firsts: NDArray[np.int64]
    scores: NDArray[np.float32]
    count: int
    pairs: Pairs

    @property
    def members(self) -> int:
        """The number of rows that are similar to the first row of their group."""
        return int((self.firsts != np.arange(len(self.firsts))).sum())

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """Yields the rows of each group: the first row, then the others, most similar first.

        Groups are in the order of their first rows. Rows that are alone are left out.
        """
        rows = np.flatnonzero(self.firsts != np.arange(len(self.firsts)))
        rows = rows[np.lexsort((rows, -self.scores[rows], self.firsts[rows]))]
        firsts = self.firsts[rows]
        ends = np.append(np.flatnonzero(np.diff(firsts)) + 1, len(rows))
        start = 0
        for end in ends[ends > 0]:
            yield np.concatenate([firsts[start : start + 1], rows[start:end]])
            start = end


def find_duplicates(
    vectors: NDArray[np.float32],
    threshold: float,
    *,
    limit: int = 0,
    block: int = BLOCK,
    progress: bool = False,
) -> Duplicates:
    """Compares all pairs of rows by their cosine, in blocks.

    Args:
        vectors: Matrix (N, D), float32, of any lengths. A row of zeros has no near-duplicate.
        threshold: The smallest cosine of near-duplicates, above 0 and at most 1.
        limit: The largest number of pairs that are kept; the most similar ones.
        block: Number of rows that are compared at once with as many.
        progress: Whether to show a progress bar on standard error.

    Raises:
        ArgumentError: `threshold` is out of range, or `limit` or `block` is too small.
    """
    if not 0 < threshold <= 1:
        raise ArgumentError(f"Expected a threshold above 0 and at most 1, found {threshold}.")
    if limit < 0 or block < 1:
        raise ArgumentError(f"Expected limit >= 0 and block >= 1, found {limit} and {block}.")
    rows = _Unit(vectors, block)
    found = _Found(rows, threshold - _TOLERANCE, limit)
    total = len(vectors) * (len(vectors) - 1) // 2
    with tqdm(total=total, unit="pair", unit_scale=True, disable=None if progress else True) as bar:
        for start in range(0, len(vectors), block):
            current = rows.block(start)
            for other in range(0, start, block):
                earlier = rows.block(other)
                found.add(start, other, current @ earlier.T)
                bar.update(len(current) * len(earlier))
            found.add_within(start, current @ current.T)
            bar.update(len(current) * (len(current) - 1) // 2)
    return Duplicates(
        found.firsts,
        rows.cosines(np.arange(len(vectors)), found.firsts),
        found.count,
        found.best_pairs(),
    )


class _Unit:
    """The rows of a matrix, with length 1."""

    def __init__(self, vectors: NDArray[np.float32], block: int) -> None:
        self._vectors = vectors
        self._block = block
        self._inverse = np.zeros(len(vectors), np.float32)
        for start in range(0, len(vectors), block):
            norms = np.linalg.norm(vectors[start : start + block], axis=1)
            np.divide(1, norms, out=self._inverse[start : start + block], where=norms > 0)

    def __len__(self) -> int:
        return len(self._vectors)

    def block(self, start: int) -> NDArray[np.float32]:
        """Returns a block (B, D) that begins at row `start`."""
        part = slice(start, start + self._block)
        return self._vectors[part] * self._inverse[part, None]

    def cosines(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the cosine of each row with another one; 1 with itself.

        The sums are made in float64 for each pair alone, so they do not depend on the block.
        """
        cosines = np.ones(len(rows), np.float32)
        different = np.flatnonzero(rows != others)
        for start in range(0, len(different), self._block):
            part = different[start : start + self._block]
            first, second = (
                self._vectors[index[part]].astype(np.float64) for index in (rows, others)
            )
            norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            cosines[part] = (first * second).sum(axis=1) / norms
        return cosines


class _Found:
    """The groups and pairs in the blocks so far. Blocks are added in ascending order.

    Attributes:
        firsts: For each row the first row of its group (N,), int64.
        count: The number of pairs.
    """

    def __init__(self, rows: _Unit, least: float, limit: int) -> None:
        self.firsts = np.arange(len(rows))
        self.count = 0
        self._rows = rows
        self._least = np.float32(least)
        self._limit = limit
        self._pairs = np.empty((0, 2), np.int64)
        self._products = np.empty(0, np.float32)

    def add(self, start: int, other: int, products: NDArray[np.float32]) -> None:
        """Adds the products (B, C) of a block at row `start` with an earlier one at row `other`."""
        close = np.flatnonzero(products.max(axis=1) >= self._least)
        if not len(close):
            return
        self._add_pairs(start, other, products, close)
        columns = np.arange(other, other + products.shape[1])
        leading = np.flatnonzero(self.firsts[columns] == columns)
        alone = close[self.firsts[start + close] == start + close]
        if len(leading) and len(alone):
            reached = products[np.ix_(alone, leading)] >= self._least
            found = reached.any(axis=1)
            self.firsts[start + alone[found]] = other + leading[reached.argmax(axis=1)[found]]

    def add_within(self, start: int, products: NDArray[np.float32]) -> None:
        """Adds the products (B, B) of a block with itself. Changes `products`."""
        rows = np.arange(len(products))
        products[rows[:, None] <= rows] = -np.inf  # keeps pairs with an earlier row
        close = np.flatnonzero(products.max(axis=1) >= self._least)
        if not len(close):
            return
        self._add_pairs(start, start, products, close)
        leads = self.firsts[start : start + len(rows)] == start + rows
        for row in close[leads[close]]:
            earlier = np.flatnonzero((products[row] >= self._least) & leads)
            if len(earlier):
                self.firsts[start + row] = start + earlier[0]
                leads[row] = False

    def _add_pairs(
        self, start: int, other: int, products: NDArray[np.float32], close: NDArray[np.int64]
    ) -> None:
        for begin in range(0, len(close), _SLICE):
            chosen = close[begin : begin + _SLICE]
            part = products[chosen]
            self.count += int(np.count_nonzero(part >= self._least))
            if not self._limit:
                continue
            above = part >= self._least
            if len(self._products) == self._limit:
                above = part > self._products[-1]
            later, earlier = np.nonzero(above)
            if len(later):
                pairs = np.stack([earlier + other, chosen[later] + start], axis=1)
                self._keep(
                    np.concatenate([self._pairs, pairs]),
                    np.concatenate([self._products, part[above]]),
                )

    def _keep(self, pairs: NDArray[np.int64], products: NDArray[np.float32]) -> None:
        order = np.lexsort((pairs[:, 1], pairs[:, 0], -products))[: self._limit]
        self._pairs, self._products = pairs[order], products[order]

    def best_pairs(self) -> Pairs:
        """Returns the most similar pairs."""
        scores = self._rows.cosines(self._pairs[:, 0], self._pairs[:, 1])
        order = np.lexsort((self._pairs[:, 1], self._pairs[:, 0], -scores))
        return Pairs(self._pairs[order], scores[order])
