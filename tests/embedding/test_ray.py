"""`hfclip embed --engine ray` on a cluster of two nodes on this machine."""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pictures import draw_folder, embed, rows_of
from ray_forks import SETTINGS, use_forks

from hfclip.embedding import ray as engine
from hfclip.embedding import scheduling
from hfclip.embedding.cluster import Cluster
from hfclip.embedding.events import Event, Finished, Given, Retried
from hfclip.embedding.nodes import Place, versions
from hfclip.embedding.options import Options
from hfclip.embedding.part_files import complete_parts, part_file
from hfclip.embedding.ray_crew import RayCrew
from hfclip.embedding.run import Outcome, Planning, embed_collection
from hfclip.errors import EngineError

ray = pytest.importorskip("ray")
pytest_plugins = ("ray_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Ray on Windows is a beta"),
    # Ray's own code gives warnings of its dependencies and leaves files to the collector.
    pytest.mark.filterwarnings("default"),
]

OPTIONS = Options(model="digits", device="cpu")
# The name of a folder whose pictures the workers read slowly; see ray_worker.py.
SLOW = "slow"


@pytest.fixture(scope="module")
def nodes(ray_python: Path) -> "Iterator[Any]":
    """Starts Ray with two nodes of one CPU, and connects to it."""
    from ray.cluster_utils import Cluster as Raylets

    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    with (
        # Otherwise the runs of other test processes find this Ray. The path must be short.
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as own,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**SETTINGS, "RAY_TMPDIR": own}.items():
            patch.setenv(name, value)
        use_forks(ray_python, patch.setattr)
        raylets = Raylets()
        raylets.add = partial(raylets.add_node, num_cpus=1, object_store_memory=100 * 2**20)
        raylets.add(include_dashboard=False, _system_config=quick)
        raylets.add()
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


def assert_same_files(found: Path, expected: Path) -> None:
    numbers = complete_parts(expected)
    assert complete_parts(found) == numbers
    for number in numbers:
        name = part_file(number)
        assert (found / name).read_bytes() == (expected / name).read_bytes()


