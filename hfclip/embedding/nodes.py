"""The worker of a cluster: checks its node, loads the model once, and encodes parts.

A node that differs from the run refuses before it works: with other versions, other weights, or
without the files of the run it would write embeddings that do not fit the others. The classes do
not import Ray, which runs a `Worker` in a process of its own.
"""

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

from hfclip.data.urls import is_remote
from hfclip.embedding.manifest import Manifest
from hfclip.embedding.options import Loaded, Options, load_encoder
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import Record
from hfclip.embedding.stores import Store
from hfclip.embedding.work import encode_parts
from hfclip.errors import DataError, HfclipError, HubError
from hfclip.version import __version__

# The packages that change embeddings. Builds for other processors, such as +cpu, are the same.
_PACKAGES = ("torch", "torchvision", "Pillow")
# The fields of a manifest that must agree between the driver and its workers.
_FIELDS = (
    *("sha256", "config_digest", "preprocess", "precision", "normalized", "dimension", "dtype"),
    *("kind", "background", "auto_orient", "max_pixels"),
)
# Errors of the system that another attempt does not repair.
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# Pictures whose files a node must see.
_SAMPLE = 3


@dataclass(frozen=True)
class Task:
    """What a worker must know of a run. It is sent to the worker's node.

    Attributes:
        store: The place of the collection.
        options: The options; the model and its base are absolute where they are paths.
        manifest: The manifest of the run.
        digest: The digest of the plan.
        versions: The versions of the packages, by their names.
        sample: Files of some inputs, which the node must see.
        threads: The threads that compute and that decode.
    """

    store: Store
    options: Options
    manifest: Manifest
    digest: str
    versions: Mapping[str, str]
    sample: Sequence[str]
    threads: int


@dataclass(frozen=True)
class Place:
    """Where a worker runs: the id of the node, the name of the machine, and the process."""

    node: str
    host: str
    process: int


@dataclass(frozen=True)
class Refusal:
    """A worker cannot work.

    Attributes:
        reason: The reason, as a sentence.
        again: Whether it may be asked again, because the reason may go away.
    """

    reason: str
    again: bool


@dataclass(frozen=True)
class Failure:
    """A part could not be encoded, for this reason. `again` is as for `Refusal`."""

    reason: str
    again: bool


def versions() -> dict[str, str]:
    """Returns the versions of hfclip and of the packages that change embeddings."""
    found = {"hfclip": __version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name).partition("+")[0]
    return found


def sample_of(plan: Plan, number: int) -> tuple[str, ...]:
    """Returns files of some inputs of a part, if they are paths and exist."""
    paths = (getattr(item.image, "path", None) for item in plan.part(number).items)
    local = dict.fromkeys(path for path in paths if path is not None and not is_remote(path))
    found: list[str] = []
    for path in local:
        if len(found) < _SAMPLE and os.path.exists(path):  # noqa: PTH110  # not a Path for 5,000
            found.append(path)
    return tuple(found)


class Worker:
    """Encodes parts of one run in a process of its own.

    Its methods return failures instead of raising them, so an exception means that the process or
    the node has a problem.
    """

    def __init__(self, task: Task, node: str = "") -> None:
        self._task = task
        self._node = node
        self._loaded: Loaded | None = None
        self._plan: Plan | None = None
        self._progress: tuple[int, int, int] | None = None

    def place(self) -> Place:
        """Returns where the worker runs. The process has started when this returns."""
        node = self._node or _ray_node()
        return Place(node, socket.gethostname(), os.getpid())

    def begin(self) -> Refusal | None:
        """Checks the node and loads the model. Returns None if the worker can work."""
        import torch  # noqa: PLC0415  # a node without torch gets here

        torch.set_num_threads(self._task.threads)
        try:
            differences = list(self._differences())
            if not differences:
                loaded = load_encoder(self._task.options)
                differences = list(_other_fields(self._task.manifest, loaded.manifest))
        except Exception as error:  # noqa: BLE001  # the driver decides what follows
            return Refusal(_described(error), _may_succeed(error))
        if differences:
            return Refusal("; ".join(differences), again=False)
        self._loaded = loaded.optimized()
        return None

    def encode(self, number: int) -> Record | Failure | None:
        """Encodes and writes a part. Returns None if the part is complete already."""
        import torch  # noqa: PLC0415

        torch.set_num_threads(self._task.threads)
        if self._loaded is None or self._plan is None:
            return Failure("the worker has no model", again=True)
        self._progress = (number, 0, 0)
        try:
            parts = encode_parts(
                self._loaded,
                self._plan,
                [number],
                self._task.store,
                self._task.options,
                on_batch=self._count,
            )
            return next(parts, None)
        except Exception as error:  # noqa: BLE001  # the driver decides what follows
            is_request = self._task.store.folder is None and isinstance(error, DataError)
            return Failure(_described(error), is_request or _may_succeed(error))
        finally:
            self._progress = None

    def progress(self) -> tuple[int, int, int] | None:
        """Returns the part in work with its inputs and errors until now, or None."""
        return self._progress

    def _count(self, inputs: int, errors: int) -> None:
        if self._progress is not None:
            number, before, failed = self._progress
            self._progress = (number, before + inputs, failed + errors)

    def _differences(self) -> Iterator[str]:
        """Yields how the node differs from the driver's, without the model."""
        found = versions()
        for name, expected in self._task.versions.items():
            if found.get(name) != expected:
                yield f"{name} is {found.get(name, 'missing')}; the run uses {expected}"
        try:
            self._plan = Plan(self._task.store)
        except (DataError, OSError) as error:
            yield f"it does not see the collection ({error})"
            return
        if self._plan.digest != self._task.digest:
            yield f"it sees another plan in {self._task.store} than the run has written"
        missing = [path for path in self._task.sample if not os.path.exists(path)]  # noqa: PTH110
        if missing:
            yield f"it does not see the inputs, such as {missing[0]}"


def _other_fields(expected: Manifest, found: Manifest) -> Iterator[str]:
    for name in _FIELDS:
        if getattr(expected, name) != getattr(found, name):
            yield (
                f"{_WORDS.get(name, name)} {getattr(found, name)!r}; the run has "
                f"{getattr(expected, name)!r}"
            )


_WORDS = {
    "sha256": "the weights have the sha256",
    "config_digest": "the model's configuration has the sha256",
    "precision": "the model computes in",
}


def _described(error: Exception) -> str:
    if isinstance(error, HfclipError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _may_succeed(error: Exception) -> bool:
    """Returns whether another attempt may succeed. RuntimeError is what torch raises on a GPU."""
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    if isinstance(error, HfclipError):
        return isinstance(error, HubError)
    return isinstance(error, MemoryError | RuntimeError)


def _ray_node() -> str:
    import ray  # noqa: PLC0415  # only in a process of Ray

    node: str = ray.get_runtime_context().get_node_id()
    return node
