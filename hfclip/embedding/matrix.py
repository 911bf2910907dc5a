"""The matrix of a collection: files that are built once on this machine and then mapped.

    matrix-STAMP/
      vectors.npy     float32 (N, D): the live rows with an embedding, in the plan's order
      captions.npy    float32 (N, D): their captions' embeddings, NaN without; only with captions
      norms.npy       float32 (N,): only if the embeddings are not normalised
      rows.arrow      key, caption, width, height, part and row of each
      errors.arrow    key and error of the live rows without an embedding
      files.json      the names of these files

The stamp changes with the plan and with the parts. A matrix is written under another name and
renamed, so processes that build the same one at once do not disturb each other. It is never edited,
so it may stay mapped.
"""

import hashlib
import json
import shutil
import tempfile
import time
import uuid
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hfclip.atomic import synced, write_text
from hfclip.embedding.manifest import Manifest
from hfclip.embedding.matrix_files import BLOCK, MatrixFiles
from hfclip.embedding.part_files import named_parts, part_file, recorded_parts
from hfclip.embedding.parts import read_table
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import Record
from hfclip.embedding.stores import Store
from hfclip.errors import CacheError, DataError

if TYPE_CHECKING:
    import pyarrow

_FORMAT = 2
_FILES = "files.json"
_COLUMNS = ("embedding", "error", "width", "height", "caption", "caption_embedding")
# Seconds without a change after which an unfinished matrix counts as left by a killed process.
_ABANDONED = 3_600
# How often a matrix is planned again if the collection changes while it is built.
_ATTEMPTS = 5


@dataclass(frozen=True, eq=False)
class Matrix:
    """The mapped files of a collection, read-only.

    Attributes:
        folder: The folder of the files. Its name changes with the collection.
        vectors: The embeddings, float32 (N, D).
        captions: The embeddings of the captions, float32 (N, D) with NaN in rows without a
            caption, or None if there are no captions.
        norms: The norms of the embeddings, float32 (N,), or None if they are normalised.
        rows: An Arrow table with the columns key, caption, width, height, part and row.
        errors: An Arrow table with the columns key and error.
    """

    folder: Path
    vectors: NDArray[np.float32]
    captions: NDArray[np.float32] | None
    norms: NDArray[np.float32] | None
    rows: "pyarrow.Table"
    errors: "pyarrow.Table"


@dataclass(frozen=True)
class _Job:
    """A matrix to build.

    Attributes:
        store: The place of the collection.
        manifest: Its manifest.
        plan: Its plan.
        parts: The planned parts that are complete, ascending, with their records.
        progress: Whether to show a progress bar.
    """

    store: Store
    manifest: Manifest
    plan: Plan
    parts: Mapping[int, Sequence[Record]]
    progress: bool

    @cached_property
    def name(self) -> str:
        """The name of the matrix, which has the stamp of the plan and the parts."""
        facts: list[object] = [_FORMAT, self.plan.digest]
        files = self.store.files()
        for number in self.parts:
            name = part_file(number)
            if name in files:  # otherwise removed since it was listed: the next attempt sees it
                facts.append((name, files[name].version))
        return f"matrix-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


class _ChangedError(Exception):
    """A part has disappeared, because another process has changed the collection."""


def open_matrix(store: Store, manifest: Manifest, *, progress: bool = False) -> Matrix:
    """Maps the matrix of a collection. Builds it if the collection has changed.

    It lies in the collection's hidden folder. If that cannot be written, it lies in the folder of
    the Hub's cache, or in a temporary folder until the process ends; a warning says so. The matrix
    of a remote collection lies in the folder of the Hub's cache.

    Args:
        store: The place of the collection.
        manifest: The manifest of the collection.
        progress: Whether to show a progress bar while it is built.

    Raises:
        DataError: pyarrow is missing, no part is complete, a part is damaged, or a request fails.
        CacheError: The matrix can be written nowhere.
    """
    for _ in range(_ATTEMPTS):
        plan = Plan(store)
        job = _Job(store, manifest, plan, _complete(store, plan), progress)
        for place in store.caches:
            if (matrix := _existing(place / job.name)) is not None:
                return matrix
        try:
            return _built(job)
        except _ChangedError:
            continue
        except DataError:
            if Plan(store).digest == plan.digest:  # otherwise the collection has changed
                raise
    raise DataError(f"{store} changes while it is read. Wait until the other process is done.")


def _complete(store: Store, plan: Plan) -> dict[int, tuple[Record, ...]]:
    """Returns the planned parts that are complete.

    In a copy of a folder on remote storage no part has a record: all that have a file count.
    """
    found = recorded_parts(store) or dict.fromkeys(named_parts(store), ())
    parts = {number: records for number, records in found.items() if number in plan.sizes}
    if not parts:
        raise DataError(
            f"{store} has no complete part yet. The same `hfclip embed` again goes on with it."
        )
    return parts


def _existing(folder: Path) -> Matrix | None:
    """Maps a matrix, or returns None if it does not exist or is not whole."""
    try:
        names = set(json.loads((folder / _FILES).read_text(encoding="utf-8")))
        return Matrix(
            folder=folder,
            vectors=_mapped(folder / "vectors.npy"),
            captions=_mapped(folder / "captions.npy") if "captions.npy" in names else None,
            norms=_mapped(folder / "norms.npy") if "norms.npy" in names else None,
            rows=_mapped_table(folder / "rows.arrow"),
            errors=_mapped_table(folder / "errors.arrow"),
        )
    except (OSError, ValueError):
        return None


