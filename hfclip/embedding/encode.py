"""The pipeline: threads decode pictures while the model encodes the batch before."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize as normalized

from hfclip.embedding.decoding import Prepared
from hfclip.errors import HfclipError, ImageError
from hfclip.text.tokenizer import tokenize

if TYPE_CHECKING:
    from hfclip.config import ClipConfig

Vectors: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
_Key = TypeVar("_Key")

# Pictures per batch on a CPU and on a GPU.
CPU_BATCH, GPU_BATCH = 64, 256


class Towers(Protocol):
    """A `CLIP`, or what `hfclip.optimize` returns."""

    config: "ClipConfig"
    context_length: int
    logit_scale: Any

    def encode_image(self, images: Tensor, /) -> Tensor:
        """Encodes preprocessed images (B, 3, S, S) -> (B, D)."""

    def encode_text(self, text: Tensor, /) -> Tensor:
        """Encodes token ids (T, L) -> (T, D)."""


class Encoder:
    """Encodes batches with a model on its device and returns float32 arrays.

    On CUDA a batch is copied from pinned memory in a stream of its own, while the model computes
    the batch before.
    """

    def __init__(self, model: Towers, *, normalize: bool = True) -> None:
        self._model = model
        self._normalize = normalize
        self.device: torch.device = model.logit_scale.device
        self.dimension: int = model.config.embed_dim
        self._copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @property
    def batch_size(self) -> int:
        """The default number of pictures in a batch."""
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    def nothing(self) -> Vectors:
        """Returns an array (0, D)."""
        return np.empty((0, self.dimension), np.float32)

    def start(self, pixels: Sequence[Tensor]) -> Callable[[], Vectors]:
        """Starts to encode images (3, S, S) and returns a function that waits for (B, D)."""
        if not pixels:
            return self.nothing
        features = self._finished(self._model.encode_image, self._moved(torch.stack(list(pixels))))
        return lambda: features.cpu().numpy()

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Encodes texts -> (T, D). Texts longer than the model's context are truncated."""
        if not texts:
            return self.nothing()
        ids = tokenize(list(texts), self._model.context_length, truncate=True)
        return self._finished(self._model.encode_text, ids.to(self.device)).cpu().numpy()

    @torch.no_grad()
    def _finished(self, encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        features = encode(batch).float()
        return normalized(features, dim=-1) if self._normalize else features

    def _moved(self, batch: Tensor) -> Tensor:
        if self._copies is None:
            return batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            moved = batch.pin_memory().to(self.device, non_blocking=True)
        current.wait_stream(self._copies)
        moved.record_stream(current)
        return moved


class Decoded(NamedTuple, Generic[_Key]):
    """A picture that was read, or the error that prevented it, with its key.

    The outcome is None for an input without a picture.
    """

    key: _Key
    outcome: Prepared | HfclipError | None


def decoded(
    jobs: Iterable[tuple[_Key, object, Callable[[], Prepared | None]]], *, workers: int, ahead: int
) -> Iterator[Decoded[_Key]]:
    """Runs jobs in threads, at most `ahead` before the reader, and yields outcomes in order.

    Args:
        jobs: For each picture its key, the picture, and the function that reads it. Two threads
            never read the same PIL image at once.
        workers: The number of threads.
        ahead: The largest number of pictures that wait or are decoded.
    """
    queue: deque[tuple[_Key, object, Future[Prepared | HfclipError | None]]] = deque()
    pool = ThreadPoolExecutor(workers, "hfclip-decoding")
    try:
        for key, picture, job in jobs:
            if isinstance(picture, Image.Image):
                for _, other, future in queue:
                    if other is picture:
                        future.exception()
            queue.append((key, picture, pool.submit(_outcome, job)))
            if len(queue) >= ahead:
                first, _, future = queue.popleft()
                yield Decoded(first, future.result())
        while queue:
            first, _, future = queue.popleft()
            yield Decoded(first, future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(job: Callable[[], Prepared | None]) -> Prepared | HfclipError | None:
    try:
        return job()
    except HfclipError as error:
        return error
    except Exception as error:  # noqa: BLE001  # readers of files raise many; nothing stops a run
        return ImageError(f"cannot be read ({type(error).__name__}: {error}).")


class Batch(NamedTuple, Generic[_Key]):
    """An encoded batch.

    Attributes:
        pictures: The outcome of each picture, in order.
        vectors: The features of those that could be read, in order: float32 (M, D).
    """

    pictures: list[Decoded[_Key]]
    vectors: Vectors


def encoded(
    encoder: Encoder, pictures: Iterable[Decoded[_Key]], ends_batch: Callable[[_Key, int], bool]
) -> Iterator[Batch[_Key]]:
    """Encodes pictures in batches. The next batch starts before the result of one is awaited.

    Args:
        encoder: The encoder.
        pictures: The pictures in order, as `decoded` yields them.
        ends_batch: Whether the picture with this key, the n-th of its batch, ends the batch.
    """
    waiting: tuple[list[Decoded[_Key]], Callable[[], Vectors]] | None = None
    batch: list[Decoded[_Key]] = []
    for picture in pictures:
        batch.append(picture)
        if ends_batch(picture.key, len(batch)):
            started = batch, encoder.start(_pixels(batch))
            if waiting:
                yield Batch(waiting[0], waiting[1]())
            waiting, batch = started, []
    if waiting:
        yield Batch(waiting[0], waiting[1]())
    if batch:
        yield Batch(batch, encoder.start(_pixels(batch))())


def _pixels(batch: Iterable[Decoded[Any]]) -> list[Tensor]:
    return [one.outcome.pixels for one in batch if isinstance(one.outcome, Prepared)]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
