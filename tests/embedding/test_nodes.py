"""The worker of a cluster in this process: what it checks, and how it reports failures."""

import errno
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import draw_folder, embed

from hfclip.embedding import nodes
from hfclip.embedding.manifest import read_manifest
from hfclip.embedding.nodes import Failure, Place, Refusal, Task, Worker, sample_of, versions
from hfclip.embedding.options import Options
from hfclip.embedding.part_files import part_file
from hfclip.embedding.plan import Plan
from hfclip.embedding.records import Record
from hfclip.embedding.stores import open_store
from hfclip.errors import DataError, NetworkError


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Returns the task of a collection whose second part is missing."""
    folder, out = draw_folder(tmp_path / "pictures", 6), tmp_path / "out"
    (folder / "004.png").write_bytes(b"broken")
    embed(folder, out, "--part-size", "3")
    (out / part_file(1)).rename(tmp_path / "expected.parquet")
    plan, manifest = Plan(out), read_manifest(out)
    options = Options(model="digits", device="cpu", workers=1)
    sample = sample_of(plan, 1)
    return Task(open_store(out), options, manifest, plan.digest, versions(), sample, 1)


def test_a_worker_writes_the_part_of_a_local_run(task: Task, tmp_path: Path) -> None:
    worker = Worker(task, "a node")
    assert worker.place() == Place("a node", socket.gethostname(), os.getpid())
    assert worker.begin() is None
    found = worker.encode(1)
    expected = (tmp_path / "expected.parquet").read_bytes()
    assert (tmp_path / "out" / part_file(1)).read_bytes() == expected
    assert isinstance(found, Record)
    assert (found.number, found.rows, found.errors, found.size) == (1, 3, 1, len(expected))
    assert worker.encode(1) is None
    assert worker.progress() is None


@pytest.mark.parametrize("name", ["hfclip", "torch", "torchvision", "Pillow"])
def test_another_version_is_refused(task: Task, name: str) -> None:
    other = replace(task, versions={**task.versions, name: "1.2.3"})
    reason = f"{name} is {task.versions[name]}; the run uses 1.2.3"
    assert Worker(other).begin() == Refusal(reason, again=False)


def test_other_weights_or_another_precision_are_refused(task: Task) -> None:
    manifest = replace(task.manifest, sha256="0" * 64, precision="float16")
    refusal = Worker(replace(task, manifest=manifest)).begin()
    assert refusal is not None
    assert not refusal.again
    assert f"the weights have the sha256 {task.manifest.sha256!r}; the run has '000" in (
        refusal.reason
    )
    assert "the model computes in 'float32'; the run has 'float16'" in refusal.reason


def test_a_node_that_does_not_see_the_collection_or_the_inputs_is_refused(
    task: Task, tmp_path: Path
) -> None:
    elsewhere = Worker(replace(task, store=open_store(tmp_path / "nowhere"))).begin()
    assert elsewhere is not None
    assert f"it does not see the collection ({tmp_path}/nowhere has no plan" in elsewhere.reason
    other = Worker(replace(task, digest="0" * 64)).begin()
    assert other is not None
    assert f"it sees another plan in {tmp_path}/out" in other.reason
    assert task.sample[0] == str(tmp_path / "pictures" / "003.png")
    (tmp_path / "pictures").rename(tmp_path / "unmounted")
    without = Worker(task).begin()
    assert without is not None
    assert without.reason == f"it does not see the inputs, such as {task.sample[0]}"


def test_a_model_that_cannot_be_fetched_now_is_asked_for_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(options: Options) -> None:
        raise NetworkError("The Hub is unreachable")

    monkeypatch.setattr(nodes, "load_encoder", unreachable)
    assert Worker(task).begin() == Refusal("The Hub is unreachable", again=True)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "broken"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (RuntimeError("CUDA error"), True),
        (MemoryError(), True),
        (NetworkError("unreachable"), True),
        (DataError("too large for float16"), False),
        (TypeError("a mistake"), False),
    ],
)
def test_failures_say_whether_another_attempt_may_succeed(
    task: Task, error: Exception, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    worker = Worker(task)
    assert worker.begin() is None
    monkeypatch.setattr(nodes, "encode_parts", fails)
    found = worker.encode(1)
    assert isinstance(found, Failure)
    assert found.again is again
    assert str(error) in found.reason


def test_a_failed_request_for_remote_storage_is_tried_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise DataError("memory://c/part-00001.parquet cannot be written")

    worker = Worker(task)
    assert worker.begin() is None
    monkeypatch.setattr(nodes, "encode_parts", fails)
    worker._task = replace(task, store=open_store("memory://c"))
    assert worker.encode(1) == Failure("memory://c/part-00001.parquet cannot be written", True)
