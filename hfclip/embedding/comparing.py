"""Finds the rows of complete parts whose embeddings stay right for the inputs of a run.

The plan says what was embedded. An input with the key, size, time and place of a row has not
changed. Where only the time or the place differ, the content is compared. An input without such a
row may have the content of a row whose input is gone or has changed: the file was moved.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from hfclip.embedding.fingerprints import (
    HASH,
    Fingerprints,
    Hashes,
    equal_at,
    positions,
    short_hash,
)
from hfclip.embedding.inputs import Inputs
from hfclip.embedding.items import Item
from hfclip.embedding.part_files import part_file, recorded_parts
from hfclip.embedding.parts import read_digests, read_table
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import Record, facts_of
from hfclip.embedding.stores import AnyStore, Store, open_store
from hfclip.errors import DataError
from hfclip.images.formats import RAW_ENDINGS

_BLOCK = 1_024
_THREADS = 8
_UNKNOWN = bytes(32)


@dataclass(frozen=True)
class Recorded:
    """The rows of the earlier plan, in its order.

    Attributes:
        prints: The fingerprints of their inputs.
        parts: The numbers of their parts, int32 (m,).
        rows: Their indices in these parts, int32 (m,).
        complete: Whether the part is complete, bool (m,).
        failed: Whether the row has an error instead of an embedding, bool (m,).
        lengths: The number of rows of each complete part, dead ones among them.
    """

    prints: Fingerprints
    parts: NDArray[np.int32]
    rows: NDArray[np.int32]
    complete: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    lengths: dict[int, int]


@dataclass(frozen=True)
class Comparison:
    """How the inputs of a run relate to the rows of the earlier plan.

    Attributes:
        same_key: For each input the index of the row with its key, or -1; int64 (n,).
        source: For each input the index of the row with its embedding, or -1; int64 (n,).
        moved: Whether that row was found by content, bool (n,).
        equal: Whether the input has not changed, nor its time and place, bool (n,).
        retried: Whether the input has not changed but is encoded again after an error, bool (n,).
    """

    same_key: NDArray[np.int64]
    source: NDArray[np.int64]
    moved: NDArray[np.bool_]
    equal: NDArray[np.bool_]
    retried: NDArray[np.bool_]


def recall(out: AnyStore, plan: Plan | None) -> Recorded:
    """Reads the rows of a plan, and which of them are complete.

    Raises:
        DataError: The plan or a part is damaged.
    """
    prints = Fingerprints()
    parts, rows, complete, failed = bytearray(), bytearray(), bytearray(), bytearray()
    lengths: dict[int, int] = {}
    store = open_store(out)
    files = recorded_parts(store)
    for number, table in plan.tables() if plan is not None else ():
        prints.add(table.drop_columns(["part", "row"]))
        count = table.num_rows
        index = table.column("row").to_numpy()
        parts += np.full(count, number, np.int32).tobytes()
        rows += index.astype(np.int32).tobytes()
        complete += np.full(count, number in files).tobytes()
        has_error = np.zeros(count, np.bool_)
        if number in files:
            errors = _errors(store, number, files[number])
            lengths[number] = len(errors)
            if index.max() >= len(errors):
                raise DataError(
                    f"{store.path(part_file(number))} has {len(errors):,} rows; the plan names row "
                    f"{index.max():,}. Delete the file and run the same command again."
                )
            has_error = errors[index]
        failed += has_error.tobytes()
    return Recorded(
        prints,
        np.frombuffer(parts, np.int32),
        np.frombuffer(rows, np.int32),
        np.frombuffer(complete, np.bool_),
        np.frombuffer(failed, np.bool_),
        lengths,
    )


def _errors(store: Store, number: int, records: Sequence[Record]) -> NDArray[np.bool_]:
    """Returns which rows of a part have an error, bool (n,). Reads no file if none has."""
    facts = facts_of(records)
    if facts is not None and not facts.errors:
        return np.zeros(facts.rows, np.bool_)
    table = read_table(store, number, ["error"], records)
    found: NDArray[np.bool_] = table.column("error").is_valid().to_numpy()
    return found


def compare(
    out: AnyStore, inputs: Inputs, recorded: Recorded, *, rehash: bool, retry_errors: bool
) -> Comparison:
    """Finds a row with the right embedding for as many inputs as possible. Each row is used once.

    Args:
        out: The place of the collection.
        inputs: The inputs of this run.
        recorded: The rows of the earlier plan.
        rehash: Whether contents are compared also where size and time agree.
        retry_errors: Whether inputs that could be listed but not read are encoded again.
    """
    prints, before = inputs.prints, recorded.prints
    same_key = positions(prints.keys, before.keys)
    equal = equal_at(prints.states, before.states, same_key)
    alike = equal_at(prints.contents, before.contents, same_key)
    complete = _at(recorded.complete, same_key)
    retried = complete & alike & _at(recorded.failed, same_key) & ~prints.failed & retry_errors
    stays = complete & alike & ~retried
    contents = _Contents(out, inputs, recorded)
    doubtful = stays if rehash else stays & ~equal
    for index, agrees in contents.checked(np.flatnonzero(doubtful), same_key, equal):
        stays[index] = agrees
        equal[index] &= agrees
    source = np.where(stays, same_key, -1)
    planned = (same_key >= 0) & ~complete
    moved = contents.moved(source, ~stays & ~retried & ~planned & ~prints.failed)
    source[moved >= 0] = moved[moved >= 0]
    return Comparison(same_key, source, moved >= 0, equal, retried)


def _at(values: NDArray[np.bool_], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns the values at some places; False at the place -1."""
    return np.append(values, False)[places]


