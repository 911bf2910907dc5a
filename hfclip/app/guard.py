"""Stands before the page's server: limits requests, and serves the collection by key.

It is an ASGI middleware. What it does not handle, it passes on.
"""

import io
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote

import anyio
from anyio.to_thread import run_sync
from PIL import Image

from hfclip.app.demo import Demo
from hfclip.app.finding import collection_of
from hfclip.app.markup import PICTURES
from hfclip.errors import DataError, HfclipError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1", "[::1]"))
"""The names of this machine for itself."""

# Originals that are read at once.
_READERS = 2
# The kinds of pictures that browsers show. Others are offered as downloads.
_SHOWN = frozenset(
    ("image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp")
)
# The paths of gradio that the page does not use: its own pages, and what writes to the disk.
_CLOSED = ("/monitoring", "/gradio_api/deep_link", "/gradio_api/proxy=", "/gradio_api/dev/")
_UPLOAD = "/gradio_api/upload"
# What a page may load: its own files, and data in the page itself.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _POLICY.encode()),
]


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
        self._readers = anyio.CapacityLimiter(_READERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, most = scope["path"], self._most(scope["path"])
        headers = dict(scope["headers"])
        refusal = self._refusal(path, headers, most)
        if refusal is not None:
            await _answer(send, *refusal)
        elif path == f"/{PICTURES}" and scope["method"] == "GET":
            await self._send_picture(scope["query_string"], send)
        else:
            await self._pass_on(scope, receive, send, most)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Passes a request on, unless its body turns out to be too large."""
        answered = _Answered(send)
        try:
            limited = _limited(receive, most)
            if scope["method"] == "POST" and not scope["path"].startswith(_UPLOAD):
                # gradio would take an error while it reads for a malformed request.
                limited = _replayed(await _body_of(limited), receive)
            await self._app(scope, limited, answered)
        except _TooLargeError:
            if not answered.begun:
                await _answer(send, 413, _too_large(most))

    def _most(self, path: str) -> int:
        """Returns the largest number of bytes of a request."""
        limits = self._demo.limits
        return limits.total_bytes if path.startswith(_UPLOAD) else limits.request_bytes

    def _refusal(self, path: str, headers: dict[bytes, bytes], most: int) -> tuple[int, str] | None:
        """Returns the status and the reason of a refusal, or None."""
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        if self._hosts and host not in self._hosts:
            return 403, f"This page answers to this machine only. Start it with --host {host}."
        if path.startswith(_CLOSED):
            return 404, "This page has no such part."
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            return 413, _too_large(most)
        return None

    async def _send_picture(self, query: bytes, send: Send) -> None:
        """Sends an original of the collection, named by its key."""
        keys = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("key", [])
        if len(keys) != 1:
            await _answer(send, 400, "Give one key, as in pictures?key=photos/1.jpg.")
            return
        try:
            content, kind = await run_sync(self._read, keys[0], limiter=self._readers)
        except (HfclipError, OSError):
            await _answer(send, 404, "The collection has no picture with this key.")
            return
        way = "inline" if kind in _SHOWN else "attachment"
        name = quote(keys[0].replace("\\", "/").rpartition("/")[2] or "picture", safe="")
        disposition = f"{way}; filename*=UTF-8''{name}".encode()
        await _answer(send, 200, content, kind, [(b"content-disposition", disposition)])

    def _read(self, key: str) -> tuple[bytes, str]:
        """Returns the bytes of a picture of the collection, and its kind.

        Raises:
            HfclipError: There is no such key, or it is no longer a picture.
            OSError: The file cannot be read.
        """
        embeddings = collection_of(self._demo)
        row = embeddings.position(key)
        if embeddings.keys[row] != key:  # `position` also takes other spellings
            raise DataError(f"There is no key {key!r}.")
        [item] = embeddings.items([row])
        content = item.content()
        try:
            with Image.open(io.BytesIO(content)) as image:
                kind = image.get_format_mimetype()
        except Exception as error:  # Pillow raises many for other files
            raise DataError(f"{key} is no picture.") from error
        return content, kind or "application/octet-stream"


class _TooLargeError(Exception):
    """A request has more bytes than the page takes."""


class _Answered:
    """Adds headers to an answer, and remembers whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": [*message["headers"], *_HEADERS]}
        await self._send(message)


def _limited(receive: Receive, most: int) -> Receive:
    """Returns a function that receives at most this many bytes."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _TooLargeError
        return message

    return limited


async def _body_of(receive: Receive) -> bytes:
    """Returns the whole body of a request; what has come if the client leaves."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns a function that receives a body at once, then what comes after it."""
    first = True

    async def replayed() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def _host(value: str) -> str:
    """Returns the name in a Host header, without the port."""
    name, _, port = value.rpartition(":")
    return name if name and port.isdigit() else value


def _too_large(most: int) -> str:
    return f"The request is too large; this page takes {most:,} bytes."


async def _answer(
    send: Send,
    status: int,
    content: str | bytes,
    kind: str = "text/plain; charset=utf-8",
    headers: Collection[tuple[bytes, bytes]] = (),
) -> None:
    body = content.encode() if isinstance(content, str) else content
    start = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*start, *headers, *_HEADERS],
        }
    )
    await send({"type": "http.response.body", "body": body})
