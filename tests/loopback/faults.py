"""Faults between a Hub and its client, which tests can request.

A fault acts at one of two moments. `before` runs before the Hub handles a request. It may
answer instead of the Hub or end the connection, so the Hub does nothing. `spoil` may change
the Hub's reply: other bytes, fewer bytes, slower bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http import HTTPStatus

from .messages import Call, RefusalError, Reply

# Waits the given seconds (None: for ever), or until the Hub stops.
Wait = Callable[[float | None], object]


class CutError(Exception):
    """Ends the connection: with a RST packet if `reset`, otherwise normally."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "hung up")
        self.reset = reset


@dataclass(frozen=True)
class Fault:
    """Base class of the faults. It does nothing."""

    def before(self, wait: Wait) -> Reply | None:
        return None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        return reply


@dataclass(frozen=True)
class Before(Fault):
    """Runs an action, for example a push, before the Hub handles the request."""

    action: Callable[[], object]

    def before(self, wait: Wait) -> Reply | None:
        self.action()
        return None


@dataclass(frozen=True)
class Status(Fault):
    """Answers with an error status instead of the Hub: 500, 503, 429 with Retry-After."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)

    def before(self, wait: Wait) -> Reply | None:
        phrase = HTTPStatus(self.status).phrase
        return RefusalError(self.status, phrase, headers=self.headers).reply()


@dataclass(frozen=True)
class Corrupt(Fault):
    """Flips one bit of the body, in byte `at` (None: the middle byte)."""

    at: int | None = None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        at = reply.length // 2 if self.at is None else self.at
        return replace(reply, chunks=_flip_bit(reply.chunks, at))


@dataclass(frozen=True)
class ShortBody(Fault):
    """Sends only the first `length` bytes (None: half), with a matching Content-Length."""

    length: int | None = None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        length = reply.length // 2 if self.length is None else self.length
        return replace(reply, length=length, chunks=_first(reply.chunks, length))


@dataclass(frozen=True)
class Slow(Fault):
    """Sends the body over the given seconds. A reply without a body is delayed."""

    seconds: float = 2.0

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        if reply.chunks == ():
            wait(self.seconds)
        return replace(reply, chunks=_trickle(reply.chunks, self.seconds, reply.length, wait))


@dataclass(frozen=True)
class _Break(Fault):
    """Ends the connection `after` this number of body bytes (None: before the reply)."""

    after: int | None = None

    def before(self, wait: Wait) -> Reply | None:
        if self.after is None:
            self.end(wait)
        return None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        return replace(reply, chunks=self._chunks_before_the_end(reply.chunks, wait))

    def _chunks_before_the_end(self, chunks: Iterable[bytes], wait: Wait) -> Iterator[bytes]:
        yield from _first(chunks, self.after or 0)
        self.end(wait)

    def end(self, wait: Wait) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class HangUp(_Break):
    """Closes the connection too early, but normally."""

    def end(self, wait: Wait) -> None:
        raise CutError(reset=False)


@dataclass(frozen=True)
class Reset(_Break):
    """Resets the connection, as a crashed server does."""

    def end(self, wait: Wait) -> None:
        raise CutError(reset=True)


@dataclass(frozen=True)
class Hang(_Break):
    """Sends nothing for the given seconds (None: until the Hub stops)."""

    seconds: float | None = None

    def end(self, wait: Wait) -> None:
        wait(self.seconds)
        raise CutError(reset=False)


def _first(chunks: Iterable[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:length]
        length -= len(chunk)
        if length <= 0:
            return


def _flip_bit(chunks: Iterable[bytes], at: int) -> Iterator[bytes]:
    for chunk in chunks:
        mine = 0 <= at < len(chunk)
        yield chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :] if mine else chunk
        at -= len(chunk)


def _trickle(
    chunks: Iterable[bytes], seconds: float, length: int, wait: Wait, pieces: int = 20
) -> Iterator[bytes]:
    size = max(1, -(-length // pieces))
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            piece = chunk[start : start + size]
            wait(seconds * len(piece) / length)
            yield piece


@dataclass
class Order:
    """A fault, the requests that it applies to, and the number of affected requests."""

    fault: Fault
    path: str
    method: str
    times: int | None
    skip: int
    struck: int = 0

    def matches(self, call: Call) -> bool:
        subject = call.path if self.path.startswith("/") else call.file
        if subject is None or not fnmatchcase(subject, self.path):
            return False
        return fnmatchcase(call.method, self.method)


class Orders:
    """All requested faults. Each request gets the faults that apply to it."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._lock = threading.Lock()

    def add(self, order: Order) -> Order:
        with self._lock:
            self._orders.append(order)
        return order

    def due(self, call: Call) -> list[Fault]:
        with self._lock:
            matching = [order for order in self._orders if order.matches(call)]
            return [order.fault for order in matching if _take(order)]

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()


def _take(order: Order) -> bool:
    if order.skip > 0:
        order.skip -= 1
        return False
    if order.times is not None and order.struck >= order.times:
        return False
    order.struck += 1
    return True