class Seen(NamedTuple):
    """An event, and where its worker runs."""

    event: Event
    place: Place | None


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Collects the events of runs."""
    found: list[Seen] = []

    def collected(sizes: Any, crew: RayCrew) -> Iterator[Event]:
        for event in scheduling.run_parts(sizes, crew):
            member = crew._members.get(getattr(event, "worker", ""))
            found.append(Seen(event, member.place if member else None))
            yield event

    monkeypatch.setattr(engine, "run_parts", collected)
    return found


def is_given(event: Event) -> bool:
    return isinstance(event, Given)


def finished(events: list[Seen]) -> list[int]:
    return [seen.event.part for seen in events if isinstance(seen.event, Finished)]


def test_two_workers_on_two_nodes_write_the_files_of_a_local_run(
    nodes: Any,
    pictures: Path,
    tmp_path: Path,
    threads: None,
    events: list[Seen],
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
    node = nodes.add(num_cpus=2)
    run(pictures, tmp_path / "ray", workers=1, cpus_per_worker=2)
    nodes.remove_node(node)
    embed(pictures, tmp_path / "local", "--part-size", "7")
    found, expected = (
        rows_of(tmp_path / name).embeddings.values.astype(np.float16) for name in ("ray", "local")
    )
    units = found.view(np.int16).astype(int) - expected.view(np.int16).astype(int)
    assert np.abs(units).max() <= 1


def test_a_worker_killed_five_times_loses_no_row(
    nodes: Any,
    tmp_path: Path,
    events: list[Seen],
    recwarn: pytest.WarningsRecorder,
) -> None:
    folder, out = draw_folder(tmp_path / SLOW, 120), tmp_path / "out"
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 5 and not ended.is_set():
            working = {place.process for event, place in list(events) if place and is_given(event)}
            for process in working - set(killed):
                time.sleep(0.05)
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(0.02)

    ended = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    outcome = run(folder, out, part_size=5)
    ended.set()
    killer.join()
    assert len(killed) >= 5
    assert (outcome.encoded, outcome.embedded, outcome.pending) == (120, 120, 0)
    assert rows_of(out).keys == [str(path) for path in sorted(folder.iterdir())]
    assert sorted(finished(events)) == list(range(24))
    assert sum(isinstance(seen.event, Retried) for seen in events) == len(killed)
    assert any("is tried again, because attempt 1" in str(each.message) for each in recwarn)


def test_both_nodes_work_and_one_that_is_taken_away_loses_no_row(
    nodes: Any, tmp_path: Path, events: list[Seen]
) -> None:
    folder, out = draw_folder(tmp_path / SLOW, 100), tmp_path / "out"
    extra = nodes.add()

    def take_away() -> None:
        while not ended.is_set():
            for event, place in list(events):
                if place is not None and place.node == extra.node_id and is_given(event):
                    extra.kill_raylet()
                    with suppress(ProcessLookupError):  # it may end with its node
                        os.kill(place.process, signal.SIGKILL)
                    return
            time.sleep(0.02)

    ended = threading.Event()
    thief = threading.Thread(target=take_away)
    thief.start()
    with pytest.warns(UserWarning, match="is tried again"):
        outcome = run(folder, out, part_size=5, workers=3)
    ended.set()
    thief.join()
    nodes.remove_node(extra, allow_graceful=False)
    assert (outcome.encoded, outcome.embedded) == (100, 100)
    assert rows_of(out).keys == [str(path) for path in sorted(folder.iterdir())]
    assert sorted(finished(events)) == list(range(20))
    places = {seen.place.node for seen in events if isinstance(seen.event, Finished) and seen.place}
    assert len(places - {extra.node_id}) == 2
    while sum(node["Alive"] for node in ray.nodes()) > 2:  # as the next test expects
        time.sleep(0.1)


def test_more_workers_than_cpus_are_named_and_those_that_fit_work(
    nodes: Any, pictures: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"room for 2 of 5 workers, which need 1 CPU each"):
        outcome = run(pictures, tmp_path / "out", workers=5)
    assert (outcome.encoded, outcome.pending) == (60, 0)


def test_a_run_says_what_it_waits_for_and_ends_after_its_patience(
    nodes: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_QUIET", 1.0)
    monkeypatch.setattr(engine, "_REPEATED", 1.0)

    class Holder:
        def ready(self) -> bool:
            return True

    holding: Any = ray.remote(num_cpus=1)(Holder)
    holders = [holding.remote() for _ in range(2)]
    assert ray.get([holder.ready.remote() for holder in holders]) == [True, True]
    free = r"1 CPU for a worker, or for its process to start \(0 of 2 CPUs are free\)"
    with (
        pytest.warns(UserWarning, match=f"^Waits for {free}"),
        pytest.raises(EngineError, match=f"No worker has come in 3 s. The run waits for {free}"),
    ):
        run(pictures, tmp_path / "out", patience=3.0)
    threading.Timer(2.0, lambda: [ray.kill(holder) for holder in holders]).start()
    with pytest.warns(UserWarning, match=f"^Waits for {free}"):
        assert run(pictures, tmp_path / "out", patience=100.0).encoded == 60


def test_a_node_with_another_version_refuses_before_it_works(
    nodes: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "versions", lambda: {**versions(), "torch": "1.2.3"})
    out = tmp_path / "out"
    reason = rf"No node can work: {socket.gethostname()}: torch is .*; the run uses 1.2.3"
    with (
        pytest.warns(UserWarning, match=f"{socket.gethostname()} does not work: torch is"),
        pytest.raises(EngineError, match=reason),
    ):
        run(pictures, out)
    assert complete_parts(out) == []


def test_a_part_that_cannot_be_written_is_given_up_and_named(
    nodes: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, out = scheduling.Policy(attempts=2, pause=0.1), tmp_path / "out"
    impatient = partial(scheduling.run_parts, policy=policy)
    monkeypatch.setattr(engine, "run_parts", impatient)
    (out / ".hfclip" / "content" / "part-00003.sha256").mkdir(parents=True)
    (out / ".hfclip" / "content" / "part-00003.sha256" / "file").touch()
    with (
        pytest.warns(UserWarning, match="part-00003 is tried again"),
        pytest.raises(EngineError, match=r"1 parts were given up: part-00003 \(.*directory"),
    ):
        run(pictures, out)
    assert complete_parts(out) == [0, 1, 2, 4, 5, 6, 7, 8]
