"""A training that is killed again and again ends with the weights of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("processes", [1, 2])
def test_twenty_kills_change_no_bit(
    processes: int, coloured: Path, base: Path, tmp_path: Path, python: Path
) -> None:
    program = Path(__file__).parents[1] / "killed.py"
    arguments = [str(each) for each in (coloured, base, tmp_path, processes, KILLS)]
    done = subprocess.run(
        [python, str(program), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == KILLS
    assert found["unfinished"] > 0  # some kills hit a checkpoint that was being written
    assert len(set(found["steps"])) > 3  # and others came at several steps
    assert len(found["hashes"]) > 1
    assert len(set(found["hashes"])) == 1
