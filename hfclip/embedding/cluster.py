"""The settings of a run on Ray: how many workers, and what each of them needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hfclip.embedding.options import Options
from hfclip.errors import ArgumentError

# Cores of a worker without a GPU, if the caller names neither cores nor workers.
_CORES = 4


@dataclass(frozen=True)
class Cluster:
    """How a run uses Ray.

    Attributes:
        address: The address of a cluster, such as "10.0.0.1:6379"; "auto" for the one that runs on
            this machine; "local" to start Ray on this machine and end it afterwards. None is like
            "auto" if a cluster runs on this machine, else like "local".
        workers: The number of processes that encode. None for as many as fit.
        cpus_per_worker: The cores of each. They decode, and compute if there is no GPU. None
            divides the cores by the workers, or gives 4 cores to each.
        gpus_per_worker: The GPUs of each, which may be a fraction. None for 1 if the cluster has
            GPUs and the device is not the CPU, else 0.
        patience: How long a run without any worker waits before it ends, in seconds.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    patience: float = 600.0

    def check(self, options: Options) -> None:
        """Checks the settings.

        Raises:
            ArgumentError: A number is too small, or the settings contradict the device.
        """
        for name, least in (("workers", 1), ("cpus_per_worker", 1), ("gpus_per_worker", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ArgumentError(f"{name} is {value}; expected at least {least}.")
        if self.patience < 0:
            raise ArgumentError(f"patience is {self.patience}; expected at least 0.")
        gpus, device = self.gpus_per_worker, options.device
        if device not in (None, "cpu", "cuda"):
            raise ArgumentError(
                f"The device is {device}, but Ray assigns the GPUs. Use cpu or cuda, or leave it "
                "out."
            )
        if (device == "cpu" and gpus) or (device == "cuda" and gpus == 0):
            raise ArgumentError(
                f"The device is {device}, but each worker shall have {gpus:g} GPUs. Leave one of "
                "them out."
            )


@dataclass(frozen=True)
class Share:
    """What the workers of a run ask for.

    Attributes:
        workers: The number of workers.
        cpus: The cores of each.
        gpus: The GPUs of each.
        room: How many of them the cluster has room for now, if nobody else uses it.
    """

    workers: int
    cpus: int
    gpus: float
    room: int

    @property
    def need(self) -> str:
        """What a worker needs, in words."""
        cpus = _count(self.cpus, "CPU")
        return f"{cpus} and {_count(self.gpus, 'GPU')}" if self.gpus else cpus


def share_of(
    cluster: Cluster, nodes: Sequence[Mapping[str, float]], *, gpu: bool, parts: int
) -> Share:
    """Returns what the workers of a run ask for.

    Args:
        cluster: The settings.
        nodes: The resources of each node, with the keys CPU and GPU.
        gpu: Whether the workers compute on GPUs.
        parts: The number of parts to encode. More workers than that have nothing to do.
    """
    gpus = (cluster.gpus_per_worker or 1.0) if gpu else 0.0
    cpus = cluster.cpus_per_worker or _cpus(cluster, nodes, gpus)
    room = sum(_room(node, cpus, gpus) for node in nodes)
    return Share(min(cluster.workers or max(1, room), parts), cpus, gpus, room)


def _cpus(cluster: Cluster, nodes: Sequence[Mapping[str, float]], gpus: float) -> int:
    """Returns the cores of a worker: an equal part of a node's, or of all nodes'."""
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        shares = [
            int(node.get("CPU", 0) // (node["GPU"] / gpus))
            for node in nodes
            if node.get("GPU", 0) >= gpus
        ]
        return max(1, min(shares, default=1))
    if cluster.workers is not None:
        return max(1, min(sum(cores) // cluster.workers, max(cores, default=1)))
    return max(1, min(_CORES, max(cores, default=1)))


def _room(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    room = node.get("CPU", 0.0) // cpus
    # A GPU is not divided between workers that need more than a part of it.
    return int(min(room, node.get("GPU", 0.0) // gpus) if gpus else room)


def _count(count: float, unit: str) -> str:
    return f"{count:g} {unit}{'' if count == 1 else 's'}"
