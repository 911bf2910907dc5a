"""Measures search over 1,000,000 x 512 embeddings: exact, with an index, and one pass over memory.

    python -m benchmarks.search vectors /tmp/vectors
    python -m benchmarks.search index /tmp/vectors /tmp/index

write the embeddings and the index. The embeddings are synthetic: clusters around a common mean, as
pictures have it in CLIP, and queries of texts, which a gap separates from them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import weights
from benchmarks.limits import elapsed
from benchmarks.measure import Case, Sample
from benchmarks.report import Highlight, Measure, Section
from benchmarks.suite import Benchmark, Options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS, WIDTH = 1_000_000, 512
GROUP = f"{ROWS:,} x {WIDTH}"
# Names of the folders in the cache.
FOLDER, INDEX = "vectors-1", "index-1"
# Queries of each kind; the index is tuned with others.
QUERIES, TUNED = 100, 400
BEST = 10
KINDS = ("pictures", "texts")
_BLOCK = 65_536
_CLUSTERS, _DIRECTIONS = 3_000, 200
_SINGLE = 30
_REPETITIONS = 3

Step = tuple[str, float]
# Takes queries (Q, D). Returns the rows of the best (Q, BEST).
Find = Callable[["NDArray[np.float32]"], "NDArray[np.int64]"]


def one_pass(folder: str) -> Iterator[Step]:
    """Sums the embeddings with all cores: no search that reads all of them is faster."""
    import torch

    vectors = torch.from_numpy(_vectors(folder).copy())
    vectors.sum()
    yield "one", 1e3 * statistics.median(elapsed(vectors.sum) for _ in range(_SINGLE))


def hfclip_exact(folder: str) -> Iterator[Step]:
    """Runs the exact search of hfclip over the mapped file."""
    from hfclip.search.exact import search

    vectors = _vectors(folder)
    yield from _measured(folder, lambda queries: search(vectors, queries, BEST)[0])


def hfclip_index(folder: str, index: str) -> Iterator[Step]:
    """Runs the index of hfclip over mapped files."""
    from hfclip.search.index import open_index

    vectors = _vectors(folder)
    opened = open_index(Path(index), FOLDER)
    yield "build", json.loads((Path(index) / "build.json").read_text())
    yield "lists", 100 * opened.facts.probes / opened.facts.lists
    yield from _measured(folder, lambda queries: opened.search(vectors, queries, BEST)[0])


def numpy(folder: str) -> Iterator[Step]:
    """Multiplies blocks of the mapped file by the queries; written for this benchmark."""
    yield from _measured(folder, partial(brute_force, _vectors(folder)))


def faiss_flat(folder: str) -> Iterator[Step]:
    """Runs the exact index of faiss, which copies the embeddings."""
    import faiss

    index = faiss.IndexFlatIP(WIDTH)
    vectors = _vectors(folder)
    yield "build", elapsed(lambda: index.add(vectors))
    yield from _measured(folder, lambda queries: index.search(queries, BEST)[1])


def _measured(folder: str, find: Find) -> Iterator[Step]:
    """Yields milliseconds for one query and for all of a kind, the recall and the memory."""
    import numpy as np

    with np.load(Path(folder) / "queries.npz") as file:
        queries = {kind: file[kind] for kind in KINDS}
        answers = {kind: file[f"{kind} best"] for kind in KINDS}
    pictures = queries["pictures"]
    find(pictures[:1])
    singles = [elapsed(partial(find, pictures[row : row + 1])) for row in range(_SINGLE)]
    yield "one", 1e3 * statistics.median(singles)
    find(pictures)
    many = [elapsed(partial(find, pictures)) for _ in range(_REPETITIONS)]
    yield "many", 1e3 * statistics.median(many)
    texts = queries["texts"]
    singles = [elapsed(partial(find, texts[row : row + 1])) for row in range(_SINGLE)]
    yield "one text", 1e3 * statistics.median(singles)
    for kind in KINDS:
        pairs = zip(find(queries[kind]), answers[kind], strict=True)
        found = [len(set(rows.tolist()) & set(best.tolist())) for rows, best in pairs]
        yield f"recall {kind}", statistics.fmean(found) / BEST
    yield "memory", _own_memory() / 1e6


def _own_memory() -> float:
    """Returns the bytes of this process that are not pages of a file."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise NotImplementedError("the system does not report the memory without mapped files")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("RssAnon:")]
    return float(line.split()[1]) * 1024


def _vectors(folder: str) -> "NDArray[np.float32]":
    """Returns the mapped embeddings after one pass over them, so that all are in memory."""
    import numpy as np

    mapped: NDArray[np.float32] = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
    vectors = mapped.view(np.ndarray)
    vectors.max()
    return vectors


def brute_force(
    vectors: "NDArray[np.float32]", queries: "NDArray[np.float32]"
) -> "NDArray[np.int64]":
    """Returns the rows of the best (Q, BEST)."""
    import numpy as np

    rows, scores = [], []
    for start in range(0, len(vectors), _BLOCK):
        products = queries @ vectors[start : start + _BLOCK].T
        best = np.argpartition(products, -BEST, axis=1)[:, -BEST:]
        rows.append(best + start)
        scores.append(np.take_along_axis(products, best, axis=1))
    order = np.argsort(-np.concatenate(scores, axis=1), axis=1)[:, :BEST]
    return np.take_along_axis(np.concatenate(rows, axis=1), order, axis=1)


