"""Connects to Ray, or starts it on this machine for one run."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from hfclip.devices import choose_device
from hfclip.embedding.cluster import Cluster
from hfclip.embedding.manifest import Manifest
from hfclip.embedding.options import Loaded, Options, load_encoder
from hfclip.errors import DataError, EngineError

# No statistics about the use are sent, a worker without a GPU keeps the variables of CUDA, and a
# Ray that is started here does not start a process for each CPU before it knows the workers.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",
}
# The address for a Ray that is started for the run.
_NEW = "local"
# Seconds in which a cluster must answer.
_REACHABLE = 5.0
# Seconds for a restart of the process that leads a cluster, and of one on this machine.
_RESTART, _RESTART_HERE, _PAUSE = 30.0, 1.0, 0.5
# Shared memory for objects in bytes, the least that Ray accepts with some reserve: calls and
# results have less than a kilobyte.
_OBJECT_STORE = 100 * 2**20


class Session:
    """A connection to Ray, for a `with` statement. It ends a Ray that it has started.

    Attributes:
        cluster: The settings.
        options: The options of the run.
        is_own: Whether it has started Ray on this machine.
    """

    def __init__(self, cluster: Cluster, options: Options) -> None:
        cluster.check(options)
        self.cluster, self.options = cluster, options
        self.is_own = False
        self._ray: Any = None
        self._connected = False
        self._gcs = ""

    def __enter__(self) -> "Session":
        """Connects to the cluster, if one is named or runs on this machine.

        Raises:
            DataError: Ray is not installed.
            EngineError: The cluster cannot be reached.
        """
        self._ray = _imported()
        if self._ray.is_initialized():
            return self
        named = self.cluster.address or os.environ.get("RAY_ADDRESS")
        address = _started_here() if named in (None, "auto") else named
        if named in (None, _NEW):
            if named is None and address is not None and _answers(address):
                self._init(address=address)
            return self
        self._connect(address or "auto")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    @cached_property
    def uses_gpu(self) -> bool:
        """Whether the workers compute on GPUs."""
        cluster, device = self.cluster, self.options.device
        if cluster.gpus_per_worker is not None or device is not None:
            return bool(cluster.gpus_per_worker) or device == "cuda"
        if self._ray.is_initialized():
            return float(self._ray.cluster_resources().get("GPU", 0)) > 0
        return choose_device(None).type == "cuda"

    def load_encoder(self) -> Loaded:
        """Loads the model on the CPU. Its manifest is that of the workers.

        Raises:
            HfclipError: As `hfclip.load`.
        """
        return load_encoder(replace(self.options, device="cpu"), for_gpu=self.uses_gpu)

    def worker_options(self, manifest: Manifest, threads: int) -> Options:
        """Returns the options of a worker, with absolute paths and its own device.

        Args:
            manifest: The manifest of the run.
            threads: The threads that decode, if the options do not name a number.
        """
        return replace(
            self.options,
            model=manifest.name,
            base=manifest.base,
            device="cuda" if self.uses_gpu else "cpu",
            workers=self.options.workers or threads,
        )

    def check_alive(self) -> None:
        """Checks that the cluster answers. Ray would end this process after a minute without.

        Raises:
            EngineError: The cluster is gone.
        """
        if not self._gcs:
            self._gcs = self._ray.get_runtime_context().gcs_address
        end = time.monotonic() + (_RESTART_HERE if self.is_own else _RESTART)
        while not _answers(self._gcs):
            if time.monotonic() >= end:
                name = "Ray on this machine" if self.is_own else f"The Ray cluster at {self._gcs}"
                raise EngineError(
                    f"{name} is gone. Complete parts are kept. The same command continues."
                )
            time.sleep(_PAUSE)

    def nodes(self) -> list[Mapping[str, float]]:
        """Returns the resources of each node that is alive."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def size(self) -> str:
        """Returns the CPUs and GPUs of the cluster, in words."""
        return _words(self._ray.cluster_resources())

    def free(self) -> str:
        """Returns how many CPUs and GPUs are free, in words."""
        free, every = self._ray.available_resources(), self._ray.cluster_resources()
        kinds = [kind for kind in ("CPU", "GPU") if every.get(kind)]
        counts = [f"{free.get(kind, 0):g} of {every[kind]:g} {kind}s are free" for kind in kinds]
        return ", ".join(counts) or "the cluster has no CPUs"

    def started(self) -> Any:
        """Returns the module ray with a cluster. Starts Ray on this machine if there is none.

        Raises:
            EngineError: Ray cannot be started.
        """
        if not self._ray.is_initialized():
            try:
                self._init(
                    address=_NEW,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE,
                )
                self.is_own = True
            except Exception as error:  # Ray documents none
                raise EngineError(
                    f"Ray cannot be started on this machine ({first_line(error)})."
                ) from error
        return self._ray

    def _connect(self, address: str) -> None:
        """Connects to a cluster that the caller has named.

        Raises:
            EngineError: The cluster cannot be reached.
        """
        if address.startswith("ray://"):
            raise EngineError(
                f"{address} is an address of Ray Client. Start hfclip on a node of the cluster, "
                "with the address host:6379 or auto."
            )
        reason = "nothing answers there"
        if address == "auto" or _answers(address):
            try:
                self._init(address=address)
            except Exception as error:  # noqa: BLE001  # Ray documents none
                reason = first_line(error)
            else:
                return
        raise EngineError(
            f"The Ray cluster {address} cannot be reached ({reason}). Start it, or leave out "
            "--address to start Ray on this machine."
        )

    def _init(self, **arguments: Any) -> None:
        self._ray.init(log_to_driver=False, logging_level="FATAL", **arguments)
        self._connected = True
        with suppress(AttributeError):
            # It writes what happens to any process of the cluster to standard output.
            self._ray._private.worker.print_to_stdstream = _ignore  # noqa: SLF001


def _imported() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise DataError('--engine ray needs Ray: pip install "hfclip[ray]"') from error
    return ray


def _ignore(*_: Any, **__: Any) -> None:
    """Takes what Ray would print."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error without its period."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _words(resources: Mapping[str, float]) -> str:
    counts = [f"{resources.get('CPU', 0):g} CPUs"]
    if resources.get("GPU"):
        counts.append(f"{resources['GPU']:g} GPUs")
    return " and ".join(counts)


def _started_here() -> str | None:
    """Returns the address of the cluster that `ray start` has started on this machine, or None."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    try:
        return Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _answers(address: str) -> bool:
    """Returns whether something listens at an address. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE):
            return True
    except (OSError, ValueError):
        return False
