"""Calls that may never come back."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from streams.bounded_call import BoundedCalls, CallStuck


def test_a_call_gives_what_it_returns_and_raises_what_it_raises() -> None:
    calls = BoundedCalls("test")
    assert calls(lambda: 3, 5) == 3
    with pytest.raises(TimeoutError, match="its own"):
        calls(raising(TimeoutError("its own")), 5)
    assert not calls.stuck
    calls.close()


def test_a_call_that_does_not_come_back_is_given_up_and_so_are_those_after_it() -> None:
    calls, released = BoundedCalls("test"), threading.Event()
    with pytest.raises(CallStuck):
        calls(released.wait, 0.01)
    with pytest.raises(CallStuck, match="earlier"):
        calls(lambda: 3, 5)
    assert calls.stuck
    released.set()
    calls.close()


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call
