"""Embeds pictures and texts into arrays, for notebooks and services."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from hfclip.embedding.decoding import Reader
from hfclip.embedding.encode import (
    Encoder,
    Job,
    Size,
    Towers,
    Vectors,
    encoded,
    write_pixels,
)
from hfclip.embedding.workers import Workers
from hfclip.errors import ArgumentError, ArgumentTypeError
from hfclip.images.exact import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.images.reading import Picture

_Value = TypeVar("_Value")

# Two threads must not decode one PIL image at once: each image has one of these locks.
_LOCKS = [threading.Lock() for _ in range(64)]


def embed_images(
    model: Towers,
    preprocess: "Callable[[Image.Image], Tensor]",
    pictures: "Iterable[Picture]",
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    normalize: bool = True,
    auto_orient: bool = True,
    errors: Literal["raise", "nan"] = "raise",
    progress: bool = False,
) -> Vectors:
    """Embeds pictures. Threads read and preprocess them while the model encodes.

    Args:
        model: A CLIP, or the result of `hfclip.optimize`, which is faster on a CPU.
        preprocess: The transform that `load` or `image_transform` returned.
        pictures: Paths, bytes of files, or PIL images. Any iterable; it is read as needed.
        batch_size: Pictures per batch. Default: 64 on a CPU, 256 on a GPU.
        workers: Threads that decode pictures. Default: one for each core.
        normalize: Whether to divide each vector by its norm.
        auto_orient: Whether to apply the EXIF orientation. OpenAI's release does not.
        errors: "raise" raises the error of the first picture that cannot be read. "nan" fills its
            row with NaN.
        progress: Whether to show a progress bar.

    Returns:
        The embeddings in the order of the pictures, float32 (N, D).

    Raises:
        ImageError: A picture cannot be read, unless `errors` is "nan".
        ArgumentError: `errors`, `batch_size` or `workers` has an unsupported value.
        ArgumentTypeError: A picture is not a path, bytes or a PIL image.
        ShapeError: The preprocess is not that of the model.
    """
    found = iter_images(
        model,
        preprocess,
        pictures,
        batch_size=batch_size,
        workers=workers,
        normalize=normalize,
        auto_orient=auto_orient,
        errors=errors,
    )
    rows = (vector for _, vector in found)
    return _array(rows, model.config.embed_dim, _length(pictures), "image", progress=progress)


def iter_images(
    model: Towers,
    preprocess: "Callable[[Image.Image], Tensor]",
    pictures: "Iterable[Picture]",
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    normalize: bool = True,
    auto_orient: bool = True,
    errors: Literal["raise", "nan"] = "raise",
) -> "Iterator[tuple[Picture, Vectors]]":
    """Yields each picture with its embedding, for streams that do not fit in memory.

    It works as `embed_images` with the same arguments, and keeps only the pictures of the batches
    in work: it reads three batches ahead of the result. A stream that delivers slowly is best read
    with a small `batch_size`.

    Yields:
        The picture as it was given, and its embedding: float32 (D,).

    Raises:
        ImageError: A picture cannot be read, unless `errors` is "nan".
        ArgumentError: `errors`, `batch_size` or `workers` has an unsupported value.
        ArgumentTypeError: A picture is not a path, bytes or a PIL image.
        ShapeError: The preprocess is not that of the model.
    """
    if errors not in ("raise", "nan"):
        raise ArgumentError(f"errors is {errors!r}; expected 'raise' or 'nan'.")
    if workers is not None and workers < 1:
        raise ArgumentError(f"workers is {workers}; expected at least 1.")
    if isinstance(pictures, str | bytes | os.PathLike | Image.Image):
        raise ArgumentTypeError("pictures is one picture; expected a list or another iterable.")
    encoder = Encoder(model, normalize=normalize)
    size = _batch_size(batch_size, encoder)
    reader = Reader(preprocess, auto_orient, resized=Recipe.of(model.config).resized)
    return _images(encoder, reader, pictures, size, workers, is_strict=errors == "raise")


def _images(
    encoder: Encoder,
    reader: Reader,
    pictures: "Iterable[Picture]",
    batch_size: int,
    workers: int | None,
    *,
    is_strict: bool,
) -> "Iterator[tuple[Picture, Vectors]]":
    with Workers(workers) as pool:
        limited = reader.within(pool.decoded)
        jobs = (
            Job(picture, partial(_begin, limited, picture, _name(picture, number)))
            for number, picture in enumerate(pictures)
        )
        for batch in encoded(encoder, pool, _batches(jobs, batch_size)):
            vectors = iter(batch.images)
            for picture, outcome in zip(batch.keys, batch.outcomes, strict=True):
                if isinstance(outcome, Size):
                    yield picture, next(vectors)
                elif is_strict and outcome is not None:
                    raise outcome
                else:
                    yield picture, np.full(encoder.dimension, np.nan, np.float32)


def embed_texts(
    model: Towers,
    texts: Iterable[str],
    *,
    batch_size: int = 256,
    normalize: bool = True,
    progress: bool = False,
) -> Vectors:
    """Embeds texts. A text longer than the model's context is truncated.

    Args:
        model: A CLIP, or the result of `hfclip.optimize`, which is faster on a CPU.
        texts: The texts. Any iterable; it is read as needed.
        batch_size: Texts per batch.
        normalize: Whether to divide each vector by its norm.
        progress: Whether to show a progress bar.

    Returns:
        The embeddings in the order of the texts, float32 (N, D).

    Raises:
        ArgumentTypeError: `texts` is a single string, or a text is not a string.
        ArgumentError: `batch_size` is not positive.
    """
    if isinstance(texts, str):
        raise ArgumentTypeError("texts is one string; expected a list or another iterable of them.")
    encoder = Encoder(model, normalize=normalize)
    size = _batch_size(batch_size, encoder)
    results = (encoder.start_texts(batch)() for batch in _batches(texts, size))
    rows = chain.from_iterable(results)
    return _array(rows, encoder.dimension, _length(texts), "text", progress=progress)


def _array(
    rows: Iterator[Vectors], dimension: int, length: int | None, unit: str, *, progress: bool
) -> Vectors:
    """Returns rows (D,) as one array (N, D)."""
    blocks = [np.empty((0, dimension), np.float32)]
    with tqdm(rows, total=length, unit=unit, disable=not progress) as bar:
        blocks += map(np.stack, _batches(bar, 1024))
    return np.concatenate(blocks)


def _begin(
    reader: Reader, picture: "Picture", name: str, workers: Workers, row: "Tensor"
) -> "Future[Size]":
    def decode() -> Size:
        is_image = isinstance(picture, Image.Image)
        with _LOCKS[id(picture) // 64 % len(_LOCKS)] if is_image else nullcontext():
            prepared = reader(picture, name)
        write_pixels(row, prepared.pixels)
        return Size(prepared.width, prepared.height)

    return workers.decode(decode)


def _batches(values: Iterable[_Value], size: int) -> Iterator[list[_Value]]:
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch


def _batch_size(given: int | None, encoder: Encoder) -> int:
    size = encoder.batch_size if given is None else given
    if size < 1:
        raise ArgumentError(f"batch_size is {size}; expected at least 1.")
    return size


def _name(picture: object, number: int) -> str:
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if isinstance(picture, bytes | Image.Image):
        return f"picture {number}"
    raise ArgumentTypeError(
        f"picture {number} has type {type(picture).__name__}; expected a path, bytes or a PIL "
        "image."
    )


def _length(values: object) -> int | None:
    return len(values) if hasattr(values, "__len__") else None
