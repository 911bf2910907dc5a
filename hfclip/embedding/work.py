"""Encodes and writes parts of a plan: what every engine does with a part."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hfclip.embedding.decoding import pixel_limit
from hfclip.embedding.options import Loaded, Options
from hfclip.embedding.part_files import is_written
from hfclip.embedding.parts import write_part
from hfclip.embedding.pipeline import OnBatch, Pipeline
from hfclip.embedding.plan import Plan, PlannedPart
from hfclip.embedding.records import Record
from hfclip.embedding.stores import Store


@dataclass(frozen=True)
class Encoded:
    """What a run has encoded: the number of inputs, and the time in seconds."""

    inputs: int
    seconds: float


def encode_parts(
    loaded: Loaded,
    plan: Plan,
    numbers: Iterable[int],
    store: Store,
    options: Options,
    stop: threading.Event | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[Record]:
    """Encodes and writes parts, and yields what is known about each one that is complete.

    A part that has a file already is left out, because another process has written it.

    Args:
        loaded: The model, in the form that encodes.
        plan: The plan of the collection.
        numbers: The numbers of the parts, in the order of work.
        store: The place of the collection.
        options: The options of the run.
        stop: Ends the iteration after the batch when it is set. The part in work is dropped.
        on_batch: Called after each batch with its number of inputs and of errors.

    Raises:
        DataError: The plan has been replaced meanwhile, an embedding is too large for float16, or a
            request for remote storage fails.
        OSError: A part cannot be written.
    """
    encoder = loaded.encoder
    pipeline = Pipeline(encoder, loaded.reader, options.batch_size, options.workers)
    with pixel_limit(options.max_pixels):
        for part, rows in pipeline.encode(_missing(plan, numbers, store), stop, on_batch):
            yield write_part(
                store, part.number, rows, dtype=options.dtype, dimension=encoder.dimension
            )


def _missing(plan: Plan, numbers: Iterable[int], store: Store) -> Iterator[PlannedPart]:
    """Yields the parts that have no file yet. Another process may have written some."""
    for number in numbers:
        if not is_written(store, number):
            yield plan.part(number)