class _Contents:
    """Compares contents of inputs with those of rows. Reads each content at most once."""

    def __init__(self, out: AnyStore, inputs: Inputs, recorded: Recorded) -> None:
        self._out = out
        self._inputs = inputs
        self._recorded = recorded
        self._differing: dict[int, bytes] = {}

    def checked(
        self, doubtful: NDArray[np.int64], rows: NDArray[np.int64], equal: NDArray[np.bool_]
    ) -> Iterator[tuple[int, bool]]:
        """Yields whether inputs still have the contents of the rows with their keys."""
        could_be_listed = ~self._recorded.prints.failed
        for block, items, digests in self._digests(doubtful):
            before = self._recorded_digests(rows[block])
            for index, item, digest, old in zip(
                block.tolist(), items, digests, before, strict=True
            ):
                agrees = bool(equal[index])
                if item.image is None:  # the texts are equal
                    agrees |= item.error is None and bool(could_be_listed[rows[index]])
                elif old != _UNKNOWN:
                    agrees = digest == old
                    if not agrees:
                        self._differing[index] = digest
                yield index, agrees

    def moved(self, source: NDArray[np.int64], seeks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns for each input that seeks a row a free row of its content; else -1."""
        wanted, offered = self._inputs.prints.contents, self._recorded.prints.contents
        free = self._recorded.complete & ~self._recorded.failed
        free[source[source >= 0]] = False
        seeking = np.flatnonzero(seeks)
        seeking = seeking[np.isin(wanted[seeking], offered[free])]
        offers = np.flatnonzero(free)
        offers = offers[np.isin(offered[offers], wanted[seeking])]
        digests = self._recorded_digests(offers)
        offers = offers[[digest != _UNKNOWN for digest in digests]]
        tokens = _tokens(offered[offers], [digest for digest in digests if digest != _UNKNOWN])
        sought = bytearray()
        for block, items, found in self._digests(seeking):
            names = (PurePath(item.key).suffix.lower() for item in items)
            usable = [
                # the ending of a RAW file decides that it is not read
                _UNKNOWN if name in RAW_ENDINGS else digest
                for name, digest in zip(names, found, strict=True)
            ]
            sought += _tokens(wanted[block], usable).tobytes()
        result = np.full(len(source), -1, np.int64)
        seekers, taken = _paired(np.frombuffer(sought, HASH), tokens)
        result[seeking[seekers]] = offers[taken]
        return result

    def _digests(
        self, chosen: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], list[Item], list[bytes]]]:
        """Yields blocks of inputs with the digests of their contents, which threads read."""
        if not len(chosen):
            return
        with ThreadPoolExecutor(_THREADS, "hfclip-hashing") as pool:
            for start in range(0, len(chosen), _BLOCK):
                block = chosen[start : start + _BLOCK]
                items = self._inputs.items(block)
                known = [self._differing.get(index) for index in block.tolist()]
                yield block, items, list(pool.map(_digest, items, known))

    def _recorded_digests(self, chosen: NDArray[np.int64]) -> list[bytes]:
        """Returns the digests of rows; zeros where they are unknown."""
        parts, rows = self._recorded.parts[chosen], self._recorded.rows[chosen]
        found = np.zeros((len(chosen), len(_UNKNOWN)), np.uint8)
        for part in np.unique(parts).tolist():
            digests = read_digests(self._out, part, self._recorded.lengths[part])
            if digests is not None:
                here = parts == part
                found[here] = digests[rows[here]]
        return [row.tobytes() for row in found]


def _digest(item: Item, known: bytes | None) -> bytes:
    """Returns the sha256 of an input's content; zeros if it cannot be read."""
    if known is not None:
        return known
    if item.error is not None:
        return _UNKNOWN
    try:
        return sha256(item.content()).digest()
    except (OSError, DataError):
        return _UNKNOWN


def _tokens(contents: Hashes, digests: Sequence[bytes]) -> Hashes:
    """Returns a hash of each pair, which moved files have in common with their rows."""
    pairs = zip(contents.tolist(), digests, strict=True)
    return np.frombuffer(bytearray().join(map(short_hash, pairs)), HASH)


def _paired(wanted: Hashes, offered: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs equal values, each at most once, in their order. Returns the indices of both."""
    by_want, by_offer = np.argsort(wanted, kind="stable"), np.argsort(offered, kind="stable")
    wants, offers = wanted[by_want], offered[by_offer]
    index = np.arange(len(wants))
    starts = np.ones(len(wants), np.bool_)
    starts[1:] = wants[1:] != wants[:-1]
    # The k-th of equal wants takes the k-th of equal offers.
    rank = index - np.maximum.accumulate(np.where(starts, index, 0))
    place = np.searchsorted(offers, wants) + rank
    fits = place < len(offers)
    fits[fits] = offers[place[fits]] == wants[fits]
    return by_want[fits], by_offer[place[fits]]
