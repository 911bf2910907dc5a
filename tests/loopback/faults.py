"""Faults to order: what can go wrong between a Hub and its client.

A fault acts at one of two moments. `before` the Hub handles a request it may answer in
the Hub's place or end the connection, so that nothing has happened on the Hub. Once the
Hub has its reply, `spoil` may change it: other bytes, fewer bytes, slower bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http import HTTPStatus

from .messages import Call, RefusalError, Reply

# Waits so many seconds (None: for ever), or until the Hub is stopped.
Wait = Callable[[float | None], object]


class CutError(Exception):
    """The connection ends here: with a RST packet if `reset`, else as if all were said."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "hung up")
        self.reset = reset


@dataclass(frozen=True)
class Fault:
    """A fault that does nothing yet: the base of the others."""

    def before(self, wait: Wait) -> Reply | None:
        return None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        return reply


@dataclass(frozen=True)
class Before(Fault):
    """Runs an action, such as a push, before the Hub looks at the request."""

    action: Callable[[], object]

    def before(self, wait: Wait) -> Reply | None:
        self.action()
        return None


@dataclass(frozen=True)
class Status(Fault):
    """An error status in the Hub's place: 500, 503, 429 with a Retry-After header."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)

    def before(self, wait: Wait) -> Reply | None:
        phrase = HTTPStatus(self.status).phrase
        return RefusalError(self.status, phrase, headers=self.headers).reply()


@dataclass(frozen=True)
class Corrupt(Fault):
    """A body of the right length with one bit flipped, in byte `at` (None: the middle)."""

    at: int | None = None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        at = reply.length // 2 if self.at is None else self.at
        return replace(reply, chunks=_flip_bit(reply.chunks, at))


@dataclass(frozen=True)
class ShortBody(Fault):
    """Only the first `length` bytes (None: half), and a Content-Length that agrees."""

    length: int | None = None

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        length = reply.length // 2 if self.length is None else self.length
        return replace(reply, length=length, chunks=_first(reply.chunks, length))


@dataclass(frozen=True)
class Slow(Fault):
    """The body trickles in over so many seconds; a reply without one is that late."""

    seconds: float = 2.0

    def spoil(self, reply: Reply, wait: Wait) -> Reply:
        if reply.chunks == ():
            wait(self.seconds)
        return replace(reply, chunks=_trickle(reply.chunks, self.seconds, reply.length, wait))


@dataclass(frozen=True)
class _Break(Fault):
    """Ends the conversation `after` so many bytes of the body (None: before any reply)."""

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
    """The connection is closed, early but in good order."""

    def end(self, wait: Wait) -> None:
        raise CutError(reset=False)


@dataclass(frozen=True)
class Reset(_Break):
    """The connection is reset, as a crashed server or a middlebox does it."""

    def end(self, wait: Wait) -> None:
        raise CutError(reset=True)


@dataclass(frozen=True)
class Hang(_Break):
    """Nothing more comes, for so many seconds (None: until the Hub stops)."""

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
    """A fault, the requests it is for, and how many it has struck."""

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
    """All faults on order; each request takes those that are due."""

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
