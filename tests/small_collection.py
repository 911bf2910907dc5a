"""Small collections of embeddings, written without a model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.changes import update_plan
from hfclip.embedding.items import Item
from hfclip.embedding.manifest import Manifest, write_manifest
from hfclip.embedding.parts import Rows, Vectors, write_part
from hfclip.version import __version__

MANIFEST = Manifest(
    name="digits",
    repository=None,
    commit=None,
    sha256="0" * 64,
    config_digest="0" * 64,
    preprocess="fast",
    precision="float32",
    normalized=True,
    dimension=4,
    dtype="float32",
    kind="images",
    background=None,
    auto_orient=True,
    max_pixels=10**6,
    sources=("photos",),
    version=__version__,
)


class Row(NamedTuple):
    """An input and its embedding (D,), or its error."""

    item: Item
    vector: NDArray[np.float32] | None
    caption_vector: NDArray[np.float32] | None = None
    error: str | None = None


def unit_rows(count: int, dimension: int = 4, seed: int = 0) -> list[Row]:
    """Returns rows with the keys photos/0000.jpg, ... and random vectors of length 1."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return [
        Row(Item(f"photos/{number:04}.jpg", None, None, number, 0), vector)
        for number, vector in enumerate(drawn)
    ]


def lengthened(rows: Sequence[Row]) -> list[Row]:
    """Returns rows whose vectors are 1, 2, 3, ... times as long."""
    return [
        row._replace(vector=None if row.vector is None else row.vector * np.float32(times))
        for times, row in enumerate(rows, 1)
    ]


def write_collection(
    out: Path,
    rows: Sequence[Row],
    *,
    part_size: int = 10,
    parts: int | None = None,
    **facts: Any,
) -> Path:
    """Plans rows and writes their parts, or only the first `parts` of those that are missing."""
    manifest = replace(MANIFEST, **facts)
    changes = update_plan(out, iter([row.item for row in rows]), part_size=part_size)
    write_manifest(out, manifest)
    by_key = {row.item.key: row for row in rows}
    for number in changes.pending[:parts]:
        part = changes.plan.part(number)
        write_part(
            out,
            number,
            _rows([by_key[item.key] for item in part.items], manifest.dimension),
            dtype=manifest.dtype,
            dimension=manifest.dimension,
        )
    return out


def _rows(rows: Sequence[Row], dimension: int) -> Rows:
    captions = [row.caption_vector for row in rows]
    return Rows(
        keys=[row.item.key for row in rows],
        embeddings=_vectors([row.vector for row in rows], dimension),
        errors=[row.error for row in rows],
        widths=[None if row.vector is None else 40 + place for place, row in enumerate(rows)],
        heights=[None if row.vector is None else 30 for row in rows],
        captions=[row.item.text for row in rows],
        caption_embeddings=_vectors(captions, dimension)
        if any(vector is not None for vector in captions)
        else None,
        digests=[row.item.key.encode().ljust(32, b".")[:32] for row in rows],
    )


def _vectors(vectors: Iterable[NDArray[np.float32] | None], dimension: int) -> Vectors:
    found = list(vectors)
    values = np.zeros((len(found), dimension), np.float32)
    for row, vector in zip(values, found, strict=True):
        if vector is not None:
            row[:] = vector
    return Vectors(values, np.array([vector is not None for vector in found]))
