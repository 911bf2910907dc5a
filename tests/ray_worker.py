"""Runs a worker of Ray in a fork of a process that has imported torch; see forks.py.

Ray runs this in place of its script that sets up a worker and then starts Python once more.
Pictures in a folder named "slow" are read slowly, so that a worker can be killed while it works.
"""

import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hfclip.data.references import FileImage

# Seconds, of one picture after another.
PAUSE = 0.04

# Options of Ray's script, for environments that no test uses.
SETUP = ("--language=", "--serialized-runtime-env-context=")


def slowed(read: Callable[[FileImage], bytes]) -> Callable[[FileImage], bytes]:
    lock = threading.Lock()

    def read_slowly(image: FileImage) -> bytes:
        if Path(image.path).parent.name == "slow":
            with lock:
                time.sleep(PAUSE)
        return read(image)

    return read_slowly


if __name__ == "__main__":
    FileImage.read = slowed(FileImage.read)  # type: ignore[assignment, method-assign]
    sys.argv = [each for each in sys.argv[1:] if not each.startswith(SETUP)]
    runpy.run_path(sys.argv[0], run_name="__main__")
