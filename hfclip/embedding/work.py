"""Encodes and writes parts of a plan: what every engine does with a part."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hfclip.embedding.decoding import pixel_limit
from hfclip.embedding.options import Loaded, Options
from hfclip.embedding.parts import part_path, write_part
from hfclip.embedding.pipeline import OnBatch, Pipeline
from hfclip.embedding.plan import Plan, PlannedPart


@dataclass(frozen=True)
class Written:
    """A part that was encoded and written.

    Attributes:
        number: The number of the part.
        inputs: The number of its inputs.
        errors: Those that could not be read.
        size: The size of its file in bytes.
    """

    number: int
    inputs: int
    errors: int
    size: int


@dataclass(frozen=True)
class Encoded:
    """What a run has encoded: the number of inputs, and the time in seconds."""

    inputs: int
    seconds: float


def encode_parts(
    loaded: Loaded,
    plan: Plan,
    numbers: Iterable[int],
    out: Path,
    options: Options,
    stop: threading.Event | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[Written]:
    """Encodes and writes parts, and yields each one that is complete.

    A part that has a file already is left out, because another process has written it.

    Args:
        loaded: The model, in the form that encodes.
        plan: The plan of the collection.
        numbers: The numbers of the parts, in the order of work.
        out: The folder of the collection.
        options: The options of the run.
        stop: Ends the iteration after the batch when it is set. The part in work is dropped.
        on_batch: Called after each batch with its number of inputs and of errors.

    Raises:
        DataError: The plan has been replaced meanwhile, or an embedding is too large for float16.
        OSError: A part cannot be written.
    """
    encoder = loaded.encoder
    pipeline = Pipeline(encoder, loaded.reader, options.batch_size, options.workers)
    with pixel_limit(options.max_pixels):
        for part, rows in pipeline.encode(_missing(plan, numbers, out), stop, on_batch):
            path = write_part(
                out, part.number, rows, dtype=options.dtype, dimension=encoder.dimension
            )
            errors = sum(error is not None for error in rows.errors)
            yield Written(part.number, len(rows), errors, path.stat().st_size)


def _missing(plan: Plan, numbers: Iterable[int], out: Path) -> Iterator[PlannedPart]:
    """Yields the parts that have no file yet. Another process may have written some."""
    for number in numbers:
        if not part_path(out, number).exists():
            yield plan.part(number)
