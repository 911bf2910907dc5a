"""`hfclip embed --engine ray` as a program that starts Ray itself, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from object_storage import files_at, new_bucket, put, served
from pictures import draw_folder, drawn, rows_of, saved
from ray_forks import SETTINGS

from hfclip.embedding.part_files import complete_parts

pytest.importorskip("ray")
pytest_plugins = ("ray_fixtures",)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc")

# Shells start background jobs, possibly these tests too, with SIGINT ignored.
PROGRAM = """
import os, pathlib, signal, sys
pathlib.Path(sys.argv.pop(1)).write_text(str(os.getpid()))
signal.signal(signal.SIGINT, signal.default_int_handler)
from ray_forks import use_forks
use_forks(pathlib.Path(sys.argv.pop(1)))
from hfclip.cli import main
main(sys.argv[1:], prog_name="hfclip")
"""
# In the commands of Ray's agents.
AGENTS = (b"/dashboard/agent.py", b"/agent/main.py")
COUNT, PART = 120, 4
RAY = ("--engine", "ray", "--address", "local", "--workers", "1", "--cpus-per-worker", "1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of pictures that the workers read slowly; see ray_worker.py."""
    return draw_folder(tmp_path_factory.mktemp("pictures") / "slow", COUNT)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "out"


# Starts a run: of pictures, into a folder or to a URL, with the arguments of an engine.
Start = Callable[..., "Run"]


@dataclass
class Run:
    """A driver. It, the workers and Ray's agents are forks as in tests/forks.py.

    Attributes:
        child: The command that waits for it, with its streams and its status.
        file: The file with the number of its process.
    """

    child: "subprocess.Popen[str]"
    file: Path

    @property
    def pid(self) -> int:
        """The process of the driver. It must have started."""
        return int(self.file.read_text())


@pytest.fixture
def start(ray_python: Path, tmp_path: Path) -> Start:
    def started(pictures: Path | str, out: Path | str, engine: Sequence[str] = RAY) -> Run:
        command = ["embed", pictures, "-o", out]
        model = ["--model", "digits", "--device", "cpu", "--part-size", str(PART), "--json"]
        file = tmp_path / "process"
        child = subprocess.Popen(
            [ray_python, "-c", PROGRAM, file, ray_python, *command, *model, *engine],
            env={**os.environ, **SETTINGS, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Run(child, file)

    return started


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
        command = command_of(process)
        if command and not any(name in command for name in AGENTS):
            found.add(process)
    return found


def command_of(process: int) -> bytes:
    """Returns the command line of a process, which is empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def after_some_parts(run: Run, out: Path) -> set[int]:
    """Waits until a run has written parts, and returns the processes of its Ray."""
    before, child = len(complete_parts(out)), run.child
    wait_until(lambda: child.poll() is not None or len(complete_parts(out)) >= before + 2)
    assert child.poll() is None, child.communicate()
    return descendants(run.pid)


def test_ray_that_is_killed_ends_the_run_with_a_reason(
    start: Start, pictures: Path, out: Path
) -> None:
    run = start(pictures, out)
    child = run.child
    for process in after_some_parts(run, out):
        os.kill(process, signal.SIGKILL)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 1, errors
    assert "Error: Ray on this machine is gone. Complete parts are kept." in errors
    assert "Traceback" not in errors
    assert printed == ""
    assert 2 <= len(complete_parts(out)) < COUNT // PART


def test_a_driver_that_is_killed_leaves_no_worker(start: Start, pictures: Path, out: Path) -> None:
    run = start(pictures, out)
    child = run.child
    processes = after_some_parts(run, out)
    assert len(processes) >= 3  # two of Ray's own, and a worker
    assert sum(b"/default_worker.py\0" in command_of(process) for process in processes) == 1
    os.kill(run.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    wait_until(lambda: not alive(processes), 30.0)
    assert len(complete_parts(out)) < COUNT // PART


def test_ctrl_c_ends_ray_and_keeps_complete_parts(start: Start, pictures: Path, out: Path) -> None:
    run = start(pictures, out)
    child = run.child
    processes = after_some_parts(run, out)
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
    start: Start, pictures: Path, out: Path
) -> None:
    before = len(complete_parts(out))
    child = start(pictures, out).child
    printed, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors
    summary = json.loads(printed)
    assert (summary["embedded"], summary["pending"], summary["errors"]) == (COUNT, 0, 0)
    assert summary["encoded"] == COUNT - before * PART
    assert rows_of(out).keys == [str(path) for path in sorted(pictures.iterdir())]
    assert not list(out.rglob("*.part"))


def test_pictures_and_parts_on_object_storage_have_the_files_of_a_local_run(start: Start) -> None:
    with served():
        bucket = new_bucket("ray")
        put(f"{bucket}/in", {f"{number}.png": saved(drawn(number), "PNG") for number in range(9)})
        summaries = []
        for out, engine in (("ray", RAY), ("local", ())):
            printed, errors = start(f"{bucket}/in", f"{bucket}/{out}", engine).child.communicate()
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
