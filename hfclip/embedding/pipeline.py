"""Encodes the parts of a plan: threads decode pictures, of the next part too, beside the model."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch

from hfclip.embedding.decoding import Prepared, Reader
from hfclip.embedding.encode import Decoded, Encoder, Vectors, cores, decoded, encoded
from hfclip.embedding.parts import Rows
from hfclip.embedding.parts import Vectors as Columns
from hfclip.errors import DataError, HfclipError

if TYPE_CHECKING:
    from hfclip.embedding.items import Item

# Called after each batch with its number of inputs and of errors.
OnBatch: TypeAlias = Callable[[int, int], None]
_NO_PIXELS = torch.empty(0, device="cpu")


class Encoded(NamedTuple):
    """The row of one input.

    Attributes:
        item: The input.
        vector: Its embedding, float32 (D,), or None if it could not be read.
        error: Why it could not be read, or None.
        picture: Its size and digest, if it is a picture that could be read.
        caption_vector: The embedding of its caption, float32 (D,), or None if it has none.
    """

    item: "Item"
    vector: "Vectors | None" = None
    error: str | None = None
    picture: Prepared | None = None
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
        on_batch: OnBatch | None = None,
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
            if on_batch is not None:
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
        if item.error is not None:
            raise DataError(item.error)
        if item.image is None:
            if item.text is None:
                raise DataError("the row has no picture.")
            return None
        content = item.image.read()
        prepared = self.reader(content, item.key)
        return prepared._replace(digest=sha256(content).hexdigest(), size=len(content))

    def _rows(self, pictures: "list[Decoded[_Place]]", vectors: Vectors) -> list[Encoded]:
        texts = [one.key.item.text for one in pictures if one.key.item.text]
        of_texts = iter(self.encoder.texts(texts))
        of_pictures = iter(vectors)
        rows = []
        for (_, item, _), outcome in pictures:
            of_text = next(of_texts) if item.text else None
            if isinstance(outcome, Prepared):
                light = outcome._replace(pixels=_NO_PIXELS)  # the pixels need not stay
                rows.append(Encoded(item, next(of_pictures), None, light, of_text))
            elif outcome is None and of_text is not None:
                rows.append(Encoded(item, of_text))
            else:
                error = "the text is empty" if outcome is None else _reason(outcome, item.key)
                rows.append(Encoded(item, error=error, caption_vector=of_text))
        return rows


def encode_part(
    pipeline: Pipeline, items: "Sequence[Item]", on_batch: OnBatch | None = None
) -> list[Encoded]:
    """Returns the rows of one part, for engines that encode one part at a time."""
    return next(pipeline.encode([items], on_batch=on_batch), [])


def as_rows(encoded_rows: Sequence[Encoded], dimension: int) -> Rows:
    """Returns rows as the columns of a part."""
    items = [row.item for row in encoded_rows]
    pictures = [row.picture for row in encoded_rows]
    captions = [row.caption_vector for row in encoded_rows]
    has_captions = any(vector is not None for vector in captions)
    return Rows(
        keys=[item.key for item in items],
        embeddings=_stacked([row.vector for row in encoded_rows], dimension),
        captions=[item.text for item in items],
        caption_embeddings=_stacked(captions, dimension) if has_captions else None,
        widths=[picture and picture.width for picture in pictures],
        heights=[picture and picture.height for picture in pictures],
        errors=[row.error for row in encoded_rows],
        digests=[_digest(row) for row in encoded_rows],
        sizes=[
            item.size if picture is None or item.size is not None else picture.size
            for item, picture in zip(items, pictures, strict=True)
        ],
        mtimes=[item.mtime_ns for item in items],
    )


def _stacked(vectors: "Sequence[Vectors | None]", dimension: int) -> "Columns":
    values = np.zeros((len(vectors), dimension), np.float32)
    valid = np.array([vector is not None for vector in vectors], np.bool_)
    for row, vector in zip(values, vectors, strict=True):
        if vector is not None:
            row[:] = vector
    return Columns(values, valid)


def _digest(row: Encoded) -> str | None:
    if row.picture is not None:
        return row.picture.digest
    is_text = row.item.image is None and row.item.text and row.error is None
    return sha256(row.item.text.encode()).hexdigest() if is_text and row.item.text else None


def _reason(error: HfclipError, key: str) -> str:
    return str(error).removeprefix(f"{key}: ")
