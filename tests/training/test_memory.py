"""Memory that a step frees is reused by the next, and is given back at the end."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from hfclip.training.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 2**20

before = resident()
print(faults(), faults())
with kept_memory():
    print(faults(), faults(), resident() - before >= 64)
print(faults(), faults(), resident() - before < 64)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_until_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    usual, kept, after = (line.split() for line in done.stdout.splitlines())
    assert min(map(int, usual)) > 1000
    assert int(kept[0]) > 1000 > 10 > int(kept[1])
    assert min(map(int, after[:2])) > 1000
    assert (kept[2], after[2]) == ("True", "True")
