"""What we lean on Faust for: order, pages, and that a broken step ends the worker."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace

import pytest

from streams.batch import Batch
from streams.frame import Frame, Line, Page
from tests.streams.batches import batch_of

SECONDS = 20


class Stand:
    """A frame with three steps, and a source that hands on some batches and waits until they are through, or until it is stopped."""

    def __init__(self, batches: int, middle: Callable[[Batch], Batch] = lambda batch: batch, at_a_time: int = 50) -> None:
        self.passed: list[tuple[str, int]] = []
        self.through = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.answer = b""
        self.batches = batches
        self.room = threading.Semaphore(at_a_time)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        steps = [("first", self._step("first")), ("middle", middle), ("last", self._step("last", self._leave))]
        page = Page("/livez", lambda: (503, "application/json", b'{"status": "failing"}'))
        self.lines = [Line("one", steps, self._source, self.stopped.set)]
        self.frame = Frame("test", lambda: self.lines, [page], "127.0.0.1", self.port, at_a_time)

    def run(self) -> None:
        asyncio.run(asyncio.wait_for(self.frame.run(), SECONDS))

    def _step(self, name: str, then: Callable[[], None] = lambda: None) -> Callable[[Batch], Batch]:
        def step(batch: Batch) -> Batch:
            self.passed.append((name, batch.spans[0].first_offset))
            then()
            return batch

        return step

    def _leave(self) -> None:
        self.room.release()
        self.through.release()

    def _source(self) -> None:
        for number in range(self.batches):
            self.room.acquire()
            self.frame.hand_on("one", batch_of([b"x"], first_offset=number))
        for _ in range(self.batches):
            while not self.through.acquire(timeout=0.05):
                if self.stopped.is_set():
                    return
        with pytest.raises(urllib.error.HTTPError) as answered:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/livez", timeout=5)
        self.answer = answered.value.read()


def test_every_batch_passes_every_step_in_the_order_it_was_handed_on() -> None:
    line = Stand(batches=50)
    line.run()
    for name in ("first", "last"):
        assert [offset for step, offset in line.passed if step == name] == list(range(50))


def test_batches_handed_on_side_by_side_never_overtake_each_other() -> None:
    line = Stand(batches=4_000, at_a_time=3)
    line.run()
    assert [offset for step, offset in line.passed if step == "last"] == list(range(4_000))


def test_a_batch_that_is_alone_passes_all_steps_in_one_thread() -> None:
    stand = Stand(batches=0)
    seen: list[tuple[str, int, str]] = []
    passed = threading.Event()

    def step(name: str) -> tuple[str, Callable[[Batch], Batch]]:
        def run(batch: Batch) -> Batch:
            seen.append((name, batch.spans[0].next_offset, threading.current_thread().name))
            if name == "last":
                passed.set()
            return replace(batch, spans=(replace(batch.spans[0], next_offset=batch.spans[0].next_offset + 1),))

        return name, run

    def source() -> None:
        for first, alone in ((10, True), (20, False), (30, True)):
            stand.frame.hand_on("one", batch_of([b"x"], first_offset=first), alone)
            assert passed.wait(SECONDS)
            passed.clear()

    stand.lines = [Line("one", [step("first"), step("middle"), step("last")], source, lambda: None)]
    stand.run()
    assert [(name, at) for name, at, _ in seen] == [
        (name, at + place) for at in (11, 21, 31) for place, name in enumerate(("first", "middle", "last"))
    ], "each step is given what the one before made"
    threads = [thread for _, _, thread in seen]
    assert len(set(threads[:3] + threads[6:])) == 1
    assert len(set(threads)) == 4


def test_a_step_that_breaks_on_a_batch_that_is_alone_is_what_the_run_raises() -> None:
    stand = Stand(batches=0)
    stopped = threading.Event()
    later: list[Batch] = []

    def broken(batch: Batch) -> Batch:
        raise ZeroDivisionError("division by zero")

    def source() -> None:
        stand.frame.hand_on("one", batch_of([b"x"]), True)
        assert stopped.wait(SECONDS)

    def collect(batch: Batch) -> Batch:
        later.append(batch)
        return batch

    stand.lines = [Line("one", [("first", broken), ("last", collect)], source, stopped.set)]
    with pytest.raises(ZeroDivisionError):
        stand.run()
    assert not later


def test_pages_answer_while_batches_pass_with_status_and_body() -> None:
    line = Stand(batches=1)
    line.run()
    assert line.answer == b'{"status": "failing"}'


def test_a_step_that_breaks_stops_the_source_and_is_what_the_run_raises() -> None:
    def broken(batch: Batch) -> Batch:
        if batch.spans[0].first_offset == 3:
            raise ZeroDivisionError("division by zero")
        return batch

    line = Stand(batches=5, middle=broken)
    with pytest.raises(ZeroDivisionError):
        line.run()
    assert line.stopped.is_set()
    assert ("last", 3) not in line.passed


def test_a_source_that_breaks_is_what_the_run_raises() -> None:
    line = Stand(batches=0)
    line.lines = [replace(line.lines[0], source=lambda: (_ for _ in ()).throw(KeyError("no such topic")))]
    with pytest.raises(KeyError):
        line.run()


def test_lines_run_side_by_side_and_the_end_of_one_leaves_the_other_running() -> None:
    stand = Stand(batches=3)
    seen: list[tuple[str, int]] = []

    def other(batch: Batch) -> Batch:
        seen.append((threading.current_thread().name, batch.spans[0].first_offset))
        return batch

    def ends_at_once() -> None:
        stand.frame.hand_on("two", batch_of([b"x"], first_offset=70))

    stand.lines.append(Line("two", [("first", other)], ends_at_once, lambda: None))
    stand.run()
    assert seen == [("two.first_0", 70)]
    assert [offset for step, offset in stand.passed if step == "last"] == [0, 1, 2]


def test_a_step_that_breaks_in_one_line_abandons_the_others() -> None:
    stand = Stand(batches=0)
    abandoned = threading.Event()

    def broken(batch: Batch) -> Batch:
        raise ZeroDivisionError("division by zero")

    def waits() -> None:
        stand.frame.hand_on("two", batch_of([b"x"]))
        assert abandoned.wait(SECONDS)

    stand.lines = [
        Line("one", [("first", lambda batch: batch)], waits, abandoned.set),
        Line("two", [("first", broken)], waits, abandoned.set),
    ]
    with pytest.raises(ZeroDivisionError):
        stand.run()
    assert abandoned.is_set()


def test_what_goes_wrong_in_the_preparation_is_what_the_run_raises() -> None:
    stand = Stand(batches=0)
    stand.lines = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        stand.run()
