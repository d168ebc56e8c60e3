"""Calls into the client that may never come back, made in a thread of their own, so that the caller can give them up.

Seen with librdkafka 2.16: after its broker was killed and started again, a call that was given two seconds to send offsets to a
transaction did not return at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class CallStuck(Exception):
    """A call did not come back; nobody knows what became of it, and its thread makes no other call."""


class BoundedCalls:
    """Makes one call after the other in a daemon thread, which ends with the process whatever it is doing.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self.stuck = False
        self._asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def __call__(self, call: Callable[[], T], seconds: float) -> T:
        """What the call returns or raises.

        Raises:
            CallStuck: it did not come back in time, or one before it did not.
        """
        if self.stuck:
            raise CallStuck("an earlier call did not come back")
        answer: Future[T] = Future()
        self._asked.put((call, answer))
        try:
            return answer.result(seconds)
        except TimeoutError:
            if answer.done():  # the call's own
                raise
            self.stuck = True
            raise CallStuck(f"no answer within {seconds:.0f} s") from None

    def close(self) -> None:
        """End the thread, once it is idle."""
        self._asked.put(None)

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            call, answer = asked
            try:
                answer.set_result(call())
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is the caller's
                answer.set_exception(error)
            del asked, call, answer
