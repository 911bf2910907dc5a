"""Bounds how long the Hub's client may wait in silence.

Left alone the client asks a Hub that does not answer for up to six minutes. Within `bounded()`, a
connection that stands still is given up after `STALL` seconds, and a request that is repeated word
for word is given up at the third attempt once `LIMIT` seconds have passed. A download that makes
progress asks for the rest, which is another request, so a slow network may take all day.
Whoever sets HF_HUB_DOWNLOAD_TIMEOUT or HF_HUB_ETAG_TIMEOUT has chosen a longer wait, and gets it.
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
    """Bounds the waits of this thread's requests to the Hub.

    Raises:
        NetworkError: The Hub has not answered in time, or asks to wait for long.
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
    """Has every client that huggingface_hub makes, now or after a lost connection, report here."""
    make = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001  # there is no other way to keep a user's own
    if not isinstance(make, _Watched):
        set_client_factory(_Watched(make))


class _Watched:
    """Makes a client as it was made before, and adds the two hooks."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:
        client = self._make()
        client.event_hooks["request"].append(_before)
        client.event_hooks["response"].append(_after)
        return client
