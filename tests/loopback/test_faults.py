"""Behaviour of the real client with each fault."""

from __future__ import annotations

import time
from functools import partial

import httpx2
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from . import LoopbackHub, faults
from .conftest import CONFIG, MODEL, WEIGHTS, Fetch, log_of


@pytest.mark.parametrize(("name", "content"), MODEL.items())
def test_corrupt_flips_one_bit_that_the_client_does_not_notice(
    hub: LoopbackHub, fetch: Fetch, name: str, content: bytes
) -> None:
    hub.fault(faults.Corrupt(at=3), name)
    wrong = fetch(name)
    assert wrong == content[:3] + bytes([content[3] ^ 1]) + content[4:]
    assert fetch(name, force_download=True) == content


def test_a_short_body_is_refused_because_of_its_size(hub: LoopbackHub, fetch: Fetch) -> None:
    hub.fault(faults.ShortBody(), "model.safetensors")
    with pytest.raises(OSError, match="should be of size 102400 but has size 51200"):
        fetch("model.safetensors")


@pytest.mark.parametrize("fault", [faults.HangUp(after=1000), faults.Hang(after=1000)])
def test_an_interrupted_download_is_resumed(
    hub: LoopbackHub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, fault: faults.Fault
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    hub.fault(fault, "model.safetensors")
    assert fetch("model.safetensors") == WEIGHTS
    gets = [call.headers.get("range") for call in hub.calls if call.server == "cdn"]
    assert gets == [None, "bytes=1000-"]


@pytest.mark.parametrize("after", [None, 1000])
def test_a_reset_reaches_the_caller_as_a_read_error(
    hub: LoopbackHub, fetch: Fetch, after: int | None
) -> None:
    hub.fault(faults.Reset(after), "model.safetensors")
    with pytest.raises(httpx2.ReadError):
        fetch("model.safetensors")
    assert fetch("model.safetensors") == WEIGHTS


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Reset(), httpx2.ReadError),
        (faults.HangUp(), httpx2.RemoteProtocolError),
    ],
)
def test_a_connection_lost_on_head_reaches_the_caller_unwrapped(
    hub: LoopbackHub, fetch: Fetch, fault: faults.Fault, error: type[Exception]
) -> None:
    hub.fault(fault, "config.json", method="HEAD")
    with pytest.raises(error):
        fetch("config.json")


def test_a_request_is_repeated_after_the_hub_hangs_once(hub: LoopbackHub, fetch: Fetch) -> None:
    hub.fault(faults.Hang(), "config.json", method="HEAD")
    assert fetch("config.json", etag_timeout=0.2) == CONFIG
    assert [status for *_, status in log_of(hub)] == [None, 307, 200, 200]


def test_a_hang_ends_when_the_hub_stops() -> None:
    with LoopbackHub() as hub:
        hub.fault(faults.Hang())
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(hub.endpoint, timeout=0.1, trust_env=False)
        started = time.monotonic()
    assert time.monotonic() - started < 2


def test_a_slow_body_takes_the_time_it_was_given(hub: LoopbackHub, fetch: Fetch) -> None:
    hub.fault(faults.Slow(seconds=0.4), "model.safetensors")
    started = time.monotonic()
    assert fetch("model.safetensors") == WEIGHTS
    assert 0.4 <= time.monotonic() - started < 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_on_get_reaches_the_caller_at_once(
    hub: LoopbackHub, fetch: Fetch, status: int
) -> None:
    hub.fault(faults.Status(status), "model.safetensors")
    with pytest.raises(HfHubHTTPError) as caught:
        fetch("model.safetensors")
    assert caught.value.response.status_code == status


def test_a_server_error_on_head_falls_back_to_the_cache(hub: LoopbackHub, fetch: Fetch) -> None:
    fetch("config.json")
    hub.push("me/model", {"config.json": b"new"})
    down = hub.fault(faults.Status(503), "config.json", method="HEAD", times=None)
    assert fetch("config.json") == CONFIG
    assert down.struck == 1
    hub.forget_faults()
    assert fetch("config.json") == b"new"


def test_status_429_is_retried_after_the_time_that_the_hub_names(
    hub: LoopbackHub, fetch: Fetch
) -> None:
    busy = hub.fault(faults.Status(429, {"Retry-After": "0"}), "model.safetensors")
    assert fetch("model.safetensors") == WEIGHTS
    assert busy.struck == 1


# The client uses a deprecated argument of httpx2.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_upload_is_repeated_completely_after_a_server_error(
    hub: LoopbackHub, api: HfApi, commit: str
) -> None:
    down = hub.fault(faults.Status(503), "/_lfs/*", method="PUT")
    api.upload_file(path_or_fileobj=WEIGHTS[1:], path_in_repo="new.bin", repo_id="me/model")
    assert hub.repository("me/model").branches["main"].files["new.bin"].size == 102399
    assert [call.status for call in hub.calls if call.method == "PUT"] == [503, 200]
    assert down.struck == 1


def test_a_push_between_two_requests_is_seen_by_the_second(
    hub: LoopbackHub, commit: str, fetch: Fetch
) -> None:
    push = partial(hub.push, "me/model", {"config.json": b"pushed"})
    hub.fault(faults.Before(push), "config.json", method="HEAD")
    assert fetch("model.safetensors") == WEIGHTS
    assert fetch("config.json") == b"pushed"
    assert fetch("config.json", revision=commit) == CONFIG


def test_a_fault_applies_to_the_requested_number_of_requests(hub: LoopbackHub) -> None:
    order = hub.fault(faults.Status(500), "/api/agent-*", skip=1, times=2)
    url = f"{hub.endpoint}/api/agent-harnesses"
    statuses = [httpx2.get(url, trust_env=False).status_code for _ in range(4)]
    assert (statuses, order.struck) == ([200, 500, 500, 200], 2)
