"""What the numbers were measured on."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "hfclip",
    "torch",
    "torchvision",
    "safetensors",
    "clip-anytorch",
    "open_clip_torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "openvino",
    "pillow",
    "numpy",
)


def describe() -> dict[str, str | int | float]:
    """The processor, its cores, the memory, the system."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def packages() -> dict[str, str]:
    """The versions of hfclip, of what it stands on and of its peers, where installed."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


class Neighbours:
    """Watches what other programs take of the machine from now on: the noise in a measurement."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Their part of all cores' time since then, 0 to 1; None where the system cannot tell."""
        if (busy := _busy_seconds()) is None or self._busy is None:
            return None
        others = (busy - self._busy) - (_own_seconds() - self._own)
        # The clocks tick coarsely: what comes out a little below nothing is nothing.
        return max(others, 0.0) / ((time.monotonic() - self._start) * (os.cpu_count() or 1))


def wait_for_calm(share: float, deadline: float) -> None:
    """Returns once other programs take no more than a share, or at a time.monotonic() deadline."""
    while time.monotonic() < deadline:
        neighbours = Neighbours()
        time.sleep(0.5)
        if (neighbours.share() or 0.0) <= share:
            return


def _busy_seconds() -> float | None:
    """Time of all cores spent on any program, or withheld by the host."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return None
    # cpu user nice system idle iowait irq softirq steal ...
    ticks = [int(x) for x in statistics.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Time spent by this process and by those of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu() -> str:
    """The processor's name with its family and model: some names alone say little."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in information.read_text(encoding="utf-8").splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