def _mapped(path: Path) -> NDArray[np.float32]:
    """Maps a .npy file as a plain read-only array."""
    array: NDArray[np.float32] = np.load(path, mmap_mode="r" if _has_rows(path) else None)
    return array.view(np.ndarray)


def _has_rows(path: Path) -> bool:
    """Returns whether a .npy file has data: a file without cannot be mapped."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    return bool(shape[0])


def _mapped_table(path: Path) -> "pyarrow.Table":
    import pyarrow  # noqa: PLC0415

    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def _built(job: _Job) -> Matrix:
    """Builds the matrix in the first place that can be written, and maps it."""
    reason = ""
    for place in job.store.caches:
        try:
            folder = _build_in(place, job)
        except OSError as error:
            reason = reason or str(error)
            continue
        if reason:
            _warn(job.store, folder, reason)
        return _mapped_whole(folder)
    return _built_temporarily(job, reason)


def _built_temporarily(job: _Job, reason: str) -> Matrix:
    """Builds the matrix in a folder that is removed with it, or when the process ends."""
    try:
        place = Path(tempfile.mkdtemp(prefix="hfclip-"))
    except OSError as error:
        raise CacheError(
            f"The matrix of {job.store} cannot be written ({reason}; {error})."
        ) from error
    try:
        matrix = _mapped_whole(_build_in(place, job))
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise CacheError(
            f"The matrix of {job.store} cannot be written ({reason}; {error})."
        ) from error
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(matrix, shutil.rmtree, place, ignore_errors=True)
    _warn(job.store, place, reason)
    return matrix


def _mapped_whole(folder: Path) -> Matrix:
    if (matrix := _existing(folder)) is None:
        raise _ChangedError
    return matrix


def _warn(store: Store, folder: Path, reason: str) -> None:
    place = store if store.folder is not None else f"The cache of {store}"
    warnings.warn(
        f"{place} cannot be written ({reason}), so its matrix is in {folder}.", stacklevel=5
    )


def _build_in(place: Path, job: _Job) -> Path:
    """Builds the matrix in a folder and returns its path.

    Raises:
        OSError: The folder cannot be written.
    """
    began = time.time()
    place.mkdir(parents=True, exist_ok=True)
    unfinished = place / f".{job.name}.{uuid.uuid4().hex[:12]}.part"
    unfinished.mkdir()
    folder = place / job.name
    try:
        _write(unfinished, job)
        if folder.exists() and _existing(folder) is None:
            _remove(folder)
        try:
            unfinished.rename(folder)
        except OSError:  # another process has built it meanwhile
            if not folder.exists():
                raise
        synced(place)
        _remove_old(place, job.name, began)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _remove_old(place: Path, name: str, began: float) -> None:
    """Removes matrices older than this build, and unfinished ones of killed processes."""
    for folder in place.glob("matrix-*"):
        if folder.name != name and _changed(folder) < began:
            _remove(folder)
    for folder in place.glob(".matrix-*.part"):
        if time.time() - max(map(_changed, [folder, *folder.glob("*")])) > _ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed by another process
        return time.time()


def _remove(folder: Path) -> None:
    """Removes a matrix. No other process ever sees a part of it."""
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        folder.rename(unfinished)
    except OSError:  # removed by another process, or mapped on Windows
        return
    shutil.rmtree(unfinished, ignore_errors=True)


def _write(folder: Path, job: _Job) -> None:
    with (
        MatrixFiles(folder, job.manifest) as files,
        tqdm(
            desc="building the matrix",
            total=job.plan.count,
            unit="row",
            leave=False,
            disable=None if job.progress else True,
        ) as bar,
    ):
        for number, live in job.plan.tables(["row", "key"]):
            if number in job.parts:
                _add_part(files, job, number, live)
            bar.update(live.num_rows)
    for path in folder.iterdir():
        synced(path)
    write_text(folder / _FILES, json.dumps(sorted(path.name for path in folder.iterdir())))


def _add_part(files: MatrixFiles, job: _Job, number: int, live: "pyarrow.Table") -> None:
    """Adds the live rows of a part; `live` has their columns row and key."""
    path, dimension = job.store.path(part_file(number)), job.manifest.dimension
    try:
        table = read_table(job.store, number, _COLUMNS, job.parts[number])
    except FileNotFoundError as error:
        raise _ChangedError from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    rows = live.column("row").to_numpy()
    if rows.max(initial=-1) >= table.num_rows:
        raise DataError(f"{path} has {table.num_rows:,} rows; the plan has more. It is damaged.")
    width = table.column("embedding").type.list_size
    if width != dimension:
        raise DataError(f"{path} has embeddings of {width} numbers; the manifest says {dimension}.")
    for begin in range(0, len(rows), BLOCK):
        chosen = rows[begin : begin + BLOCK]
        keys = live.column("key").slice(begin, BLOCK).to_pylist()
        files.add(number, chosen, keys, table.take(chosen))
