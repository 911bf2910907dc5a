"""Runs the command line in a process of its own, in which some packages are refused."""

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

TORCH = ("torch", "torchvision")
CLIENT = ("httpx2", "huggingface_hub.hf_api", "huggingface_hub.file_download")

_PROGRAM = """
import importlib.abc, os, sys

refused, avoided = (set(text.split(",")) - {""} for text in sys.argv[1:3])

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
from hfclip.cli import main
try:
    main(sys.argv[3:], prog_name="hfclip")
except SystemExit:
    if imported := sorted(avoided & set(sys.modules)):
        print(f"imported: {imported}", file=sys.stderr, flush=True)
        os._exit(1)  # clearing the modules of torch takes a second
    raise
"""


def run(
    *arguments: str,
    home: Path,
    without: Collection[str] = (),
    avoided: Collection[str] = TORCH,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Runs `hfclip` with arguments.

    Args:
        arguments: The arguments of the command line.
        home: The folder HF_HOME.
        without: Packages that cannot be imported, as if they were not installed.
        avoided: Modules whose import ends the process with an error.
        python: The interpreter.
    """
    return subprocess.run(
        [python, "-c", _PROGRAM, ",".join(without), ",".join(avoided), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
