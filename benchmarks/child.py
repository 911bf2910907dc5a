"""Runs one task in its own process and prints the time and the memory of each lap.

    python -m benchmarks.child benchmarks.load:hfclip_file /tmp/weights.safetensors ViT-B/32 224

A task is a generator. It yields the name of a lap when the lap ends, or the name and a number that
the task has computed, such as a difference. The first lap starts before the module of the task is
imported, so that the imports of an engine can be a lap.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path


def run(task: str, *arguments: str) -> dict[str, dict[str, float | None]]:
    """Runs `module:function` and returns the seconds of each lap and the bytes of memory held."""
    laps: dict[str, dict[str, float | None]] = {}
    module, _, function = task.partition(":")
    start = time.perf_counter()
    for step in getattr(import_module(module), function)(*arguments):
        seconds = time.perf_counter() - start
        name, figure = step if isinstance(step, tuple) else (step, None)
        memory = {"resident": _resident(), "peak": _peak()}
        laps[name] = {"seconds": seconds, **memory, "figure": figure}
        start = time.perf_counter()
    return laps


def _peak() -> int:
    """Returns the peak memory of this process in bytes, with shared and mapped pages."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _resident() -> int:
    """Returns the memory this process holds, or its peak if the system does not report it."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak()
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Prints the laps, or what is missing to measure them, as the last line of the output."""
    answer: dict[str, object]
    try:
        answer = {"laps": run(*sys.argv[1:])}
    except ImportError as error:
        answer = {"not_installed": str(error)}
    except NotImplementedError as error:
        answer = {"not_here": str(error)}
    # An engine may have printed text without a newline.
    print(f"\n{json.dumps(answer)}")


if __name__ == "__main__":
    main()
