"""Runs `hfclip embed`: plans, encodes what is missing, writes parts and errors.csv."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from hfclip.embedding.changes import Changes, update_plan
from hfclip.embedding.cluster import Cluster
from hfclip.embedding.compact import compact
from hfclip.embedding.failures import write_errors
from hfclip.embedding.listing import list_items
from hfclip.embedding.locations import locate
from hfclip.embedding.opening import opened
from hfclip.embedding.options import Loaded, Options, load_encoder
from hfclip.embedding.plan import Plan
from hfclip.embedding.ray import encode_on_ray
from hfclip.embedding.ray_session import Session
from hfclip.embedding.settings import Listing
from hfclip.embedding.stores import Store, open_store
from hfclip.embedding.work import Encoded, encode_parts
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
        seconds: The time for that, without listing and loading. On Ray it counts from the moment
            when the first worker has loaded the model.
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
    cluster: Cluster | None = None,
    progress: bool = False,
) -> Outcome:
    """Embeds a collection. What is complete already is not encoded again.

    Args:
        sources: Folders, patterns, text files of paths, tars, tables, or text files of texts.
        out: The folder to write, or its URL, such as "s3://bucket/collection".
        options: The model and the options.
        listing: How inputs are found in the sources. Its kind is that of the options.
        planning: How the run plans.
        cluster: How the run uses Ray. None encodes in this process.
        progress: Whether to show progress bars, if standard error is a terminal.

    Raises:
        HfclipError: The sources cannot be listed, the model cannot be loaded, `out` holds
            embeddings of another model, or a request for it fails.
        EngineError: The cluster has no room, all of its nodes refused, or parts were given up.
        KeyboardInterrupt: Ctrl-C was pressed, or the process was asked to end. Complete parts stay.
    """
    options, planning = options or Options(), planning or Planning()
    listing = replace(listing or Listing(), kind=options.kind)
    share = _checked_share(planning)
    _check_pyarrow()
    store = open_store(out)
    with ExitStack() as stack:
        session = None if cluster is None else stack.enter_context(Session(cluster, options))
        loaded = load_encoder(options) if session is None else session.load_encoder()
        manifest = replace(loaded.manifest, sources=tuple(_named(source) for source in sources))
        collection = stack.enter_context(
            opened(store, manifest, shared=planning.share is not None, drop=planning.drop)
        )
        changes = update_plan(
            store,
            _watched(list_items(sources, listing), progress=progress),
            part_size=planning.part_size,
            rehash=planning.rehash,
            retry_errors=planning.retry_errors,
            opened=collection,
        )
        mine = [number for number in changes.pending if number % share[1] == share[0] - 1]
        if not mine:
            encoded = Encoded(0, 0.0)
        elif session is None:
            encoded = _encode(loaded.optimized(), changes.plan, mine, store, options, progress)
        else:
            encoded = encode_on_ray(
                session, loaded.manifest, changes.plan, mine, store, progress=progress
            )
        # In turns, so that the share that ends last lists the errors of all.
        with collection.planning_lock:
            collection.planning_lock.take(patience=_PATIENCE)
            outcome = _outcome(store, changes, manifest.precision, options, encoded)
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
    fast: Loaded,
    plan: Plan,
    numbers: Sequence[int],
    store: Store,
    options: Options,
    progress: bool,
) -> Encoded:
    """Encodes and writes parts in this process."""
    began = time.monotonic()
    total, encoded, errors = sum(plan.sizes[number] for number in numbers), 0, 0
    unit = "text" if options.kind == "texts" else "image"
    with (
        stop_request("batch") as stop,
        tqdm(total=total, unit=unit, disable=None if progress else True) as bar,
    ):

        def show(inputs: int, failed: int) -> None:
            nonlocal errors
            errors += failed
            bar.set_postfix(errors=errors, refresh=False)
            bar.update(inputs)

        for part in encode_parts(fast, plan, numbers, store, options, stop, show):
            encoded += part.rows
        if stop.is_set() and encoded < total:
            raise KeyboardInterrupt
    return Encoded(encoded, time.monotonic() - began)


def _outcome(
    store: Store, changes: Changes, precision: str, options: Options, encoded: Encoded
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
        encoded=encoded.inputs,
        seconds=encoded.seconds,
        rate=encoded.inputs / encoded.seconds if encoded.inputs else 0.0,
        errors_file=counts.errors_file,
        precision=precision,
        preprocess=options.preprocess,
    )
