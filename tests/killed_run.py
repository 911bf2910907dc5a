"""Embeds a folder of pictures again and again, killed at random moments: see test_kill.py.

Usage: killed_run.py PICTURES FOLDER KILLS

The lives are forks of this process, which has imported everything and has loaded and optimized the
model, so that a life takes a fraction of a second. Half of them end at a random time, the others at
a random operation on files. A collection that is complete before all kills is followed by another.
Prints the folders of the complete collections, the uninterrupted one first, and how many kills left
some parts, as JSON.
"""

import functools
import gc
import json
import os
import random
import sys
import time
from pathlib import Path

import torch
from killing import end_after, killer, replace
from PIL import Image

from hfclip.embedding import run, stores
from hfclip.embedding.options import Loaded, Options, load_encoder
from hfclip.embedding.run import Planning, embed_collection

OPTIONS = Options(model="digits", device="cpu", batch_size=8, workers=2)
PLANNING = Planning(part_size=20)
LONGEST = 120.0  # seconds of a life that is not killed
# Operations on files, at any of which a life may end.
OPERATIONS = ((stores, "synced"), (Path, "replace"), (Path, "unlink"))


def live(pictures: str, out: Path, seconds: float, at_operation: int | None = None) -> bool:
    """Runs in a fork and returns whether it ended by itself in time."""
    process = os.fork()
    if not process:
        status = 1
        try:
            torch.set_num_threads(1)
            if at_operation is not None:
                replace(OPERATIONS, killer(at_operation))
            embed_collection([pictures], out, OPTIONS, planning=PLANNING)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    end_after(process, seconds)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a run ended with status {os.WEXITSTATUS(status)}")
    return status == 0


def load_once() -> None:
    """Loads the model for all lives, and encodes the batches of a part: 8, 8 and 4 pictures."""
    load = functools.cache(load_encoder)
    run.load_encoder = load  # type: ignore[attr-defined]
    Loaded.optimized = functools.cache(Loaded.optimized)  # type: ignore[method-assign]
    loaded = load(OPTIONS).optimized()
    side = loaded.model.visual.input_resolution
    for size in (8, 4):
        loaded.encoder.start(torch.zeros(size, 3, side, side))()
    gc.freeze()  # a collection in a fork would copy the memory of all objects


def main() -> None:
    """Embeds without a kill, then with as many as asked for."""
    pictures, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(0)  # noqa: S311  # moments, not secrets
    Image.init()  # imports all formats, as each life does for the broken picture
    load_once()
    began = time.monotonic()
    assert live(pictures, folder / "0", LONGEST)
    lasting, complete = time.monotonic() - began, [str(folder / "0")]
    with_parts = done = 0
    while done < kills or len(complete) == 1:
        out = folder / str(len(complete))
        at_operation = draw.randint(1, 30) if done % 2 else None
        seconds = LONGEST if done % 2 else draw.uniform(0.05, 0.5) * lasting
        if done == kills:
            at_operation, seconds = None, LONGEST
        if live(pictures, out, seconds, at_operation):
            complete.append(str(out))
            continue
        done += 1
        with_parts += any(out.glob("part-*.parquet"))
    print(json.dumps({"kills": done, "with_parts": with_parts, "complete": complete}))  # noqa: T201


if __name__ == "__main__":
    main()
