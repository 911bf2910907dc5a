"""`hfclip embed --engine ray` as a program that starts Ray itself, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from object_storage import files_at, new_bucket, put, served
from pictures import drawn, rows_of, saved
from PIL import Image

from hfclip.embedding.part_files import complete_parts

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc")

# Shells start background jobs, possibly these tests too, with SIGINT ignored.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hfclip.cli import main
main(sys.argv[1:], prog_name="hfclip")
"""
COUNT, PART = 120, 4
RAY = ("--engine", "ray", "--address", "local", "--workers", "1", "--cpus-per-worker", "1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of pictures that take about 50 ms each."""
    folder = tmp_path_factory.mktemp("slow")
    for number in range(COUNT):
        Image.new("RGB", (3_000, 3_000), (number, 0, 0)).save(folder / f"{number:03}.jpg")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "out"


def started(
    pictures: Path | str, out: Path | str, engine: Sequence[str] = RAY
) -> "subprocess.Popen[str]":
    model = ["--model", "digits", "--device", "cpu", "--part-size", str(PART), "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "embed", pictures, "-o", out, *model, *engine],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def parents() -> Iterator[tuple[int, int]]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(file.parent.name), int(parent)


def descendants(process: int) -> set[int]:
    """Returns the processes that a process has started, and those that they have started."""
    found, new = set[int](), {process}
    pairs = list(parents())
    while new:
        new = {child for child, parent in pairs if parent in new} - found
        found |= new
    return found


def alive(processes: set[int]) -> set[int]:
    """Returns the processes that have not ended. Ray's agents notice its end after a minute."""
    found = set()
    for process in processes & {process for process, _ in parents()}:
        with suppress(OSError):  # it ends now
            if b"Agent" not in Path(f"/proc/{process}/cmdline").read_bytes():
                found.add(process)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def after_some_parts(child: "subprocess.Popen[str]", out: Path) -> set[int]:
    """Waits until a run has written parts, and returns the processes of its Ray."""
    before = len(complete_parts(out))
    wait_until(lambda: child.poll() is not None or len(complete_parts(out)) >= before + 2)
    assert child.poll() is None, child.communicate()
    return descendants(child.pid)


def test_ray_that_is_killed_ends_the_run_with_a_reason(pictures: Path, out: Path) -> None:
    child = started(pictures, out)
    for process in after_some_parts(child, out):
        os.kill(process, signal.SIGKILL)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 1, errors
    assert "Error: Ray on this machine is gone. Complete parts are kept." in errors
    assert "Traceback" not in errors
    assert printed == ""
    assert 2 <= len(complete_parts(out)) < COUNT // PART


def test_a_driver_that_is_killed_leaves_no_worker(pictures: Path, out: Path) -> None:
    child = started(pictures, out)
    processes = after_some_parts(child, out)
    assert len(processes) >= 3  # two of Ray's own, and a worker
    child.kill()
    child.communicate()
    wait_until(lambda: not alive(processes), 30.0)
    assert len(complete_parts(out)) < COUNT // PART


def test_ctrl_c_ends_ray_and_keeps_complete_parts(pictures: Path, out: Path) -> None:
    child = started(pictures, out)
    processes = after_some_parts(child, out)
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert time.monotonic() - began < 20.0
    assert "Complete parts are kept. The same command continues." in errors
    assert "Traceback" not in errors
    assert printed == ""
    wait_until(lambda: not alive(processes), 20.0)
    assert len(complete_parts(out)) < COUNT // PART


def test_the_next_run_completes_the_collection_with_each_row_once(
    pictures: Path, out: Path
) -> None:
    before = len(complete_parts(out))
    child = started(pictures, out)
    printed, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors
    summary = json.loads(printed)
    assert (summary["embedded"], summary["pending"], summary["errors"]) == (COUNT, 0, 0)
    assert summary["encoded"] == COUNT - before * PART
    assert rows_of(out).keys == [str(path) for path in sorted(pictures.iterdir())]
    assert not list(out.rglob("*.part"))


def test_pictures_and_parts_on_object_storage_have_the_files_of_a_local_run() -> None:
    with served():
        bucket = new_bucket("ray")
        put(f"{bucket}/in", {f"{number}.png": saved(drawn(number), "PNG") for number in range(9)})
        summaries = []
        for out, engine in (("ray", RAY), ("local", ())):
            printed, errors = started(f"{bucket}/in", f"{bucket}/{out}", engine).communicate()
            assert printed, errors
            summaries.append(json.loads(printed))
        assert [summary["embedded"] for summary in summaries] == [9, 9]
        found, expected = (
            {
                name: content
                for name, content in files_at(f"{bucket}/{out}").items()
                if name.startswith(("part-", ".hfclip/complete"))
            }
            for out in ("ray", "local")
        )
        assert len(found) == 6
        assert found == expected
