"""The lists of an index: rows grouped by their nearest centroid, in the files of faiss.

A search reads the lists whose centroids are nearest to the query. Rows are stored with 8 or 4 bits
a number; `index` scores the candidates again with the float32 matrix. HNSW, the other common kind,
is not used: it is built in memory, with 4 bytes a number.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hfclip.atomic import synced
from hfclip.errors import DataError
from hfclip.images.reading import core_count

# Rows that are added at once.
_BLOCK = 16_384
_ITERATIONS = 10
# Rows of the sample for each centroid. The clustering of faiss warns below 39.
_POINTS = 50
_FEWEST_POINTS = 39
# Bytes of the largest sample, and of the lists that are kept in memory before they are written.
_MEMORY = 2**30
# Bytes of codes up to which a number gets 8 bits: half the memory of a machine with 16 GiB.
_LARGEST_8_BITS = 2**33
_SEED = 0


@dataclass(frozen=True)
class Kind:
    """The size of an index.

    Attributes:
        lists: The number of lists.
        bits: The bits of a number in the lists, 8 or 4.
        sample: The number of rows that the centroids are computed from.
    """

    lists: int
    bits: int
    sample: int


def choose_kind(rows: int, dimension: int) -> Kind:
    """Chooses the kind of index for (rows, dimension) vectors.

    The number of lists is 4 times the root of the number of rows, the lower end of the range in the
    guidelines of faiss, as long as a sample in bounded memory has enough rows for each of them.
    """
    largest = min(rows, _MEMORY // (4 * dimension))
    lists = max(1, min(int(4 * rows**0.5), largest // _FEWEST_POINTS))
    bits = 8 if rows * dimension <= _LARGEST_8_BITS else 4
    return Kind(lists, bits, min(largest, lists * _POINTS))


def load_faiss() -> Any:
    """Imports faiss.

    Raises:
        DataError: faiss is not installed.
    """
    try:
        import faiss  # noqa: PLC0415
    except ImportError as error:
        raise DataError("An index needs faiss: pip install 'hfclip[index]'.") from error
    return faiss


def write_lists(
    folder: Path,
    vectors: NDArray[np.float32],
    norms: NDArray[np.float32] | None,
    kind: Kind,
    held_out: NDArray[np.int64],
    *,
    memory: int = _MEMORY,
    progress: bool = False,
) -> list[str]:
    """Groups vectors by centroids and writes them to files.

    The same vectors give the same files on the same machine. Memory holds the sample, one block of
    rows and the lists of one file. It does not grow with the number of rows, apart from the list of
    files.

    Args:
        folder: The folder to write to.
        vectors: Matrix (N, D), float32.
        norms: Their norms (N,), float32, which they are divided by, or None.
        kind: The number of lists and the precision.
        held_out: The rows that the centroids are not computed from.
        memory: The bytes of the lists that are kept in memory before they are written.
        progress: Whether to show progress bars on standard error.

    Returns:
        The names of the files.

    Raises:
        DataError: faiss is missing, or the files cannot be written.
    """
    faiss = load_faiss()
    random = np.random.default_rng(_SEED)
    chosen = _sampled(random, len(vectors), held_out, kind.sample)
    index = _trained(faiss, _unit(vectors, norms, chosen), kind, progress=progress)
    names: list[str] = []
    with tqdm(
        total=len(vectors), desc="grouping", unit="row", disable=None if progress else True
    ) as bar:
        for start in range(0, len(vectors), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(vectors)))
            index.add_with_ids(_unit(vectors, norms, rows), rows)
            if index.ntotal * (index.code_size + 8) >= memory or rows[-1] == len(vectors) - 1:
                names.append(f"lists-{len(names):04}.faiss")
                _write(faiss, index, folder / names[-1])
                index.reset()
            bar.update(len(rows))
    return names


def _sampled(
    random: np.random.Generator, rows: int, held_out: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Chooses rows that are not held out, ascending, without a list of all rows.

    The places among the free rows are drawn. Each row number is its place plus the number of rows
    before it that are held out.
    """
    free = rows - len(held_out)
    places = np.sort(random.choice(free, min(count, free), replace=False, shuffle=False))
    before = np.searchsorted(held_out - np.arange(len(held_out)), places, side="right")
    return places + before


