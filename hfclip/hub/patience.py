"""Limits the time that the Hub's client waits for an answer.

By default the client retries a Hub that does not answer for up to six minutes. In `bounded()`, a
connection without data ends after `STALL` seconds, and an identical request fails at the third
attempt if `LIMIT` seconds have passed. A download that makes progress requests the remaining bytes,
which is a different request, so a slow download has no time limit. If HF_HUB_DOWNLOAD_TIMEOUT or
HF_HUB_ETAG_TIMEOUT is set, the client's own timeouts replace `STALL`.

Nothing simpler does this: the client has no setting for its number of attempts, and its timeouts
apply to each of them. The hooks are added to its clients through the factory that it offers.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http

from hfclip.errors import NetworkError

STALL = 3.5
LIMIT = 5.0
_ATTEMPTS = 3
_CHOSEN = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")

_running = threading.local()


@contextmanager
def bounded() -> Iterator[None]:
    """Limits the waiting time of this thread's requests to the Hub.

    Raises:
        NetworkError: The Hub does not answer in time, or asks to wait longer than `LIMIT` seconds.
    """
    _watch_clients()
    _running.first_asked = {}
    try:
        yield
    finally:
        del _running.first_asked


def _before(request: Any) -> None:
    asked: dict[Any, list[float]] | None = getattr(_running, "first_asked", None)
    if asked is None:
        return
    if not any(name in os.environ for name in _CHOSEN):
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), STALL)
    now = time.monotonic()
    times = asked.setdefault((request.method, request.url, request.headers.get("range")), [])
    times.append(now)
    if len(times) >= _ATTEMPTS and now - times[0] > LIMIT:
        raise NetworkError(f"{request.url.host} does not answer")


def _after(response: Any) -> None:
    if getattr(_running, "first_asked", None) is None or response.status_code != 429:
        return
    wait = response.headers.get("retry-after", "")
    if wait.isdigit() and int(wait) > LIMIT:
        raise NetworkError(f"{response.request.url.host} asks to wait {wait} s between requests")


def _watch_clients() -> None:
    """Adds the hooks to every client that huggingface_hub makes, also after a lost connection."""
    make = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001  # no public way to keep a user's factory
    if not isinstance(make, _Watched):
        set_client_factory(_Watched(make))


class _Watched:
    """Makes a client with the previous factory and adds the two hooks."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:
        client = self._make()
        client.event_hooks["request"].append(_before)
        client.event_hooks["response"].append(_after)
        return client
