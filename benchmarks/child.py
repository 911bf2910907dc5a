"""Runs one task in the process it was started for, and prints what each lap of it took.

    python -m benchmarks.child benchmarks.load:hfclip_file /tmp/weights.safetensors ViT-B/32 224

A task is a generator that yields the name of a lap as the lap ends, or the name and a figure that
the task has found out itself, such as a difference. The first lap begins before the task's module
is imported, so that an engine's imports can be a lap of their own.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path


def run(task: str, *arguments: str) -> dict[str, dict[str, float | None]]:
    """Runs `module:function` and gives each lap's seconds, and the memory in bytes at its end."""
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
    """The most memory this process has held, shared and mapped pages included."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _resident() -> int:
    """The memory this process holds now; where the system does not say, the most it has held."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak()
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Prints the laps as the last line of standard output, or what is missing for them."""
    answer: dict[str, object]
    try:
        answer = {"laps": run(*sys.argv[1:])}
    except ImportError as error:
        answer = {"not_installed": str(error)}
    except NotImplementedError as error:
        answer = {"not_here": str(error)}
    # The engines may have printed something, without a line's end.
    print(f"\n{json.dumps(answer)}")


if __name__ == "__main__":
    main()
