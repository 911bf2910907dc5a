"""Runs `hfclip embed`: plans, encodes what is missing, writes parts and errors.csv."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from hfclip.embedding.changes import Changes, update_plan
from hfclip.embedding.compact import compact
from hfclip.embedding.decoding import pixel_limit
from hfclip.embedding.failures import write_errors
from hfclip.embedding.listing import list_items
from hfclip.embedding.locations import locate
from hfclip.embedding.opening import opened
from hfclip.embedding.options import Loaded, Options, load_encoder
from hfclip.embedding.part_files import is_written
from hfclip.embedding.parts import write_part
from hfclip.embedding.pipeline import Pipeline
from hfclip.embedding.plan import Plan, PlannedPart
from hfclip.embedding.settings import Listing
from hfclip.embedding.stores import Store, open_store
from hfclip.errors import ArgumentError, DataError
from hfclip.interruption import stop_request

PART_SIZE = 5_000
# How long a share waits for another one that plans before it counts errors, in seconds.
_PATIENCE = 600.0


@dataclass(frozen=True)
class Planning:
    """How a run plans.

    Attributes:
        part_size: Inputs in a new part. A part is kept once it is complete.
        share: (K, N) encodes only every N-th part: those whose number leaves K - 1 if divided by N.
            Several processes may encode the shares of one collection at once.
        rehash: Whether files are compared by content also where size and time agree.
        retry_errors: Whether inputs that could not be read are encoded again.
        drop: Whether the inputs of sources that are no longer named may disappear.
        compact: Whether parts are rewritten at the end, without rows that are gone.
    """

    part_size: int = PART_SIZE
    share: tuple[int, int] | None = None
    rehash: bool = False
    retry_errors: bool = False
    drop: bool = False
    compact: bool = False


@dataclass(frozen=True)
class Outcome:
    """The summary of a run.

    Attributes:
        inputs: The number of inputs.
        embedded: Those with an embedding.
        errors: Those that could not be read.
        pending: Those that other shares have not encoded yet.
        new: Inputs that are new in this run.
        changed: Inputs whose content has changed.
        deleted: Inputs of the run before that are gone.
        moved: Inputs that keep the embedding of a file with another name.
        unchanged: Inputs that have not changed.
        retried: Those of them that could not be read before, and were encoded again.
        encoded: The number of inputs that this run has encoded.
        seconds: The time for that, without listing and loading.
        rate: Encoded inputs a second.
        errors_file: The path or URL of the table of the errors, or None if there are none.
        precision: The precision in which the model computes.
        preprocess: The implementation of the preprocess.
    """

    inputs: int
    embedded: int
    errors: int
    pending: int
    new: int
    changed: int
    deleted: int
    moved: int
    unchanged: int
    retried: int
    encoded: int
    seconds: float
    rate: float
    errors_file: str | None
    precision: str
    preprocess: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary in JSON types."""
        return asdict(self)


def embed_collection(
    sources: Sequence[str],
    out: "str | os.PathLike[str]",
    options: Options | None = None,
    listing: Listing | None = None,
    planning: Planning | None = None,
    *,
    progress: bool = False,
) -> Outcome:
    """Embeds a collection. What is complete already is not encoded again.

    Args:
        sources: Folders, patterns, text files of paths, tars, tables, or text files of texts.
        out: The folder to write, or its URL, such as "s3://bucket/collection".
        options: The model and the options.
        listing: How inputs are found in the sources. Its kind is that of the options.
        planning: How the run plans.
        progress: Whether to show progress bars, if standard error is a terminal.

    Raises:
        HfclipError: The sources cannot be listed, the model cannot be loaded, `out` holds
            embeddings of another model, or a request for it fails.
        KeyboardInterrupt: Ctrl-C was pressed, or the process was asked to end. Complete parts stay.
    """
    options, planning = options or Options(), planning or Planning()
    listing = replace(listing or Listing(), kind=options.kind)
    share = _checked_share(planning)
    _check_pyarrow()
    store = open_store(out)
    loaded = load_encoder(options)
    manifest = replace(loaded.manifest, sources=tuple(_named(source) for source in sources))
    with opened(
        store, manifest, shared=planning.share is not None, drop=planning.drop
    ) as collection:
        changes = update_plan(
            store,
            _watched(list_items(sources, listing), progress=progress),
            part_size=planning.part_size,
            rehash=planning.rehash,
            retry_errors=planning.retry_errors,
            opened=collection,
        )
        mine = [number for number in changes.pending if number % share[1] == share[0] - 1]
        began = time.monotonic()
        encoded = _encode(loaded, changes.plan, mine, store, options, progress) if mine else 0
        seconds = time.monotonic() - began
        # In turns, so that the share that ends last lists the errors of all.
        with collection.planning_lock:
            collection.planning_lock.take(patience=_PATIENCE)
            outcome = _outcome(store, changes, manifest.precision, options, encoded, seconds)
    if planning.compact:
        compact(store, part_size=planning.part_size)
    return outcome


