"""Encodes batches: threads prepare the pictures of the next ones while the model computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as normalized

from hfclip.embedding.workers import Workers
from hfclip.errors import DataError, ImageError, ShapeError
from hfclip.text.tokenizer import tokenize

if TYPE_CHECKING:
    from hfclip.config import ClipConfig

Vectors: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
_Key = TypeVar("_Key")

# Inputs per batch on a CPU and on a GPU.
CPU_BATCH, GPU_BATCH = 64, 256
# Batches whose pictures are read before the model needs them.
_AHEAD = 2


class Towers(Protocol):
    """A `CLIP`, or what `hfclip.optimize` returns."""

    config: "ClipConfig"
    context_length: int
    logit_scale: Any

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the image tower takes its input."""

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
        self.context_length = model.context_length
        self._is_cuda = self.device.type == "cuda"
        self._copies: Any = None
        if self._is_cuda:
            self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @property
    def shares_cores(self) -> bool:
        """Whether the model computes on the cores that decode pictures."""
        return self.device.type == "cpu"

    @property
    def batch_size(self) -> int:
        """The default number of inputs in a batch."""
        return CPU_BATCH if self.shares_cores else GPU_BATCH

    def nothing(self) -> Vectors:
        """Returns an array (0, D)."""
        return np.empty((0, self.dimension), np.float32)

    def space(self, count: int) -> Tensor:
        """Returns memory for the pixels of `count` images: (count, 3, S, S)."""
        side = self._model.config.image_resolution
        shape = (count, 3, side, side)
        return torch.empty(shape, dtype=self._model.dtype, device="cpu", pin_memory=self._is_cuda)

    def start(self, pixels: Tensor) -> Callable[[], Vectors]:
        """Starts to encode images (B, 3, S, S) and returns a function that waits for (B, D).

        `pixels` must not change before that function returns.
        """
        if not len(pixels):
            return self.nothing
        return self._result(self._features(self._model.encode_image, self._moved(pixels)))

    def start_texts(self, texts: Sequence[str]) -> Callable[[], Vectors]:
        """Starts to encode texts and returns a function that waits for (T, D).

        Texts longer than the model's context are truncated.
        """
        if not texts:
            return self.nothing
        ids = tokenize(list(texts), self._model.context_length, truncate=True)
        return self._result(self._features(self._model.encode_text, ids.to(self.device)))

    @torch.no_grad()
    def _features(self, encode: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        features = encode(batch).float()
        return normalized(features, dim=-1) if self._normalize else features

    def _moved(self, batch: Tensor) -> Tensor:
        if self._copies is None:
            return batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            moved = batch.to(self.device, non_blocking=True)
        current.wait_stream(self._copies)
        moved.record_stream(current)
        return moved

    def _result(self, features: Tensor) -> Callable[[], Vectors]:
        if not self._is_cuda:
            return lambda: features.cpu().numpy()
        # A copy that is started now does not wait for the batch that is started next.
        result = torch.empty(features.shape, dtype=torch.float32, device="cpu", pin_memory=True)
        result.copy_(features, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> Vectors:
            done.synchronize()
            return result.numpy()

        return wait


class Size(NamedTuple):
    """The size of a picture as displayed, in pixels, and the sha256 of its file if computed."""

    width: int
    height: int
    digest: bytes | None = None


Outcome: TypeAlias = Size | ImageError | DataError


class Job(NamedTuple, Generic[_Key]):
    """An input of a batch.

    Attributes:
        key: What the caller knows the input by.
        begin: Begins to prepare the picture with workers: it writes the pixels to a row
            (3, S, S) of the batch and returns the size. None if the input has no picture.
        text: The text to encode, or None.
    """

    key: _Key
    begin: Callable[[Workers, Tensor], "Future[Size]"] | None
    text: str | None = None


class Batch(NamedTuple, Generic[_Key]):
    """An encoded batch.

    Attributes:
        keys: The keys of the inputs, in order.
        outcomes: For each input the size of its picture, the error that prevented it from being
            read, or None if it has no picture.
        images: The features of the pictures that could be read, in order: float32 (M, D).
        texts: The features of the texts, in order: float32 (T, D).
    """

    keys: list[_Key]
    outcomes: list[Outcome | None]
    images: Vectors
    texts: Vectors


def encoded(
    encoder: Encoder, workers: Workers, batches: Iterable[Sequence[Job[_Key]]]
) -> Iterator[Batch[_Key]]:
    """Encodes batches in order. Their pictures are prepared ahead.

    On a GPU the next batch is started before the result of one is awaited.

    Raises:
        Exception: The model, the preprocess or a reader fails for another reason than a picture.
    """
    memory: list[Tensor] = []
    prepared: deque[_Prepared[_Key]] = deque()
    started: deque[_Started[_Key]] = deque()
    most_started = 0 if encoder.shares_cores else 1
    for jobs in batches:
        prepared.append(_prepare(encoder, workers, jobs, memory))
        if len(prepared) > _AHEAD:
            started.append(_start(encoder, workers, prepared.popleft()))
        if len(started) > most_started:
            yield _finish(started.popleft(), memory)
    while prepared or started:
        if prepared:
            started.append(_start(encoder, workers, prepared.popleft()))
        if len(started) > most_started or not prepared:
            yield _finish(started.popleft(), memory)


class _Prepared(NamedTuple, Generic[_Key]):
    jobs: Sequence[Job[_Key]]
    space: Tensor
    futures: "list[Future[Size] | None]"


class _Started(NamedTuple, Generic[_Key]):
    jobs: Sequence[Job[_Key]]
    space: Tensor
    outcomes: list[Outcome | None]
    images: Callable[[], Vectors]
    texts: Callable[[], Vectors]


def _prepare(
    encoder: Encoder, workers: Workers, jobs: Sequence[Job[_Key]], memory: list[Tensor]
) -> _Prepared[_Key]:
    """Begins to prepare the pictures of a batch, in memory of an earlier batch if it is enough."""
    wanted = len(jobs) if any(job.begin for job in jobs) else 0
    space = memory.pop() if memory else encoder.space(wanted)
    if len(space) < wanted:
        space = encoder.space(wanted)
    futures = [job.begin and job.begin(workers, space[row]) for row, job in enumerate(jobs)]
    return _Prepared(jobs, space, futures)


def _start(encoder: Encoder, workers: Workers, batch: _Prepared[_Key]) -> _Started[_Key]:
    outcomes = [None if future is None else _outcome(future) for future in batch.futures]
    rows = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, Size)]
    whole = rows == list(range(len(rows)))
    pixels = batch.space[: len(rows)] if whole else batch.space[rows]
    with workers.paused() if encoder.shares_cores else nullcontext():
        images = encoder.start(pixels)
        texts = encoder.start_texts([job.text for job in batch.jobs if job.text is not None])
    return _Started(batch.jobs, batch.space, outcomes, images, texts)


def _finish(batch: _Started[_Key], memory: list[Tensor]) -> Batch[_Key]:
    images, texts = batch.images(), batch.texts()
    memory.append(batch.space)
    return Batch([job.key for job in batch.jobs], batch.outcomes, images, texts)


def _outcome(future: "Future[Size]") -> Outcome:
    """Returns the size, or the error of the picture. Raises other errors."""
    try:
        return future.result()
    except (ImageError, DataError) as error:
        return error


def write_pixels(row: Tensor, pixels: Tensor) -> None:
    """Writes the pixels of a picture to its row of a batch.

    Raises:
        ShapeError: The preprocess is not that of the model.
    """
    if pixels.shape != row.shape:
        raise ShapeError(
            f"The preprocess returns a tensor {tuple(pixels.shape)}; this model expects "
            f"{tuple(row.shape)}. Use the preprocess that hfclip.load returned with the model."
        )
    row.copy_(pixels)
