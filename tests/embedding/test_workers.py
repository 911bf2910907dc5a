"""The threads of a pipeline: turns, limits of bytes, order and errors."""

import threading
import time

import pytest
import torch

from hfclip.embedding.workers import Budget, Workers


def test_a_budget_admits_what_fits_and_a_large_request_alone() -> None:
    budget, order = Budget(10), list[str]()
    budget.take(6)

    def take(name: str, count: int) -> threading.Thread:
        def run() -> None:
            with budget.held(count):
                order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.05)
        return thread

    threads = [take("fits not yet", 5), take("too large", 50), take("would fit", 1)]
    assert order == []  # nothing overtakes
    budget.give_back(6)
    for thread in threads:
        thread.join(5)
    assert order == ["fits not yet", "too large", "would fit"]


def test_memory_in_use_never_exceeds_the_budget() -> None:
    budget, lock, held, most = Budget(100), threading.Lock(), 0, 0

    def use(count: int) -> None:
        nonlocal held, most
        with budget.held(count):
            with lock:
                held += count
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= count

    threads = [threading.Thread(target=use, args=(10 + number % 40,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 50 < most <= 100


def test_nothing_begins_to_decode_while_the_model_computes_but_reading_goes_on() -> None:
    read, decoded = threading.Event(), threading.Event()

    def content() -> bytes:
        read.set()
        return b"12"

    def decode(found: bytes) -> bytes:
        decoded.set()
        return found * 2

    with Workers(2) as workers:
        with workers.paused():
            future = workers.read_and_decode(content, 2, decode)
            assert read.wait(5)
            assert not decoded.wait(0.1)
        assert future.result(5) == b"1212"


def test_torch_computes_with_one_thread_in_each_decoding_thread_and_as_before_elsewhere() -> None:
    earlier = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Workers(2) as workers:
            assert workers.decode(torch.get_num_threads).result(5) == 1
            assert torch.get_num_threads() == 3
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join(5)
        assert found == [3]
    finally:
        torch.set_num_threads(earlier)


def test_errors_of_reading_and_of_decoding_reach_the_future() -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("broken")

    with Workers(1) as workers:
        for future in (
            workers.read_and_decode(fail, None, len),
            workers.read_and_decode(bytes, None, fail),
            workers.decode(fail),
        ):
            with pytest.raises(ValueError, match="broken"):
                future.result(5)


def test_contents_that_need_an_order_are_read_in_it() -> None:
    order: list[int] = []

    def content(number: int) -> bytes:
        time.sleep(0.002 * (number % 3))
        order.append(number)
        return b""

    with Workers(4) as workers:
        futures = [
            workers.read_and_decode(lambda n=number: content(n), 0, len, in_order=True)  # type: ignore[misc]
            for number in range(40)
        ]
        assert [future.result(5) for future in futures] == [0] * 40
    assert order == list(range(40))


def test_what_waits_is_dropped_at_the_end() -> None:
    started: list[int] = []

    def slow(number: int) -> None:
        started.append(number)
        time.sleep(0.05)

    with Workers(1) as workers:
        for number in range(100):
            workers.decode(lambda n=number: slow(n))  # type: ignore[misc]
    assert len(started) < 5
