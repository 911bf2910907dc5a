"""Locks on object storage: who holds them, who waits, and how those of dead processes end."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from fsspec import filesystem
from places import forget_memory

from hfclip.data.remote_folder import RemoteFolder
from hfclip.embedding import claims
from hfclip.embedding.claims import Claim
from hfclip.errors import DataError

FOLDER = "/place/.hfclip/locks/planning"


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(claims, "_PAUSE", 0.11)
    yield
    forget_memory()


def claim() -> Claim:
    return Claim(RemoteFolder("memory://place"), ".hfclip/locks/planning")


def files() -> list[str]:
    system = filesystem("memory")
    return list(system.ls(FOLDER, detail=False)) if system.exists(FOLDER) else []


def age(seconds: float) -> None:
    """Lets the claims seem older by the clock of the server."""
    from datetime import timedelta

    for name in files():
        filesystem("memory").store[name].created -= timedelta(seconds=seconds)


def test_an_exclusive_claim_excludes_all_and_shared_ones_only_an_exclusive_one() -> None:
    one, other = claim(), claim()
    assert one.take()
    assert not other.take()
    assert not other.take(shared=True)
    one.release()
    assert one.take(shared=True)
    assert other.take(shared=True)
    assert not other.take()  # and it has lost its shared claim, as with a lock of the system
    assert other.take(shared=True)
    one.release()
    assert other.take()
    assert not one.take(shared=True)
    other.release()
    assert files() == []


def test_a_claim_that_is_held_changes_its_kind() -> None:
    one, other = claim(), claim()
    assert one.take()
    assert one.take(shared=True)
    assert len(files()) == 1
    assert other.take(shared=True)
    other.release()
    assert one.take()
    assert not other.take(shared=True)
    one.release()


def test_the_block_of_with_ends_it() -> None:
    with claim() as one:
        assert one.take()
    assert files() == []


def test_the_holder_is_named_with_how_its_claim_ends() -> None:
    one, other = claim(), claim()
    assert other.advice() == ""
    assert one.take()
    assert not other.take()
    assert other.holder().startswith(f"process {os.getpid()} on ")
    name = files()[0].rpartition("/")[2]
    assert other.advice() == (
        " If that process is dead, its lock ends 10 minutes after its last sign of life; to end it "
        f"now, delete memory://place/.hfclip/locks/planning/{name}."
    )
    one.release()


def test_who_waits_says_so_and_takes_it_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SILENT", 0.1)
    one, other = claim(), claim()
    assert one.take()
    timer = threading.Timer(0.6, one.release)
    timer.start()
    with pytest.warns(UserWarning, match=rf"Waits for memory://place/.*process {os.getpid()} on"):
        assert other.take(patience=30)
    timer.join()
    monkeypatch.undo()
    began = time.monotonic()
    assert not one.take(patience=0.3)
    assert time.monotonic() - began >= 0.3
    other.release()


def test_an_abandoned_claim_ends_by_the_clock_of_the_server() -> None:
    one, other = claim(), claim()
    assert one.take()
    age(590)
    assert not other.take()
    age(20)
    assert other.take()
    assert len(files()) == 1
    other.release()


def test_a_holder_renews_its_claim_until_it_releases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_RENEWAL", 0.02)
    one, other = claim(), claim()
    assert one.take()
    age(5_000)
    end = time.monotonic() + 10
    while filesystem("memory").created(files()[0]).timestamp() < time.time() - 60:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not other.take()
    one.check()
    one.release()
    time.sleep(0.1)
    assert files() == []


def test_a_holder_that_was_stopped_for_too_long_does_not_go_on() -> None:
    one = claim()
    assert one.take()
    assert one._held is not None
    one._held.renewed -= 601
    with pytest.raises(DataError, match="could not be renewed for 10 minutes, so another process"):
        one.check()
    one.release()
    one.check()


def test_the_claim_of_a_process_that_has_ended_here_ends_at_once() -> None:
    code = "import json, os; from hfclip.embedding import claims as c\n"
    code += "print(json.dumps([os.getpid(), c._machine(), c._started(os.getpid())]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    process, machine, started = json.loads(done.stdout)
    if machine is None:
        pytest.skip("the system does not say which machine this is")
    facts = {"holder": "a dead process", "machine": machine, "process": process, "started": started}

    def left(**others: object) -> None:
        content = json.dumps(facts | others).encode()
        filesystem("memory").pipe_file(f"{FOLDER}/exclusive-0", content)

    one = claim()
    left(machine="another")
    assert not one.take()
    assert one.holder() == "a dead process"
    left(process=os.getpid(), started=claims._started(os.getpid()))
    assert not one.take()
    left(process=os.getpid())  # the number is used again
    assert one.take()
    one.release()
    left()
    assert one.take()
    one.release()
    assert files() == []


def test_a_damaged_claim_is_of_another_process_and_counts() -> None:
    filesystem("memory").pipe_file(f"{FOLDER}/shared-0", b"\xff")
    one = claim()
    assert not one.take()
    assert one.holder() == "another process"
    assert one.take(shared=True)
    one.release()


def test_storage_that_does_not_list_new_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteFolder, "files", lambda *_: {})
    with pytest.raises(DataError, match="does not list a file that was written just now"):
        claim().take()
    monkeypatch.undo()
    assert files() == []


def test_of_many_that_try_at_once_one_holds_it() -> None:
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, entered
        for _ in range(3):
            with claim() as one:
                assert one.take(patience=60)
                with counting:
                    inside += 1
                    entered += 1
                    most = max(most, inside)
                time.sleep(0.002)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 15)
    assert files() == []
