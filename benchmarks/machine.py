"""Describes the machine and the packages that the numbers were measured with."""

import os
import platform
import re
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
    "instant-clip-tokenizer",
    "hf-processors-rs",
)
# The name that `_cpu` gives: the processor's own, then its numbers in parentheses.
_NUMBERED = re.compile(r"(?P<name>.*) \(family (?P<family>\d+), model (?P<model>\d+)\)")
# Every Intel processor since 1995 has this family number: its model tells the generation.
_INTEL_FAMILY = "6"


def describe() -> dict[str, str | int | float]:
    """Returns the processor, the number of its cores, the memory and the system."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def packages() -> dict[str, str]:
    """Returns the versions of hfclip, its dependencies and its peers, where installed."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def family(cpu: str) -> str:
    """Returns the family of a processor, such as "AMD EPYC family 25".

    Results are kept for each family. For Intel the model belongs to it.

    Args:
        cpu: The processor as `describe` names it.
    """
    found = _NUMBERED.fullmatch(cpu)
    if found is None:
        return cpu
    words = re.sub(r"\((R|TM)\)", "", found["name"]).split()
    # "AMD EPYC 9554 64-Core Processor": the brand ends before the first number.
    numbered = (place for place, word in enumerate(words) if re.search(r"\d|^CPU$|^@$", word))
    brand = " ".join(words[: next(numbered, len(words))])
    model = f" model {found['model']}" if found["family"] == _INTEL_FAMILY else ""
    return f"{brand} family {found['family']}{model}".strip()


class Neighbours:
    """Measures the load by other programs from its creation on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Returns their share of all cores' time, 0 to 1; None if the system does not report it."""
        if (busy := _busy_seconds()) is None or self._busy is None:
            return None
        others = (busy - self._busy) - (_own_seconds() - self._own)
        # The clocks are coarse, so the difference may be slightly negative.
        return max(others, 0.0) / ((time.monotonic() - self._start) * (os.cpu_count() or 1))


def wait_for_calm(share: float, deadline: float) -> None:
    """Waits until other programs take at most `share`, or until a time.monotonic() deadline."""
    while time.monotonic() < deadline:
        neighbours = Neighbours()
        time.sleep(0.5)
        if (neighbours.share() or 0.0) <= share:
            return


def _busy_seconds() -> float | None:
    """Returns the time that all cores spent on any program, or that the host withheld."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return None
    # cpu user nice system idle iowait irq softirq steal ...
    ticks = [int(x) for x in statistics.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Returns the time spent by this process and by its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu() -> str:
    """Returns the name of the processor with its family and model, as the name may be generic."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in information.read_text(encoding="utf-8").splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
