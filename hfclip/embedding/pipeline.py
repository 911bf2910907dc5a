"""Encodes the parts of a plan: threads read and decode pictures, of the next part too."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hfclip.data.references import ParquetImage, ParquetRow
from hfclip.embedding.decoding import Reader
from hfclip.embedding.encode import Batch, Encoder, Job, Size, Vectors, encoded, write_pixels
from hfclip.embedding.parts import Rows
from hfclip.embedding.parts import Vectors as Columns
from hfclip.embedding.workers import Workers
from hfclip.errors import DataError, ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from hfclip.embedding.items import Item
    from hfclip.embedding.plan import PlannedPart

# Called after each batch with its number of inputs and of errors.
OnBatch: TypeAlias = Callable[[int, int], None]


class _Place(NamedTuple):
    part: "PlannedPart"
    row: int

    @property
    def item(self) -> "Item":
        return self.part.items[self.row]


@dataclass(frozen=True)
class Pipeline:
    """Encodes parts. Its memory does not depend on the number of inputs.

    A batch never crosses the end of a part, so that a part has the same values whichever parts
    were encoded before it.

    Attributes:
        encoder: The encoder.
        reader: Opens and preprocesses pictures.
        batch_size: Inputs per batch; None for the encoder's default.
        workers: Threads that decode pictures; None for one for each core.
    """

    encoder: Encoder
    reader: Reader
    batch_size: int | None = None
    workers: int | None = None

    def encode(
        self,
        parts: "Iterable[PlannedPart]",
        stop: threading.Event | None = None,
        on_batch: OnBatch | None = None,
    ) -> "Iterator[tuple[PlannedPart, Rows]]":
        """Yields each part with its rows, in order.

        Args:
            parts: The parts. They are read as needed.
            stop: Ends the iteration after the batch when it is set. The part in work is dropped.
            on_batch: Called after each batch with its number of inputs and of errors.
        """
        rows: _Rows | None = None
        with Workers(self.workers) as pool:
            reader = self.reader.within(pool.decoded)
            for batch in encoded(self.encoder, pool, self._batches(parts, reader)):
                part, first = batch.keys[0]
                if first == 0:
                    rows = _Rows(part, self.encoder.dimension)
                failed = rows.add(batch) if rows is not None else 0
                if on_batch is not None:
                    on_batch(len(batch.keys), failed)
                if rows is not None and rows.is_whole:
                    yield part, rows.columns()
                    rows = None
                if stop is not None and stop.is_set():
                    return

    def _batches(
        self, parts: "Iterable[PlannedPart]", reader: Reader
    ) -> Iterator[list[Job[_Place]]]:
        size = self.batch_size or self.encoder.batch_size
        for part in parts:
            for start in range(0, len(part.items), size):
                end = min(start + size, len(part.items))
                yield [_job(_Place(part, row), reader) for row in range(start, end)]


def _job(place: _Place, reader: Reader) -> Job[_Place]:
    item = place.item
    begins = None if item.image is None and item.error is None else partial(_begin, item, reader)
    return Job(place, begins, _text(item))


def _text(item: "Item") -> str | None:
    return item.text if item.text and not item.text.isspace() else None


def _begin(item: "Item", reader: Reader, workers: Workers, row: "Tensor") -> Future[Size]:
    """Begins to read and decode an item's picture."""
    if item.error is not None or item.image is None:
        failed: Future[Size] = Future()
        failed.set_exception(DataError(item.error or "there is no picture."))
        return failed

    def decode(content: bytes) -> Size:
        prepared = reader(content, item.key)
        write_pixels(row, prepared.pixels)
        return Size(prepared.width, prepared.height, sha256(content).digest())

    # Rows of a Parquet file are read in order, because the file is decoded in order.
    in_order = isinstance(item.image, ParquetImage | ParquetRow)
    return workers.read_and_decode(partial(_read, item), item.size, decode, in_order=in_order)


def _read(item: "Item") -> bytes:
    try:
        return item.content()
    except FileNotFoundError as error:
        raise DataError("no such file: it is gone since it was listed.") from error
    except IsADirectoryError as error:
        raise DataError("this is a folder, not a picture.") from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error}).") from error


class _Rows:
    """Collects the rows of a part from its batches."""

    def __init__(self, part: "PlannedPart", dimension: int) -> None:
        count = len(part.items)
        self._part = part
        self._images = _empty(count, dimension)
        self._texts = _empty(count, dimension)
        self._sizes: list[Size | None] = []
        self._errors: list[str | None] = []

    @property
    def is_whole(self) -> bool:
        return len(self._errors) == len(self._part.items)

    def add(self, batch: Batch[_Place]) -> int:
        """Adds a batch and returns its number of errors."""
        rows = np.array([place.row for place in batch.keys])
        is_read = np.array([isinstance(outcome, Size) for outcome in batch.outcomes])
        has_text = np.array([_text(place.item) is not None for place in batch.keys])
        _fill(self._images, rows[is_read], batch.images)
        _fill(self._texts, rows[has_text], batch.texts)
        only_text = has_text & np.array([outcome is None for outcome in batch.outcomes])
        _fill(self._images, rows[only_text], batch.texts[only_text[has_text]])
        found = zip(batch.keys, batch.outcomes, only_text, strict=True)
        errors = [_error(place.item, outcome, has_row) for place, outcome, has_row in found]
        self._errors += errors
        self._sizes += [one if isinstance(one, Size) else None for one in batch.outcomes]
        return sum(error is not None for error in errors)

    def columns(self) -> Rows:
        """Returns the rows as the columns of a part."""
        items = self._part.items
        has_captions = any(item.text and item.image is not None for item in items)
        return Rows(
            keys=[item.key for item in items],
            embeddings=self._images,
            errors=self._errors,
            widths=[size and size.width for size in self._sizes],
            heights=[size and size.height for size in self._sizes],
            captions=[item.text for item in items],
            caption_embeddings=self._texts if has_captions else None,
            digests=[
                _text_digest(item) if size is None else size.digest
                for item, size in zip(items, self._sizes, strict=True)
            ],
        )


def _empty(count: int, dimension: int) -> Columns:
    return Columns(np.zeros((count, dimension), np.float32), np.zeros(count, np.bool_))


def _fill(columns: Columns, rows: NDArray[np.int64], found: Vectors) -> None:
    columns.values[rows] = found
    columns.valid[rows] = True


def _error(item: "Item", outcome: object, has_vector: bool) -> str | None:
    """Returns why an input has no embedding, or None if it has one."""
    if isinstance(outcome, ImageError | DataError):
        return str(outcome).removeprefix(f"{item.key}: ")
    if outcome is None and not has_vector:
        return "the text is empty." if item.text is not None else "there is no picture."
    return None


def _text_digest(item: "Item") -> bytes | None:
    if item.image is not None or item.error is not None or item.text is None:
        return None
    return sha256(item.text.encode()).digest()
