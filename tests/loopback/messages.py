"""Requests and replies, independent of the sockets."""

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
    """A received request, with lower-case header names and an unread body."""

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
        """Reads the rest of the body: the next request starts after it."""
        for _ in self.body:
            pass


@dataclass
class Call:
    """A logged request. `file` is the path of the requested file in its repository.

    `status` is the status of the answer, or None if the connection ended before it.
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
    """A reply. `length` is the Content-Length and `chunks` are the sent bytes."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int = 0
    chunks: Iterable[bytes] = ()

    def without_body(self) -> Reply:
        return replace(self, chunks=())


class RefusalError(Exception):
    """An error of the Hub, in the format that the client understands."""

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
    """Returns the whole content, or the range in the Range header."""
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
    """Reads the body of a request, with a Content-Length or in chunks."""
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
