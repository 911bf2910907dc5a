"""Ctrl-C ends every command quickly, with status 130 and without partial files."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import TINY_VIT, draw
from loopback.faults import Order, Slow
from loopback.hub import LoopbackHub

import hfclip
from hfclip.cli import main

WEIGHTS = "model.safetensors"
# Shells start background jobs, possibly these tests too, with SIGINT ignored.
HEAR = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
DOWNLOAD = """
print("started", flush=True)
from hfclip.cli import main
main(["download", "me/clip"], prog_name="hfclip")
"""


def start(
    code: str, environment: dict[str, str] | None = None, python: str | Path = sys.executable
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", HEAR + code],
        env=environment or dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shell_status(child: subprocess.Popen[str]) -> int:
    """Returns the exit status that a shell shows: 130 also for a process ended by SIGINT."""
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


@dataclass(frozen=True)
class Moment:
    """A delay in seconds after the start, the metadata request or the weights request."""

    after: str
    seconds: float


MOMENTS = [
    *(Moment("start", seconds) for seconds in (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3)),
    *(Moment("metadata", seconds) for seconds in (0.0, 0.1, 0.3, 0.6)),
    *(Moment("body", seconds) for seconds in (0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 1.0, 1.5)),
]


def interrupt_a_download(moment: Moment, folder: Path, home: Path, python: Path) -> None:
    """Interrupts a program, which is a fork of `python` where its start is not interrupted."""
    with LoopbackHub() as hub:
        files = {name: folder / name for name in ("config.json", WEIGHTS)}
        hub.add_repository("me/clip", files)
        orders: dict[str, Order | None] = {
            "start": None,
            "metadata": hub.fault(Slow(seconds=1), "/api/models/*"),
            "body": hub.fault(Slow(seconds=30), WEIGHTS, times=None),
        }
        program = sys.executable if moment.after == "start" else python
        child = start(DOWNLOAD, hub.environment(home), program)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        order = orders[moment.after]
        while order is not None and not order.struck and child.poll() is None:
            time.sleep(0.005)
        time.sleep(moment.seconds)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = child.communicate(timeout=20)
        assert time.monotonic() - began < 5, moment
        assert shell_status(child) == 130, (moment, errors)
        cache = home / ".cache" / "huggingface" / "hub"
        unfinished = [path for path in cache.rglob("*") if path.suffix == ".incomplete"]
        assert unfinished == [], moment
        assert not any(len(path.name) == 64 for path in cache.glob("models--*/blobs/*")), moment
        assert list(cache.glob(f"models--*/snapshots/*/{WEIGHTS}")) == [], moment


def test_an_interrupt_ends_a_download_at_each_of_twenty_moments(
    tmp_path: Path, python: Path
) -> None:
    assert len(MOMENTS) == 20
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    homes = [tmp_path / str(number) for number in range(len(MOMENTS))]
    with ThreadPoolExecutor(4) as threads:
        folders = [tmp_path / "model"] * len(MOMENTS)
        pythons = [python] * len(MOMENTS)
        list(threads.map(interrupt_a_download, MOMENTS, folders, homes, pythons))


LOST = """
import os, signal, time
from hfclip.cli import main

class Loses:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):  # Python raises KeyboardInterrupt here, and ignores it
            pass

@main.command()
def lose():
    Loses()
    time.sleep(30)

main(["lose"])
"""
# It locks a mutex twice, which waits for ever and does not end for a signal.
NATIVE = """
import ctypes
from hfclip.cli import main

@main.command()
def work():
    signal.alarm(60)  # ends the process if nothing else does
    print("started", flush=True)
    native, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    native.pthread_mutex_init(mutex, None)
    for _ in range(2):
        native.pthread_mutex_lock(mutex)

main(["work"])
"""
SWALLOWED = """
import time
from hfclip.cli import main

@main.command()
def go_on():
    print("started", flush=True)
    for _ in range(9):
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            pass

main(["go-on"])
"""


def test_an_interrupt_lost_by_python_is_raised_again() -> None:
    child, began = start(LOST), time.monotonic()
    _, errors = child.communicate(timeout=25)
    assert "Exception ignored" in errors
    assert errors.endswith("Interrupted.\n")
    assert child.returncode == 130
    assert 2 < time.monotonic() - began < 5


@pytest.mark.parametrize("code", [NATIVE, SWALLOWED], ids=["native code", "swallowed"])
def test_code_that_ignores_an_interrupt_is_ended(code: str) -> None:
    child = start(code)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = child.communicate(timeout=25)
    assert errors.endswith("Interrupted.\n")
    assert child.returncode == 130
    assert time.monotonic() - began < 5


def from_an_interrupt(kind: type[Exception]) -> Exception:
    error = kind("made while a KeyboardInterrupt was handled")
    error.__context__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), from_an_interrupt(RuntimeError), from_an_interrupt(hfclip.NetworkError)],
    ids=["an interrupt", "what Python makes of it", "what hfclip makes of it"],
)
def test_printed_output_stays_and_the_status_is_130(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def rank() -> None:
        click.echo("cat.jpg  a cat")
        raise error

    monkeypatch.setitem(main.commands, "rank", rank)
    result = CliRunner().invoke(main, ["rank"])
    assert result.exit_code == 130
    assert result.stdout == "cat.jpg  a cat\n"
    assert result.stderr == "Interrupted.\n"


def test_other_errors_are_not_taken_for_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise hfclip.NetworkError("The Hub is down.")

    monkeypatch.setitem(main.commands, "fail", fail)
    result = CliRunner().invoke(main, ["fail"])
    assert (result.exit_code, result.stderr) == (1, "Error: The Hub is down.\n")


def test_a_download_imports_no_torch(tmp_path: Path) -> None:
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    code = (
        "import sys\n"
        "from hfclip.cli import main\n"
        "main(['download', 'me/clip'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    with LoopbackHub() as hub:
        files = {name: tmp_path / "model" / name for name in ("config.json", WEIGHTS)}
        hub.add_repository("me/clip", files)
        child = start(code, hub.environment(tmp_path / "home"))
        output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert output.startswith("me/clip  me/clip at ")
