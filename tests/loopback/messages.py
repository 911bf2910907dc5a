"""Requests and replies, apart from the sockets that carry them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedIOBase
from typing import Any, Literal

from .repository import CHUNK, Content

ServerName = Literal["hub", "cdn"]
ErrorCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo"]


@dataclass(frozen=True)
class Request:
    """A request as it came in; header names in lower case, the body not yet read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Iterator[bytes]

    def read(self) -> bytes:
        return b"".join(self.body)

    def json(self) -> Any:
        return json.loads(self.read())

    def drain(self) -> None:
        """Reads past what nobody asked for: the next request starts behind it."""
        for _ in self.body:
            pass


@dataclass
class Call:
    """A request as the log keeps it; `file` is the path in the repository it is about.

    `status` is what was answered, None if the connection ended before an answer.
    """

    server: ServerName
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    file: str | None = None
    status: int | None = None

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Reply:
    """A reply to send; `length` is what Content-Length says, `chunks` what is sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int = 0
    chunks: Iterable[bytes] = ()

    def without_body(self) -> Reply:
        return replace(self, chunks=())


class RefusalError(Exception):
    """The Hub says no, in the words that its client understands."""

    def __init__(
        self,
        status: int,
        message: str,
        code: ErrorCode | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **(headers or {})}
        if code is not None:
            self.headers["X-Error-Code"] = code

    def reply(self) -> Reply:
        return json_reply({"error": str(self)}, self.status, self.headers)


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(value).encode()
    typed = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Reply(status, typed, len(body), (body,))


def redirect(status: int, location: str, headers: Mapping[str, str]) -> Reply:
    return Reply(status, {"Location": location, **headers})


def content_reply(content: Content, headers: Mapping[str, str], wanted: str | None) -> Reply:
    """All of the content, or the one range of it that a Range header wants."""
    size = content.size
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if asked is None:
        return Reply(200, headers, size, content.chunks(0, size))
    start = int(asked[1])
    stop = min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= stop:
        return Reply(416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(206, headers, stop - start, content.chunks(start, stop))


def body_of(stream: BufferedIOBase, headers: Mapping[str, str]) -> Iterator[bytes]:
    """The body behind a request's headers, whichever way its length is told."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunked(stream)
    return _exactly(stream, int(headers.get("content-length", 0)))


def _exactly(stream: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := stream.read(min(CHUNK, size))):
        size -= len(chunk)
        yield chunk
    if size > 0:
        raise ConnectionAbortedError("the client left in the middle of its request")


def _chunked(stream: BufferedIOBase) -> Iterator[bytes]:
    while size := int(stream.readline().split(b";")[0], 16):
        yield from _exactly(stream, size)
        stream.readline()
    while stream.readline().strip():
        pass