def write_vectors(folder: Path, rows: int = ROWS) -> None:
    """Writes the embeddings, and queries with their best rows."""
    import numpy as np

    folder.mkdir()
    random = np.random.default_rng(0)
    draw = partial(random.standard_normal, dtype=np.float32)
    mean, gap = (_unit(draw(WIDTH)) for _ in range(2))
    # Few directions have most of the variance.
    basis = draw((_DIRECTIONS, WIDTH)) / WIDTH**0.5
    basis *= np.arange(1, _DIRECTIONS + 1, dtype=np.float32)[:, None] ** -0.5
    centers: Any = draw((_CLUSTERS, _DIRECTIONS))

    def pictures(count: int) -> Any:
        places = centers[random.integers(0, _CLUSTERS, count)] + 0.7 * draw((count, _DIRECTIONS))
        noise = 0.3 * draw((count, WIDTH)) / WIDTH**0.5
        return _unit(0.7 * places @ basis + mean + noise)

    def texts(count: int) -> Any:
        noise = 0.4 * draw((count, WIDTH)) / WIDTH**0.5
        return _unit(0.35 * (pictures(count) - 0.7 * mean) + 0.8 * gap + noise)

    shape = rows, WIDTH
    vectors: Any = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
    for start in range(0, rows, _BLOCK):
        vectors[start : start + _BLOCK] = pictures(min(_BLOCK, rows - start))
    vectors.flush()
    written: dict[str, Any] = {"pictures": pictures(QUERIES), "texts": texts(QUERIES)}
    written |= {f"{kind} best": brute_force(vectors, written[kind]) for kind in KINDS}
    np.savez(folder / "queries.npz", tuning=texts(TUNED), **written)


def _unit(vectors: Any) -> Any:
    import numpy as np

    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_index(folder: str, path: Path) -> None:
    """Builds the index of the embeddings."""
    import numpy as np

    from hfclip.search.index import build_index

    with np.load(Path(folder) / "queries.npz") as file:
        texts = file["tuning"]
    vectors = _vectors(folder)
    start = time.perf_counter()
    build_index(path, vectors, FOLDER, others=lambda: {"texts": texts}, progress=True)
    (path / "build.json").write_text(json.dumps(time.perf_counter() - start))


LIMIT, EXACT, WITH_INDEX = "one pass over memory", "hfclip", "hfclip --index"
NUMPY, FLAT = "NumPy", "faiss, IndexFlatIP"


def cases(options: Options) -> list[Case]:
    """Returns a case for each engine; writes the embeddings and the index if they do not exist."""
    folder = str(weights.written(options.cache / FOLDER, __name__, "vectors"))
    index = options.cache / INDEX
    if find_spec("faiss") is not None:
        weights.written(index, __name__, "index", folder)
    engines: dict[str, tuple[Callable[..., Iterator[Step]], tuple[str, ...]]] = {
        LIMIT: (one_pass, (folder,)),
        EXACT: (hfclip_exact, (folder,)),
        NUMPY: (numpy, (folder,)),
        FLAT: (faiss_flat, (folder,)),
        WITH_INDEX: (hfclip_index, (folder, str(index))),
    }
    return [
        Case(GROUP, engine, f"{__name__}:{task.__name__}", arguments)
        for engine, (task, arguments) in engines.items()
    ]


def _figure(name: str) -> Callable[[Sample], float | None]:
    return lambda sample: sample[name].found if name in sample else None


ONE, MANY = "One query of a picture", f"{QUERIES} queries of pictures at once"

SECTION = Section(
    name="search",
    title="Search",
    method=(
        f"The {BEST} best of {GROUP} float32 embeddings, in a fresh process, on all cores, with "
        "the files in memory. The embeddings are synthetic: clusters around a common mean, and "
        "texts that a gap separates from them. One query is the median of "
        f"{_SINGLE}. The recall is the share of the {BEST} best of a brute force in NumPy, for "
        f"{QUERIES} queries of each kind that the index was not tuned with. Memory does not count "
        "mapped files."
    ),
    baseline=EXACT,
    measures=[
        Measure(ONE, "ms", _figure("one"), {(GROUP, LIMIT): 1 / 1.3, (GROUP, FLAT): 1}),
        Measure("One query of a text", "ms", _figure("one text")),
        Measure(MANY, "ms", _figure("many"), {(GROUP, NUMPY): 1, (GROUP, FLAT): 1}),
        *(
            Measure(
                f"Recall for {kind}",
                "",
                _figure(f"recall {kind}"),
                least={(GROUP, EXACT): 1, (GROUP, WITH_INDEX): 0.95},
                compared=False,
            )
            for kind in KINDS
        ),
        Measure("Share of the lists that are read", "%", _figure("lists"), compared=False),
        Measure("Building the index", "s", _figure("build"), compared=False),
        Measure("Memory", "MB", _figure("memory"), compared=False),
    ],
    groups="embeddings",
    highlights=(
        Highlight(f"Search {GROUP}, one query, exact", ONE, GROUP, peers=(NUMPY, FLAT)),
        Highlight(f"Search {GROUP}, {QUERIES} queries, exact", MANY, GROUP, peers=(NUMPY, FLAT)),
    ),
)

BENCHMARK = Benchmark(SECTION, cases)

if __name__ == "__main__":
    if sys.argv[1] == "vectors":
        write_vectors(Path(sys.argv[2]))
    else:
        write_index(sys.argv[2], Path(sys.argv[3]))
