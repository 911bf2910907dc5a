"""Start and stop of a loopback Hub, and its use from a child process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import hf_hub_download, model_info

from . import LoopbackHub, faults
from .conftest import CONFIG, MINE, MODEL, WEIGHTS, WEIGHTS_SHA256


def test_a_stopped_hub_leaves_no_thread_no_socket_and_no_file() -> None:
    threads, descriptors = set(threading.enumerate()), _descriptors()
    with LoopbackHub() as hub, httpx2.Client(trust_env=False) as client:
        assert client.get(f"{hub.endpoint}/api/agent-harnesses").status_code == 200
        assert set(threading.enumerate()) > threads
        address = ("127.0.0.1", int(hub.endpoint.rpartition(":")[2]))
        uploads = hub._registry.uploads
        hub.__exit__()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert set(threading.enumerate()) == threads
    assert _descriptors() == descriptors
    assert not uploads.exists()


def _descriptors() -> set[str]:
    folder = Path("/dev/fd")
    return {str(entry.readlink()) for entry in folder.iterdir() if entry.is_symlink()}


def test_a_hub_starts_and_stops_quickly() -> None:
    started = time.monotonic()
    for _ in range(5):
        with LoopbackHub():
            pass
    assert (time.monotonic() - started) / 5 < 0.5


def test_the_client_in_this_process_uses_only_the_loopback_hub(
    hub: LoopbackHub, commit: str, tmp_path: Path
) -> None:
    path = Path(hf_hub_download("me/model", "config.json"))
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == CONFIG
    assert model_info("me/model").sha == commit
    assert {call.authorization for call in hub.calls} == {None}


def test_a_child_process_uses_only_the_loopback_hub(
    hub: LoopbackHub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    path = _download_in_a_child("config.json", hub.environment(tmp_path, token=MINE))
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == CONFIG
    assert {call.authorization for call in hub.calls if call.file} == {f"Bearer {MINE}"}


def test_a_child_process_takes_xet_files_from_the_xet_store(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add_repository("me/model", MODEL, xet=True)
    path = _download_in_a_child("model.safetensors", hub.environment(tmp_path, xet=True))
    assert path.read_bytes() == WEIGHTS
    assert {call.server for call in hub.calls} == {"hub"}
    blob = path.parent / path.readlink()
    shared = blob.parent / blob.readlink()
    assert (blob.name, shared.name) == (WEIGHTS_SHA256, _xet_hash(hub, "model.safetensors"))


def _xet_hash(hub: LoopbackHub, filename: str) -> str | None:
    return hub.repository("me/model").branches["main"].files[filename].xet_hash


def _download_in_a_child(filename: str, environment: dict[str, str]) -> Path:
    script = f"import huggingface_hub as h; print(h.hf_hub_download('me/model', '{filename}'))"
    command = [sys.executable, "-W", "error", "-c", script]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Path(child.stdout.strip())


def test_an_error_inside_the_hub_is_raised_when_it_stops() -> None:
    with pytest.raises(LookupError, match="in the middle of a request"):
        _ask_a_hub_that_fails()


def _ask_a_hub_that_fails() -> None:
    def fail() -> None:
        raise LookupError("in the middle of a request")

    with LoopbackHub() as hub:
        hub.fault(faults.Before(fail))
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(hub.endpoint, trust_env=False)
