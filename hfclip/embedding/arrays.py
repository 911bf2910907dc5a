"""Embeds pictures and texts into arrays, for notebooks and services."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from hfclip.embedding.decoding import Prepared, Reader
from hfclip.embedding.encode import Encoder, Towers, Vectors, cores, decoded, encoded
from hfclip.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from hfclip.images.reading import Picture


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
        workers: Threads that read pictures. Default: one for each core.
        normalize: Whether to divide each vector by its norm.
        auto_orient: Whether to apply the EXIF orientation. OpenAI's release does not.
        errors: "raise" raises the error of the first picture that cannot be read. "nan" fills its
            row with NaN.
        progress: Whether to show a progress bar.

    Returns:
        The embeddings in the order of the pictures, float32 (N, D).

    Raises:
        ImageError: A picture cannot be read, unless `errors` is "nan".
        ArgumentError: `errors` or `batch_size` has an unsupported value.
        ArgumentTypeError: A picture is not a path, bytes or a PIL image.
    """
    if errors not in ("raise", "nan"):
        raise ArgumentError(f"errors is {errors!r}; expected 'raise' or 'nan'.")
    encoder = Encoder(model, normalize=normalize)
    size = _batch_size(batch_size, encoder)
    reader = Reader(preprocess, auto_orient)
    threads = workers or cores()
    jobs = (
        (number, picture, partial(reader, picture, _name(picture, number)))
        for number, picture in enumerate(pictures)
    )
    outcomes = decoded(jobs, workers=threads, ahead=2 * size + threads)
    blocks = [encoder.nothing()]
    with tqdm(total=_length(pictures), unit="image", disable=not progress) as bar:
        for batch in encoded(encoder, outcomes, lambda _, count: count == size):
            rows = np.full((len(batch.pictures), encoder.dimension), np.nan, np.float32)
            read = [isinstance(one.outcome, Prepared) for one in batch.pictures]
            if errors == "raise":
                for one in batch.pictures:
                    if not isinstance(one.outcome, Prepared):
                        raise one.outcome
            rows[read] = batch.vectors
            blocks.append(rows)
            bar.update(len(rows))
    return np.concatenate(blocks)


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
        ArgumentTypeError: `texts` is a single string.
        ArgumentError: `batch_size` is not positive.
    """
    if isinstance(texts, str):
        raise ArgumentTypeError("texts is one string; expected a list or another iterable of them.")
    encoder = Encoder(model, normalize=normalize)
    size = _batch_size(batch_size, encoder)
    with tqdm(total=_length(texts), unit="text", disable=not progress) as bar:
        blocks = [encoder.nothing()]
        for batch in _batches(texts, size):
            blocks.append(encoder.texts(batch))
            bar.update(len(batch))
    return np.concatenate(blocks)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, size)):
        yield batch


def _batch_size(given: int | None, encoder: Encoder) -> int:
    size = encoder.batch_size if given is None else given
    if size < 1:
        raise ArgumentError(f"batch_size is {size}; expected at least 1.")
    return size


def _name(picture: object, number: int) -> str:
    return os.fspath(picture) if isinstance(picture, str | os.PathLike) else f"picture {number}"


def _length(values: object) -> int | None:
    return len(values) if hasattr(values, "__len__") else None
