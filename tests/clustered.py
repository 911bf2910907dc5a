"""Vectors of tests, distributed as the embeddings of CLIP are: in clusters, with a common mean."""

import numpy as np
from numpy.typing import NDArray


def clustered(
    rows: int, dimension: int = 32, *, clusters: int = 40, seed: int = 0
) -> NDArray[np.float32]:
    """Returns vectors (rows, dimension) of length 1."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((clusters, dimension)) + 0.5
    vectors = centers[random.integers(0, clusters, rows)]
    vectors = vectors + 0.6 * random.standard_normal((rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def texts_for(vectors: NDArray[np.float32], *, seed: int = 1) -> NDArray[np.float32]:
    """Returns vectors of length 1 away from all others, as captions are from their pictures."""
    random = np.random.default_rng(seed)
    gap = 1.5 * random.standard_normal(vectors.shape[1]) / vectors.shape[1] ** 0.5
    noise = 0.5 * random.standard_normal(vectors.shape) / vectors.shape[1] ** 0.5
    moved = 0.6 * vectors + gap + noise
    lengths: NDArray[np.float64] = np.linalg.norm(moved, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (moved / lengths).astype(np.float32)
    return unit
