"""Embeds a collection again and again and kills the run at random moments: see test_run.py.

Usage: killed_run.py PICTURES FOLDER KILLS

The runs are forks of this process, which has imported everything. Prints the number of kills that
left some parts, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from hfclip.embedding.options import Options
from hfclip.embedding.run import embed_collection

OPTIONS = Options(model="digits", device="cpu", batch_size=8, workers=2)
PART_SIZE = 20


def live(pictures: str, out: Path, seconds: float) -> bool:
    """Runs in a fork and returns whether it ended by itself in time."""
    process = os.fork()
    if not process:
        status = 1
        try:
            torch.set_num_threads(1)
            embed_collection([pictures], out, OPTIONS, part_size=PART_SIZE)
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while (found := os.waitpid(process, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.002)
    if found == (0, 0):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return False
    if found[1]:
        raise SystemExit(f"a run ended with status {found[1]}")
    return True


def main() -> None:
    """Embeds without a kill, then with kills, then to the end."""
    pictures, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(0)  # noqa: S311  # moments, not secrets
    began = time.monotonic()
    assert live(pictures, folder / "whole", 120)
    lasting = time.monotonic() - began
    with_parts = done = 0
    while done < kills:
        if live(pictures, folder / "killed", draw.uniform(0.1, 0.7) * lasting):
            break
        done += 1
        with_parts += any((folder / "killed").rglob("*.parquet"))
    assert live(pictures, folder / "killed", 120)
    print(json.dumps({"kills": done, "with_parts": with_parts}))  # noqa: T201


if __name__ == "__main__":
    main()
