"""An index of a collection: approximate search, with its recall measured when it is built.

The lists of the index give candidates. Each candidate is scored with the float32 matrix, so scores
are those of exact search. The number of candidates does not depend on how many rows are asked for,
so the 5 best are the first 5 of the 15 best.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfclip.atomic import synced, write_text, written_whole
from hfclip.errors import ArgumentError, DataError
from hfclip.search.exact import search
from hfclip.search.lists import Lists, choose_kind, load_faiss, write_lists
from hfclip.search.recall import Question, Recall, ask, choose_held_out

MOST = 200
"""Largest number of rows for a query."""

FEWEST_ROWS = 1_000
"""Smallest number of rows that an index is built for."""

WORTHWHILE = 1_000_000
"""Number of rows below which one pass of exact search takes less than about 50 milliseconds."""

# Rows that are scored exactly for each query.
_CANDIDATES = 400
# Reading more than a quarter of the lists is not faster than exact search.
_LARGEST_SHARE = 4
_FACTS = "index.json"
# Seconds without a change after which an unfinished index counts as left by a killed process.
_ABANDONED = 3_600
_BUILD = "Build it with: hfclip search OUT --index"


@dataclass(frozen=True)
class Facts:
    """What is known about an index.

    Attributes:
        stamp: The state of the collection that it was built from.
        rows: The number of rows.
        dimension: The width of the vectors.
        lists: The number of lists.
        bits: The bits of a number in the lists.
        probes: The number of lists that a search reads.
        asked: The recall that was asked for.
        recall: The share of the 10 best rows of exact search that is found, by kind of query.
        queries: The number of queries that it was measured with, by kind.
        files: The names of the files with the lists.
        faiss: The version of faiss.
    """

    stamp: str
    rows: int
    dimension: int
    lists: int
    bits: int
    probes: int
    asked: float
    recall: dict[str, float]
    queries: dict[str, int]
    files: list[str]
    faiss: str

    @property
    def sentence(self) -> str:
        """The recall in one line, for a person who reads results of the index."""
        shares = ", ".join(
            f"{share:.3f} of the 10 best for {kind}" for kind, share in self.recall.items()
        )
        return (
            f"Index: finds {shares} (measured against exact search when it was built); reads "
            f"{self.probes:,} of {self.lists:,} lists."
        )


class Index:
    """An index of a collection, opened for searching.

    Attributes:
        facts: What is known about it.
    """

    def __init__(self, facts: Facts, lists: Lists) -> None:
        self.facts = facts
        self._lists = lists

    def search(
        self,
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
        top: int,
        *,
        norms: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds rows with large scores, most of them those that exact search finds.

        Args:
            vectors: Matrix (N, D), float32, that the index was built from.
            queries: Matrix (Q, D), float32, with finite values.
            top: Number of rows for each query, at most `MOST`.
            norms: The norms of the vectors (N,), float32, or None for vectors of length 1.

        Returns:
            Row numbers (Q, K), int64, and scores (Q, K), float32, with K = min(top, N), as exact
            search returns them.

        Raises:
            ArgumentError: `top` is too large, or an argument does not fit the index.
        """
        if not 1 <= top <= MOST:
            raise ArgumentError(
                f"An index gives 1 to {MOST} rows, asked for {top}. Search exactly for more: leave "
                "--index out."
            )
        expected = self.facts.rows, self.facts.dimension
        if vectors.shape != expected or queries.shape[1:] != expected[1:]:
            raise ArgumentError(
                f"Expected vectors {expected} and queries (Q, {expected[1]}), found "
                f"{vectors.shape} and {queries.shape}."
            )
        return _search(self._lists, vectors, queries, top, norms, self.facts.probes)