def _checked_share(planning: Planning) -> tuple[int, int]:
    if planning.share is None:
        return 1, 1
    if not 1 <= planning.share[0] <= planning.share[1]:
        raise ArgumentError(f"The share is {planning.share}; expected (K, N) with K from 1 to N.")
    if planning.compact:
        raise ArgumentError(
            "A share cannot compact, because others may write. Compact in a run without a share."
        )
    return planning.share


def _check_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ImportError as error:
        raise DataError('Embedding needs pyarrow: pip install "hfclip[embed]"') from error


def _named(source: str) -> str:
    """Returns the name of a source in the manifest: "photos" for "photos/" and "./photos"."""
    return locate(source).key.rstrip("/") or "/"


def _watched(items: Iterator[Any], *, progress: bool) -> Iterator[Any]:
    shown = None if progress else True
    yield from tqdm(items, "listing", unit="input", leave=False, disable=shown)


def _encode(
    loaded: Loaded,
    plan: Plan,
    numbers: Sequence[int],
    store: Store,
    options: Options,
    progress: bool,
) -> int:
    """Encodes and writes parts and returns the number of their inputs."""
    fast = loaded.optimized()
    pipeline = Pipeline(fast.encoder, fast.reader, options.batch_size, options.workers)
    total, encoded, errors = sum(plan.sizes[number] for number in numbers), 0, 0
    unit = "text" if options.kind == "texts" else "image"
    with (
        pixel_limit(options.max_pixels),
        stop_request("batch") as stop,
        tqdm(total=total, unit=unit, disable=None if progress else True) as bar,
    ):

        def show(inputs: int, failed: int) -> None:
            nonlocal errors
            errors += failed
            bar.set_postfix(errors=errors, refresh=False)
            bar.update(inputs)

        for part, rows in pipeline.encode(_missing(plan, numbers, store), stop, show):
            write_part(
                store, part.number, rows, dtype=options.dtype, dimension=fast.encoder.dimension
            )
            encoded += len(rows)
        if stop.is_set() and encoded < total:
            raise KeyboardInterrupt
    return encoded


def _missing(plan: Plan, numbers: Sequence[int], store: Store) -> Iterator[PlannedPart]:
    """Yields the parts that have no file yet. Another process may have written some."""
    for number in numbers:
        if not is_written(store, number):
            yield plan.part(number)


def _outcome(
    store: Store, changes: Changes, precision: str, options: Options, encoded: int, seconds: float
) -> Outcome:
    counts = write_errors(store)
    return Outcome(
        inputs=counts.inputs,
        embedded=counts.embedded,
        errors=counts.errors,
        pending=counts.pending,
        new=changes.new,
        changed=changes.changed,
        deleted=changes.deleted,
        moved=changes.moved,
        unchanged=changes.unchanged,
        retried=changes.retried,
        encoded=encoded,
        seconds=seconds,
        rate=encoded / seconds if encoded else 0.0,
        errors_file=counts.errors_file,
        precision=precision,
        preprocess=options.preprocess,
    )
