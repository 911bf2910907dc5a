"""Encodes the parts of a plan: threads decode pictures, of the next part too, beside the model."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from hfclip.embedding.decoding import Prepared, Reader
from hfclip.embedding.encode import Decoded, Encoder, Vectors, cores, decoded, encoded
from hfclip.errors import DataError, HfclipError

if TYPE_CHECKING:
    from hfclip.embedding.items import Item


class Encoded(NamedTuple):
    """The row of one input.

    Attributes:
        item: The input.
        vector: Its embedding, float32 (D,), or None if it could not be read.
        error: Why it could not be read, or None.
        width: Width of the picture as displayed, in pixels, or None.
        height: Height of the picture, or None.
        caption_vector: The embedding of its caption, float32 (D,), or None if it has none.
    """

    item: "Item"
    vector: "Vectors | None" = None
    error: str | None = None
    width: int | None = None
    height: int | None = None
    caption_vector: "Vectors | None" = None


class _Place(NamedTuple):
    part: int
    item: "Item"
    is_last: bool


@dataclass(frozen=True)
class Pipeline:
    """Encodes parts. Its memory depends neither on the number of inputs nor on that of parts.

    A batch never crosses the end of a part, so that a part has the same values whichever parts
    were encoded before it.

    Attributes:
        encoder: The encoder.
        reader: Opens and preprocesses pictures.
        batch_size: Pictures per batch.
        workers: Threads that read pictures.
    """

    encoder: Encoder
    reader: Reader
    batch_size: int
    workers: int

    @classmethod
    def of(
        cls, encoder: Encoder, reader: Reader, batch_size: int | None, workers: int | None
    ) -> "Pipeline":
        """Returns a pipeline with defaults for what is None."""
        return cls(encoder, reader, batch_size or encoder.batch_size, workers or cores())

    def encode(
        self,
        parts: "Iterable[Sequence[Item]]",
        stop: threading.Event | None = None,
        on_batch: Callable[[int, int], None] = lambda inputs, errors: None,
    ) -> Iterator[list[Encoded]]:
        """Yields the rows of each part, in order.

        Args:
            parts: The items of each part. Parts are read as needed.
            stop: Ends the iteration after the batch when it is set. The part in work is dropped.
            on_batch: Called after each batch with its number of inputs and of errors.
        """
        places = (
            _Place(number, item, place == len(items) - 1)
            for number, items in enumerate(parts)
            for place, item in enumerate(items)
        )
        jobs = ((place, None, partial(self._read, place.item)) for place in places)
        outcomes = decoded(jobs, workers=self.workers, ahead=2 * self.batch_size + self.workers)
        rows: list[Encoded] = []
        for batch in encoded(self.encoder, outcomes, self._ends_batch):
            new = self._rows(batch.pictures, batch.vectors)
            on_batch(len(new), sum(row.error is not None for row in new))
            rows += new
            if batch.pictures[-1].key.is_last:
                yield rows
                rows = []
            if stop is not None and stop.is_set():
                return

    def _ends_batch(self, place: _Place, count: int) -> bool:
        return place.is_last or count == self.batch_size

    def _read(self, item: "Item") -> Prepared | None:
        """Reads an item's picture. Returns None for an item that is only a text."""
        if item.image is None:
            if item.text is None:
                raise DataError(f"{item.key}: the row has no picture.")
            return None
        content = item.image.read()
        if content is None:
            raise DataError(f"{item.key}: the row has no picture.")
        return self.reader(content, item.key)

    def _rows(self, pictures: "list[Decoded[_Place]]", vectors: Vectors) -> list[Encoded]:
        texts = [one.key.item.text for one in pictures if one.key.item.text]
        of_texts = iter(self.encoder.texts(texts))
        of_pictures = iter(vectors)
        rows = []
        for (_, item, _), outcome in pictures:
            of_text = next(of_texts) if item.text else None
            if isinstance(outcome, Prepared):
                size = outcome.width, outcome.height
                rows.append(Encoded(item, next(of_pictures), None, *size, of_text))
            elif outcome is None:
                rows.append(Encoded(item, of_text))
            else:
                error = _without_name(outcome, item.key)
                rows.append(Encoded(item, error=error, caption_vector=of_text))
        return rows


def encode_part(
    pipeline: Pipeline,
    items: "Sequence[Item]",
    on_batch: Callable[[int, int], None] = lambda inputs, errors: None,
) -> list[Encoded]:
    """Returns the rows of one part, for engines that encode one part at a time."""
    return next(pipeline.encode([items], on_batch=on_batch), [])


def _without_name(error: HfclipError, key: str) -> str:
    return str(error).removeprefix(f"{key}: ")
