"""Stands before the page's server: limits requests, and serves the collection by key.

It is an ASGI middleware. What it does not handle, it passes on.
"""

import io
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, quote

import anyio
from PIL import Image

from hfclip.app.demo import Demo
from hfclip.app.markup import PICTURES
from hfclip.errors import DataError, HfclipError

if TYPE_CHECKING:
    from hfclip.embedding.embeddings import Embeddings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Originals that are read at once.
_READERS = 2
# The kinds of pictures that browsers show. Others are offered as downloads.
_SHOWN = frozenset(
    ("image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp")
)
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "[::1]", "::1"))
# What a page may load: its own files, and data in the page itself.
_POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _POLICY.encode()),
)


class Guard:
    """Refuses requests that are too large or for other hosts, and serves pictures by their keys.

    Args:
        app: The application behind it.
        demo: The model and the collection.
        hosts: The host names under which the page answers. Empty for any. A page that is bound to
            this machine answers only under its names, so that no page of another site can read it
            under a name of its own (DNS rebinding).
    """

    def __init__(self, app: Application, *, demo: Demo, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._demo = demo
        self._hosts = frozenset(hosts)
        self._readers = anyio.Semaphore(_READERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _answer(send, *refusal)
        elif scope["path"].rpartition("/")[2] == PICTURES and scope["method"] == "GET":
            await self._picture(scope, send)
        else:
            limited = self._limited(scope, receive)
            await self._app(scope, limited, _with_headers(send))

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Returns the status and the reason of a refusal, or None."""
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        if self._hosts and host not in self._hosts:
            return (
                403,
                f"This page answers on this machine only, not as {host!r}. Start it with --host.",
            )
        length = headers.get(b"content-length", b"0")
        most = self._most(path)
        if not length.isdigit() or int(length) > most:
            return 413, f"The request is too large; this page takes {most:,} bytes."
        return None
