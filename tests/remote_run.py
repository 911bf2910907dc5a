"""Embeds a folder at a URL without a model: a program for test_remote_runs.py.

Usage: remote_run.py FOLDER URL SHARE SHARES CAPTION

Encodes the SHARE-th of SHARES. Each row has a caption of CAPTION bytes, so that an upload takes
time. Prints the keys that were encoded as JSON.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from embedded import DIMENSION, MANIFEST, encoded, listed

from hfclip.embedding.changes import update_plan
from hfclip.embedding.failures import write_errors
from hfclip.embedding.opening import opened
from hfclip.embedding.parts import write_part


def main() -> None:
    """Plans, and writes the parts of the share."""
    folder, out = Path(sys.argv[1]), sys.argv[2]
    share, shares, size = map(int, sys.argv[3:6])
    keys: list[str] = []
    with opened(out, MANIFEST, shared=shares > 1) as collection:
        changes = update_plan(out, listed(folder), part_size=2, opened=collection)
        for number in changes.pending:
            if number % shares == share - 1:
                part = changes.plan.part(number)
                rows = replace(encoded(part), captions=["x" * size] * len(part.items))
                write_part(out, number, rows, dtype="float32", dimension=DIMENSION)
                keys += [item.key for item in part.items]
        with collection.planning_lock:
            collection.planning_lock.take(patience=60)
            write_errors(out)
    print(json.dumps(keys))  # noqa: T201


if __name__ == "__main__":
    main()