def _search(
    lists: Lists,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    top: int,
    norms: NDArray[np.float32] | None,
    probes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rows, scores = [], []
    for query, candidates in zip(
        queries, lists.candidates(queries, _CANDIDATES, probes), strict=True
    ):
        chosen = _enough(lists, query[None], candidates, probes)
        best, score = search(
            vectors[chosen],
            query[None],
            min(top, len(vectors)),
            norms=None if norms is None else norms[chosen],
        )
        rows.append(chosen[best[0]])
        scores.append(score[0])
    shape = len(queries), min(top, len(vectors))
    return (
        np.array(rows, np.int64).reshape(shape),
        np.array(scores, np.float32).reshape(shape),
    )


def _enough(
    lists: Lists, query: NDArray[np.float32], candidates: NDArray[np.int64], probes: int
) -> NDArray[np.int64]:
    """Returns candidates for the largest `top`, from more lists if these have too few rows.

    What is asked for plays no part, so that it does not change the candidates.
    """
    while len(candidates) < min(MOST, lists.rows) and probes < lists.count:
        probes *= 2
        [candidates] = lists.candidates(query, _CANDIDATES, probes)
    return candidates


def open_index(folder: Path, stamp: str, *, recall: float | None = None) -> Index:
    """Opens the index of a collection.

    Args:
        folder: The folder of the index.
        stamp: The present state of the collection.
        recall: The recall that is asked for, or None for that of the index.

    Raises:
        DataError: There is no index, it is damaged, the collection has changed since it was built,
            or its recall is lower than what is asked for.
    """
    try:
        facts = Facts(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(f"There is no index. {_BUILD}") from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / _FACTS} is damaged ({error}). {_BUILD}") from error
    if facts.stamp != stamp:
        raise DataError(f"The collection has changed since its index was built. {_BUILD}")
    if recall is not None and min(facts.recall.values()) < recall:
        raise DataError(
            f"The index has a recall of {min(facts.recall.values()):.3f}, asked for {recall}. "
            f"{_BUILD} --recall {recall}"
        )
    return Index(facts, Lists([folder / name for name in facts.files]))


def build_index(
    folder: Path,
    vectors: NDArray[np.float32],
    stamp: str,
    *,
    recall: float = 0.95,
    name: str = "images",
    others: Callable[[], Mapping[str, NDArray[np.float32]]] = dict,
    norms: NDArray[np.float32] | None = None,
    progress: bool = False,
) -> Index:
    """Builds an index, measures its recall, and writes it as a whole or not at all.

    The search reads as few lists as reach the recall for every kind of query. Memory is bounded:
    the rows are read in blocks, and the lists are written in several files if they are large.

    Args:
        folder: The folder of the index. An earlier one is replaced at the end.
        vectors: Matrix (N, D), float32.
        stamp: The present state of the collection.
        recall: The share of the 10 best rows of exact search that must be found.
        name: The kind of the rows. Some of them, which the centroids are not computed from, are
            searched as if they were not in the collection.
        others: Returns other queries (Q, D) by kind, such as the embeddings of captions, which are
            distributed differently from pictures. Rows with NaN are left out.
        norms: The norms of the vectors (N,), float32, or None for vectors of length 1.
        progress: Whether to show progress bars on standard error.

    Raises:
        ArgumentError: `recall` is not above 0 and at most 1.
        DataError: faiss is missing, the collection is too small, the recall is not reached, or the
            files cannot be written.
    """
    if not 0 < recall <= 1:
        raise ArgumentError(f"Expected a recall above 0 and at most 1, found {recall}.")
    if len(vectors) < FEWEST_ROWS:
        raise DataError(
            f"A collection of {len(vectors):,} rows needs no index; it takes {FEWEST_ROWS:,} rows "
            "or more. Search without --index."
        )
    faiss = load_faiss()
    kind = choose_kind(*vectors.shape)
    held_out = choose_held_out(len(vectors))
    queries = others()
    _remove_unfinished(folder)
    with written_whole(folder) as part:
        files = write_lists(part, vectors, norms, kind, held_out, progress=progress)
        lists = Lists([part / file for file in files])
        questions = ask(vectors, norms, held_out, name, queries)
        probes, reached = _tune(lists, vectors, norms, questions, recall)
        del lists
        facts = Facts(
            stamp=stamp,
            rows=len(vectors),
            dimension=vectors.shape[1],
            lists=kind.lists,
            bits=kind.bits,
            probes=probes,
            asked=recall,
            recall=reached,
            queries={question.name: len(question.queries) for question in questions},
            files=files,
            faiss=faiss.__version__,
        )
        write_text(part / _FACTS, json.dumps(asdict(facts), indent=2) + "\n")
        synced(part)
        _set_aside(folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)
    return open_index(folder, stamp)


def _tune(
    lists: Lists,
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32] | None,
    questions: Sequence[Question],
    least: float,
) -> tuple[int, dict[str, float]]:
    """Returns the smallest number of lists that reaches a recall, to an eighth, and the recall."""

    def measured(probes: int) -> dict[str, Recall]:
        return {
            question.name: question.recall(
                lambda queries, top: _search(lists, vectors, queries, top, norms, probes)
            )
            for question in questions
        }

    # Lists of average size then have as many rows as are scored.
    high = min(lists.count, -(-_CANDIDATES * lists.count // lists.rows))
    low, most = high - 1, max(high, lists.count // _LARGEST_SHARE)
    reached = measured(high)
    while _lowest(reached) < least:
        if high == most:
            kind, (share, _) = min(reached.items(), key=lambda item: item[1].safe)
            raise DataError(
                f"The index finds {share:.3f} of the 10 best for {kind} with a quarter of its "
                f"lists, asked for {least}. Reading more is not faster than exact search. Search "
                f"without --index, or accept less with --recall."
            )
        low, high = high, min(2 * high, most)
        reached = measured(high)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        recall = measured(middle)
        if _lowest(recall) < least:
            low = middle
        else:
            high, reached = middle, recall
    return high, {kind: recall.share for kind, recall in reached.items()}


def _lowest(recalls: Mapping[str, Recall]) -> float:
    return min(recall.safe for recall in recalls.values())


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.earlier.part")


def _remove_unfinished(folder: Path) -> None:
    """Removes what killed processes have left."""
    for path in folder.parent.glob(f".{folder.name}.*.part"):
        changed = max(one.stat().st_mtime for one in [path, *path.glob("*")])
        if time.time() - changed > _ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _set_aside(folder: Path) -> None:
    """Renames an earlier index, so that the new one takes its place in one step."""
    shutil.rmtree(_aside(folder), ignore_errors=True)
    if folder.exists():
        folder.rename(_aside(folder))