def _trained(faiss: Any, sample: NDArray[np.float32], kind: Kind, *, progress: bool) -> Any:
    """Returns an index without rows whose centroids are trained."""
    dimension = sample.shape[1]
    centroids = faiss.IndexFlatIP(dimension)
    clustering = faiss.Clustering(dimension, kind.lists)
    clustering.niter = 1
    clustering.seed = _SEED
    clustering.spherical = True  # centroids of length 1, as for cosines
    clustering.min_points_per_centroid = 1  # choose_kind has seen to it; no warning on stdout
    steps = range(_ITERATIONS)
    for _ in tqdm(steps, desc="clustering", unit="step", disable=None if progress else True):
        clustering.train(sample, centroids)  # goes on from its own centroids
    codes = {8: faiss.ScalarQuantizer.QT_8bit, 4: faiss.ScalarQuantizer.QT_4bit}
    index = faiss.IndexIVFScalarQuantizer(
        centroids,
        dimension,
        kind.lists,
        codes[kind.bits],
        faiss.METRIC_INNER_PRODUCT,
        False,  # the vectors themselves, not the differences from the centroid: twice as fast
    )
    index.train(sample)
    return index


def _unit(
    vectors: NDArray[np.float32], norms: NDArray[np.float32] | None, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Returns rows (n, D), divided by their norms unless those are None."""
    chosen = vectors[rows]  # a copy
    if norms is None:
        return chosen
    lengths = np.where(norms[rows] > 0, norms[rows], 1).astype(np.float32)
    chosen /= lengths[:, None]
    return chosen


def _write(faiss: Any, index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise DataError(f"The index cannot be written to {path.parent}: {error}") from error
    synced(path)


class Lists:
    """The lists of a collection, mapped from their files.

    Attributes:
        count: The number of lists.
        rows: The number of rows in them.
    """

    def __init__(self, paths: Sequence[Path], *, threads: int | None = None) -> None:
        """Opens the files. On Windows, where faiss cannot map them, they are read.

        Args:
            paths: The files. All have the same centroids.
            threads: The number of files that are searched at once; None for one for each core.

        Raises:
            DataError: faiss is missing, or a file is missing or damaged.
        """
        self._faiss = load_faiss()
        self._parts = [_read(self._faiss, path) for path in paths]
        self._cores = core_count()
        self._threads = min(len(paths), threads or self._cores)
        self.count = int(self._parts[0].nlist)
        self.rows = sum(part.ntotal for part in self._parts)

    def candidates(
        self, queries: NDArray[np.float32], count: int, probes: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yields the rows with the best approximate scores for each query, in ascending order.

        The number of threads does not change what is found.

        Args:
            queries: Matrix (Q, D), float32.
            count: The number of rows for each query. Fewer are returned if the lists have fewer.
            probes: The number of lists that are read.
        """
        found = self._search(np.ascontiguousarray(queries), count, probes)
        scores = np.concatenate([part[0] for part in found], axis=1)
        rows = np.concatenate([part[1] for part in found], axis=1)
        for own_scores, own_rows in zip(scores, rows, strict=True):
            order = np.lexsort((own_rows, -own_scores))
            best = own_rows[order]
            yield np.sort(best[best >= 0][:count])  # -1 fills up what was not found

    def _search(
        self, queries: NDArray[np.float32], count: int, probes: int
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Returns the scores (Q, count) and rows (Q, count) that each file gives, in their order.

        faiss uses one thread for one query. The files are therefore searched side by side, which
        also lets reads from the disk overlap.
        """

        def search(part: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            # Parameters of a search, so that another thread may search with others.
            parameters = self._faiss.SearchParametersIVF(nprobe=probes)
            found: tuple[NDArray[np.float32], NDArray[np.int64]] = part.search(
                queries, count, params=parameters
            )
            return found

        def start() -> None:
            # The number applies to this thread. Together the threads use each core once.
            self._faiss.omp_set_num_threads(max(1, self._cores // self._threads))

        if self._threads == 1:
            return [search(part) for part in self._parts]
        # A pool for each search: one that is kept would not work in a process that is forked.
        with ThreadPoolExecutor(self._threads, "hfclip-search", start) as pool:
            return list(pool.map(search, self._parts))


def _read(faiss: Any, path: Path) -> Any:
    # The standard file system of Windows has no mapping in faiss.
    flags = getattr(faiss, "IO_FLAG_MMAP", 0) if hasattr(faiss, "OnDiskInvertedLists") else 0
    try:
        part = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise DataError(
            f"{path} is missing or damaged. Build the index again with --index and no query."
        ) from error
    lists = faiss.downcast_InvertedLists(part.invlists)
    if hasattr(lists, "prefetch_nthread"):
        # By default each search starts 32 threads, which take longer than the search itself.
        lists.prefetch_nthread = 0
    return part
