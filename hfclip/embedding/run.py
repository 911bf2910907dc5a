"""Runs `hfclip embed`: plans, encodes what is missing, writes parts and errors.csv."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hfclip.atomic import write_text
from hfclip.embedding.collection import apply, complete_parts, difference
from hfclip.embedding.decoding import pixel_limit
from hfclip.embedding.manifest import opened
from hfclip.embedding.options import Options, load_encoder
from hfclip.embedding.parts import Rows, read_part, write_part
from hfclip.embedding.pipeline import Pipeline, as_rows
from hfclip.embedding.plan import PartPlan, Plan, make_plan
from hfclip.errors import ArgumentError
from hfclip.interruption import stop_request

ERRORS = "errors.csv"


@dataclass(frozen=True)
class Outcome:
    """The summary of a run.

    Attributes:
        inputs: The number of inputs in the parts that are complete.
        embedded: Those with an embedding.
        errors: Those without.
        encoded: The number of inputs that this run has encoded.
        rate: Inputs a second in this run, from the first picture to the last part.
        errors_file: The table of the errors, or None if there are none.
    """

    inputs: int
    embedded: int
    errors: int
    encoded: int
    rate: float
    errors_file: str | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary in JSON types."""
        return asdict(self)


def embed_collection(
    sources: Sequence[str],
    out: Path,
    options: Options,
    *,
    part_size: int = 10_000,
    share: tuple[int, int] | None = None,
    progress: bool = False,
) -> Outcome:
    """Embeds a collection into a folder. Parts that are complete are not encoded again.

    Args:
        sources: Folders, patterns, tables, tars or text files.
        out: The folder to write.
        options: The model and the options.
        part_size: Inputs in a part.
        share: (K, N) to encode only every N-th part, from the K-th on.
        progress: Whether to show a progress bar.

    Raises:
        HfclipError: The sources cannot be listed, the model cannot be loaded, or the folder holds
            embeddings of another model.
        KeyboardInterrupt: Ctrl-C was pressed. Complete parts stay.
    """
    if share is not None and not 1 <= share[0] <= share[1]:
        raise ArgumentError(f"The share is {share}; expected (K, N) with K from 1 to N.")
    plan = make_plan(sources, kind=options.kind, part_size=part_size)
    loaded = load_encoder(options)
    manifest = replace(loaded.manifest, plan_digest=plan.digest)
    pipeline = Pipeline.of(loaded.encoder, loaded.reader, options.batch_size, options.workers)
    with opened(out, manifest):
        found = difference(out, plan, part_size=part_size)
        apply(out, found, dtype=options.dtype, dimension=pipeline.encoder.dimension)
        number, count = share or (1, 1)
        missing = list(found.encode[number - 1 :: count])
        began = time.monotonic()
        with pixel_limit(options.max_pixels):
            encoded = _encode(pipeline, plan, missing, out, options, progress)
        seconds = time.monotonic() - began
        return _outcome(out, encoded, seconds)


def _encode(
    pipeline: Pipeline,
    plan: Plan,
    missing: list[PartPlan],
    out: Path,
    options: Options,
    progress: bool,
) -> int:
    """Encodes and writes parts and returns the number of their inputs."""
    total = sum(len(part.items) for part in plan.parts)
    planned = sum(len(part.items) for part in missing)
    encoded = errors = 0
    unit = "text" if options.kind == "texts" else "image"
    with (
        stop_request("batch") as stop,
        tqdm(
            total=total, initial=total - planned, unit=unit, disable=None if progress else True
        ) as bar,
    ):

        def show(inputs: int, failed: int) -> None:
            nonlocal errors
            errors += failed
            bar.set_postfix(errors=errors, refresh=False)
            bar.update(inputs)

        parts = pipeline.encode((part.items for part in missing), stop, show)
        for part, rows in zip(missing, parts, strict=False):
            write_part(
                out,
                part.name,
                as_rows(rows, pipeline.encoder.dimension),
                dtype=options.dtype,
                dimension=pipeline.encoder.dimension,
            )
            encoded += len(rows)
        if stop.is_set() and encoded < planned:
            raise KeyboardInterrupt
    return encoded


def _outcome(out: Path, encoded: int, seconds: float) -> Outcome:
    inputs, failed = 0, []
    for path in complete_parts(out).values():
        rows = read_part(path)
        inputs += len(rows.keys)
        failed += _errors(rows)
    file = out / ERRORS
    if failed:
        write_text(file, _table(failed))
    else:
        file.unlink(missing_ok=True)
    rate = encoded / seconds if encoded else 0.0
    return Outcome(
        inputs,
        inputs - len(failed),
        len(failed),
        encoded,
        rate,
        str(file) if failed else None,
    )


def _errors(rows: Rows) -> list[tuple[str, str]]:
    return [
        (key, error) for key, error in zip(rows.keys, rows.errors, strict=True) if error is not None
    ]


def _table(failed: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("key", "error"), *failed])
    return text.getvalue()
