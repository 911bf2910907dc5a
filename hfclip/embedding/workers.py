"""The threads of a pipeline: some read files, some decode them, within a limit of bytes.

On a CPU the model and the decoding share the cores. They take turns: while the model computes, no
thread begins to decode. Both at once would be slower, because each matrix product waits for its
slowest thread. Reading goes on, because it mostly waits for a disk or a network.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from hfclip.images.reading import core_count

_Result = TypeVar("_Result")

# Bytes of files that were read and are not decoded yet.
_MOST_READ = 256 * 2**20
# Bytes of decoded pictures for each decoding thread, and for all of them at least.
_DECODED_PER_THREAD, _LEAST_DECODED = 64 * 2**20, 512 * 2**20
# Threads that wait for disks and networks. They need no core.
_READERS = 16


class Budget:
    """Limits the bytes that several threads hold at once.

    Requests are served in order. A request above the limit waits until nothing else is held.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Waits until `count` bytes are free and takes them."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has(count))
            self._waiting.popleft()
            self._held += count
            self._changed.notify_all()

    def give_back(self, count: int) -> None:
        """Returns bytes that were taken."""
        with self._changed:
            self._held -= count
            self._changed.notify_all()

    @contextmanager
    def held(self, count: int) -> Iterator[None]:
        """Holds `count` bytes in a `with` statement."""
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)

    def _has(self, count: int) -> bool:
        return self._held == 0 or self._held + count <= self._limit


class Workers:
    """Threads that read and decode. Use it in a `with` statement.

    Attributes:
        decoded: The limit for decoded pictures, which the reader of pictures observes.
    """

    def __init__(self, decoders: int | None = None) -> None:
        count = decoders or core_count()
        self.decoded = Budget(max(count * _DECODED_PER_THREAD, _LEAST_DECODED))
        self._read = Budget(_MOST_READ)
        self._may_decode = threading.Event()
        self._may_decode.set()
        self._readers = ThreadPoolExecutor(_READERS, "hfclip-reading")
        self._reader = ThreadPoolExecutor(1, "hfclip-reading")
        self._decoders = _single_threaded(count)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        wait = kind is not KeyboardInterrupt
        self._may_decode.set()
        # Readers first: they give work to the decoders.
        self._readers.shutdown(wait=wait, cancel_futures=True)
        self._reader.shutdown(wait=wait, cancel_futures=True)
        self._decoders.shutdown(wait=wait, cancel_futures=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Lets no thread begin to decode during a `with` statement. Reading goes on."""
        self._may_decode.clear()
        try:
            yield
        finally:
            self._may_decode.set()

    def decode(self, job: Callable[[], _Result]) -> Future[_Result]:
        """Runs a job in a decoding thread."""
        return self._decoders.submit(self._in_turn, job)

    def read_and_decode(
        self,
        read: Callable[[], bytes],
        size: int | None,
        decode: Callable[[bytes], _Result],
        *,
        in_order: bool = False,
    ) -> Future[_Result]:
        """Runs `read` in a reading thread and then `decode` of its result in a decoding thread.

        Args:
            read: Returns the content.
            size: The size of the content in bytes, or None if it is unknown.
            decode: Decodes the content.
            in_order: Whether one thread reads such contents, one after the other.
        """
        result: Future[_Result] = Future()
        known = size or 0

        def reading() -> None:
            self._read.take(known)
            held = known
            try:
                content = read()
                if size is None:
                    held = len(content)
                    self._read.take(held)
                self._decoders.submit(decoding, content, held)
            except BaseException as error:  # noqa: BLE001  # the future passes it on
                self._read.give_back(held)
                result.set_exception(error)

        def decoding(content: bytes, held: int) -> None:
            try:
                found = self._in_turn(lambda: decode(content))
            except BaseException as error:  # noqa: BLE001  # the future passes it on
                result.set_exception(error)
            else:
                result.set_result(found)
            finally:
                self._read.give_back(held)

        (self._reader if in_order else self._readers).submit(reading)
        return result

    def _in_turn(self, job: Callable[[], _Result]) -> _Result:
        self._may_decode.wait()
        return job()


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """Returns a pool of threads in which torch computes with one thread each.

    Otherwise each of them would start as many threads of torch as there are cores.
    """
    earlier = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread would take back a number set before
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "hfclip-decoding", start)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    # The number applies to the calling thread and to those that start later.
    torch.set_num_threads(earlier)
    return pool
