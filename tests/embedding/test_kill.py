"""A collection that is killed again and again has the rows and the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfclip.embedding.part_files import complete_parts, part_file
from hfclip.embedding.parts import joined, read_part

KILLS = 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_twenty_kills_lose_no_row_and_change_no_bit(tmp_path: Path, python: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draw = np.random.default_rng(0)
    for number in range(300):
        pixels = draw.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number:03}.png")
    (pictures / "150.png").write_bytes(b"broken")
    done = subprocess.run(
        [
            python,
            str(Path(__file__).parents[1] / "killed_run.py"),
            pictures,
            tmp_path,
            str(KILLS),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == KILLS
    assert found["with_parts"] > 3  # the others came while planning or in the first part
    whole, *resumed = (
        {number: Path(out) / part_file(number) for number in complete_parts(out)}
        for out in found["complete"]
    )
    rows = joined([read_part(found["complete"][0], number) for number in whole])
    assert rows.keys == [str(path) for path in sorted(pictures.iterdir())]
    assert np.flatnonzero(~rows.embeddings.valid).tolist() == [150]
    assert resumed
    for parts in resumed:
        assert parts.keys() == whole.keys()
        for number, path in parts.items():
            assert path.read_bytes() == whole[number].read_bytes()
