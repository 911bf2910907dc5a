"""`hfclip embed --engine ray` on a cluster of two nodes on this machine."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import draw_folder, embed, rows_of
from PIL import Image

from hfclip.embedding import ray as engine
from hfclip.embedding import ray_crew
from hfclip.embedding.cluster import Cluster
from hfclip.embedding.events import Event, Finished, Retried, Tick
from hfclip.embedding.options import Options
from hfclip.embedding.parts import complete_parts, part_path
from hfclip.embedding.ray_crew import RayCrew
from hfclip.embedding.run import Outcome, Planning, embed_collection
from hfclip.errors import ArgumentError, EngineError

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Ray on Windows is a beta"),
    # Ray's own code gives warnings of its dependencies and leaves files to the collector.
    pytest.mark.filterwarnings("default"),
]

OPTIONS = Options(model="digits", device="cpu")


@pytest.fixture(scope="module")
def nodes() -> "Iterator[Any]":
    """Starts Ray with two nodes of one CPU, and connects to it."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    from ray.cluster_utils import Cluster as Raylets

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    raylets = Raylets(initialize_head=True, head_node_args=head)
    raylets.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray.init(address=raylets.address, log_to_driver=False, logging_level="FATAL")
    yield raylets
    ray.shutdown()
    raylets.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = draw_folder(tmp_path / "pictures", 60)
    (folder / "017.png").write_bytes(b"broken")
    (folder / "040.png").write_bytes(b"")
    return folder


@pytest.fixture
def threads() -> Iterator[None]:
    """Computes with one thread, as the workers do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, out: Path, part_size: int = 7, **settings: Any) -> Outcome:
    settings = {"workers": 2, "cpus_per_worker": 1, **settings}
    planning = Planning(part_size=part_size)
    cluster = Cluster(**settings)
    return embed_collection([str(folder)], out, OPTIONS, planning=planning, cluster=cluster)


def slow_folder(folder: Path, count: int) -> Path:
    """Fills a folder with pictures that take about 40 ms each."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (2_500, 2_500), (number, 0, 0)).save(folder / f"{number:03}.jpg")
    return folder


def assert_same_files(found: Path, expected: Path) -> None:
    numbers = complete_parts(expected)
    assert complete_parts(found) == numbers
    for number in numbers:
        assert part_path(found, number).read_bytes() == part_path(expected, number).read_bytes()


def worker_processes() -> list[int]:
    """Returns the processes of Ray that encode now."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes().startswith(b"ray::Worker.encode"):
                found.append(int(process.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> "list[tuple[Event, str]]":
    """Collects the events of runs, each with the node of its worker."""
    found: list[tuple[Event, str]] = []
    run_parts = engine.run_parts

    def collected(sizes: Any, crew: RayCrew) -> Iterator[Event]:
        for event in run_parts(sizes, crew):
            member = crew._members.get(getattr(event, "worker", ""))
            found.append((event, member.place.node if member and member.place else ""))
            yield event

    monkeypatch.setattr(engine, "run_parts", collected)
    return found


def finished(events: "list[tuple[Event, str]]") -> list[int]:
    return [event.part for event, _ in events if isinstance(event, Finished)]


def test_two_workers_on_two_nodes_write_the_files_of_a_local_run(
    nodes: Any,
    pictures: Path,
    tmp_path: Path,
    threads: None,
    events: "list[tuple[Event, str]]",
) -> None:
    embed(pictures, tmp_path / "local", "--part-size", "7")
    result = embed(
        pictures,
        tmp_path / "ray",
        *("--part-size", "7", "--engine", "ray", "--workers", "2", "--cpus-per-worker", "1"),
    )
    assert result.status == 0, result.err
    assert (result.summary["inputs"], result.summary["encoded"]) == (60, 60)
    assert (result.summary["embedded"], result.summary["errors"]) == (58, 2)
    assert result.summary["rate"] > 0
    assert_same_files(tmp_path / "ray", tmp_path / "local")
    errors = (tmp_path / "ray" / "errors.csv").read_bytes()
    assert errors == (tmp_path / "local" / "errors.csv").read_bytes()
    assert sorted(finished(events)) == list(range(9))
    places = {place for event, place in events if isinstance(event, Finished)}
    assert places == {node["NodeID"] for node in ray.nodes()}


def test_a_collection_of_both_engines_is_that_of_one(
    nodes: Any, pictures: Path, tmp_path: Path, threads: None
) -> None:
    size = ["--part-size", "7"]
    embed(pictures, tmp_path / "local", *size)
    out = tmp_path / "mixed"
    embed(pictures, out, *size, "--part-of", "1/2")
    shared = ["--engine", "ray", "--cpus-per-worker", "1", "--workers", "1"]
    result = embed(pictures, out, *size, *shared, "--part-of", "2/2")
    assert result.summary["encoded"] == 4 * 7
    assert result.summary["pending"] == 0
    assert_same_files(out, tmp_path / "local")
    assert run(pictures, out).encoded == 0


def test_other_numbers_of_threads_differ_by_one_unit_in_the_last_place(
    nodes: Any, pictures: Path, tmp_path: Path, threads: None
) -> None:
    nodes.add_node(num_cpus=2, object_store_memory=100 * 2**20).node_id  # noqa: B018
    run(pictures, tmp_path / "ray", workers=1, cpus_per_worker=2)
    embed(pictures, tmp_path / "local", "--part-size", "7")
    found, expected = (
        rows_of(tmp_path / name).embeddings.values.astype(np.float16) for name in ("ray", "local")
    )
    units = found.view(np.int16).astype(int) - expected.view(np.int16).astype(int)
    assert np.abs(units).max() <= 1


def test_a_worker_killed_five_times_loses_no_row(
    nodes: Any,
    tmp_path: Path,
    events: "list[tuple[Event, str]]",
    recwarn: pytest.WarningsRecorder,
) -> None:
    folder, out = slow_folder(tmp_path / "pictures", 120), tmp_path / "out"
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 5 and not finished_run.is_set():
            for process in worker_processes():
                if process not in killed:
                    time.sleep(0.05)
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    break
            time.sleep(0.02)

    finished_run = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    outcome = run(folder, out, part_size=5)
    finished_run.set()
    killer.join()
    assert len(killed) == 5
    assert (outcome.encoded, outcome.embedded, outcome.pending) == (120, 120, 0)
    assert rows_of(out).keys == [str(path) for path in sorted(folder.iterdir())]
    assert sorted(finished(events)) == list(range(24))
    assert sum(isinstance(event, Retried) for event, _ in events) == 5
    assert any("is tried again, because attempt 1" in str(each.message) for each in recwarn)
