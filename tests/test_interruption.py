"""Ctrl-C is a request to stop; a second one, later, is not."""

import signal
import threading
import time

import pytest

from hfclip import interruption
from hfclip.interruption import interrupts_deferred, stop_request

pytestmark = pytest.mark.usefixtures("usual_interrupts")


def test_the_first_signal_sets_the_event_and_the_handlers_come_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with stop_request() as event:
            assert not event.is_set()
            signal.raise_signal(number)
            assert event.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capsys.readouterr().err.count("Ends after this step") == 2


def test_a_repeated_signal_of_torchrun_is_the_same_and_a_later_one_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stop_request() as event:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert event.is_set()
        monkeypatch.setattr(interruption, "_SAME", 0.0)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request() as event:
            signal.raise_signal(signal.SIGINT)
            assert not event.is_set()
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_another_thread_has_no_signals() -> None:
    found: list[bool] = []

    def train() -> None:
        with stop_request() as event:
            found.append(event.is_set())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [False]


def test_an_interrupt_is_handled_at_the_next_request_and_at_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    done: list[object] = []

    def work(*, ask: bool) -> None:
        with interrupts_deferred() as deliver:
            deliver()
            signal.raise_signal(signal.SIGINT)
            done.append(ask)
            if ask:
                deliver()
                done.append("not reached")

    for ask in (True, False):
        with pytest.raises(KeyboardInterrupt):
            work(ask=ask)
    assert done == [True, False]
    assert signal.getsignal(signal.SIGINT) == before


def test_a_handler_that_does_not_raise_lets_the_block_go_on() -> None:
    received: list[int] = []
    earlier = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        with interrupts_deferred() as deliver:
            signal.raise_signal(signal.SIGINT)
            assert received == []
            deliver()
            assert received == [signal.SIGINT]
        assert received == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interrupts_deferred():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, earlier)
