"""Fixtures: a loopback Hub with three tokens and one model, and the client connected to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, close_session, hf_hub_download

from .hub import LoopbackHub
from .in_process import point_client_at

# These tokens are valid only in these tests.
MINE, MINE_TO_READ, STRANGERS = "hf_mine", "hf_mine_to_read", "hf_strangers"

CONFIG = b'{"embed_dim": 512}\n'
WEIGHTS = bytes(range(256)) * 400
MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
WEIGHTS_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()

Fetch = Callable[..., bytes]
Log = list[tuple[str, str, str | None, int | None]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        hub.add_account("me", MINE)
        hub.add_account("me", MINE_TO_READ, role="read")
        hub.add_account("stranger", STRANGERS)
        yield hub
    close_session()


@pytest.fixture
def commit(hub: LoopbackHub) -> str:
    return hub.add_repository("me/model", MODEL)


@pytest.fixture
def fetch(hub: LoopbackHub, commit: str, tmp_path: Path) -> Fetch:
    """Downloads a file of me/model with the real client, without a token."""

    def download(filename: str, **options: Any) -> bytes:
        options = {"cache_dir": tmp_path / "cache", **options}
        path = hf_hub_download("me/model", filename, endpoint=hub.endpoint, **options)
        return Path(path).read_bytes()

    return download


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=MINE)


def log_of(hub: LoopbackHub) -> Log:
    """Returns the requests for the content of a file, with the status of each answer."""
    calls = [call for call in hub.calls if call.file is not None]
    return [(call.server, call.method, call.file, call.status) for call in calls]
