"""The frame: a Faust app whose agents carry batches from the sources to the commits. The one door to faust and mode.

Faust gives supervision, the web pages, start and stop order; its own Kafka client stays off. One channel item is one batch, so
that an event costs nothing here. Each stage is a line of its own:

        source ──▶ [extract] ──▶ [transform] ──▶ [score] ──▶ [load]       large batches overlap: each agent runs its step
        thread │    agent         agent           agent       agent       in a thread of its own
               └─▶ [all of them, one after the other]                     one that is alone has nobody to overlap with:
                    agent                                                 a hand-over less for each step
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import faust
from faust.app.base import BootStrategy
from faust.web import Response
from mode.supervisors import CrashingSupervisor
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streams.batch import Batch
from streams.pages import PagesWeb

log = logging.getLogger(__name__)

T = TypeVar("T")

# A thread that packs or produces records holds the interpreter in a plain loop; the others' batches should not wait 5 ms for it each time.
SWITCH_SECONDS = 0.0005


class BatchChannel(faust.Channel[Batch]):
    """A channel of batches that nothing suspends or wipes.

    Faust's own channels hold everything back until Faust's consumer has partitions, and are emptied whenever those change; ours has
    no such consumer.
    """

    @property
    def queue(self) -> ThrowableQueue[Batch]:
        """What the batches wait in."""
        if self._queue is None:
            self._queue = ThrowableQueue(
                maxsize=self.maxsize or 1, flow_control=FlowControlEvent(initially_suspended=False), clear_on_resume=False
            )
        return self._queue


class WithoutKafka(BootStrategy):
    """Starts agents, services and pages, and no Kafka client."""

    enable_kafka = False


class App(faust.App):
    """A Faust app without Faust's Kafka client."""

    BootStrategy = WithoutKafka

    def _new_web(self) -> PagesWeb:
        return PagesWeb(self)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the worker's web server: its path, and what gives its status, content type and body."""

    path: str
    render: Callable[[], tuple[int, str, bytes]]


@dataclass(frozen=True, slots=True)
class Line:
    """One stage's way through the frame.

    Attributes:
        name: unique in the frame; its agents are called ``<name>.<step>``, and ``<name>.all`` that for batches which are alone.
        steps: name and function of each, the last of which ends a batch's way.
        source: blocks until it is told to stop; runs in a thread of its own.
        abandon: tells it to, without waiting for what is under way.
    """

    name: str
    steps: Sequence[tuple[str, Callable[[Batch], Batch]]]
    source: Callable[[], None]
    abandon: Callable[[], None]


class Frame:
    """Carries batches through the steps of their line, in order, each step in a thread of its own.

    Args:
        name: the app's.
        prepare: makes the lines, once the pages answer; may wait for whatever they need. Runs in a thread of its own.
        pages: the web pages.
        in_flight: the most batches between source and last step.
        host, port: where they are served; port 0 = not at all.
    """

    def __init__(
        self, name: str, prepare: Callable[[], Sequence[Line]], pages: Sequence[Page], host: str, port: int, in_flight: int
    ) -> None:
        self._prepare = prepare
        self._in_flight = in_flight
        self._threads: list[ThreadPoolExecutor] = []
        self._lines: Sequence[Line] = ()
        self._firsts: dict[str, BatchChannel] = {}
        self._alls: dict[str, BatchChannel] = {}
        self._loop: asyncio.AbstractEventLoop
        self.app = App(
            name,
            broker="kafka://unused",
            autodiscover=False,
            datadir=Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}-faust",  # stays empty; Faust would make it where we stand
            web_enabled=port > 0,
            web_bind=host,
            web_port=port or 6066,
            loghandlers=[],
        )
        for page in pages:
            self._page(page)

    def hand_on(self, line: str, batch: Batch, alone: bool = False) -> None:
        """Give a line a batch, from its source's thread; those in flight are few, so nothing piles up.

        One that is `alone`, so that none of the line is under way before it has passed, goes through all steps in one thread.
        """
        channel = self._alls[line] if alone else self._firsts[line]
        asyncio.run_coroutine_threadsafe(channel.put(batch), self._loop)  # type: ignore[arg-type]

    async def run(self) -> None:
        """Run until all sources end, or one of them or a step fails.

        Raises:
            BaseException: whatever a step, a source or the preparation raised.
        """
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(SWITCH_SECONDS)
        await self.app.start()
        crashed = asyncio.ensure_future(self._crash())
        try:
            self._lines = await self._in_thread("prepare", self._prepare)
            for line in self._lines:
                await self._start_agents(line)
            gc.collect()
            gc.freeze()  # what stands now stays: looking through it again holds the interpreter for 40 ms each time
            await self._see_through([self._in_thread(f"{line.name}.source", line.source) for line in self._lines], crashed)
        finally:
            crashed.cancel()
            for line in self._lines:
                line.abandon()
            await self.app.stop()
            for thread in self._threads:
                thread.shutdown(wait=False)

    async def _see_through(self, sources: Sequence[asyncio.Future[None]], crashed: asyncio.Future[None]) -> None:
        under_way: set[asyncio.Future[None]] = set(sources)
        while under_way:
            done, _ = await asyncio.wait({*under_way, crashed}, return_when=asyncio.FIRST_COMPLETED)
            if crashed in done:
                raise self.app.crash_reason or RuntimeError("the worker's frame crashed and does not say why")
            for source in done:
                source.result()
            under_way -= done

    def _in_thread(self, name: str, function: Callable[[], T]) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._thread(name), function)

    def _thread(self, name: str) -> ThreadPoolExecutor:
        self._threads.append(ThreadPoolExecutor(1, thread_name_prefix=name))
        return self._threads[-1]

    async def _start_agents(self, line: Line) -> None:
        # Room for all that can be in flight: a put that has to wait may be overtaken by a later one.
        channels = [BatchChannel(self.app, maxsize=self._in_flight) for _ in line.steps]
        self._firsts[line.name] = channels[0]
        for place, (step, function) in enumerate(line.steps):
            following = channels[place + 1] if place + 1 < len(channels) else None
            await self._start_agent(f"{line.name}.{step}", function, channels[place], following)
        functions = [function for _, function in line.steps]

        def all_steps(batch: Batch) -> Batch:
            for function in functions:
                batch = function(batch)
            return batch

        self._alls[line.name] = BatchChannel(self.app, maxsize=1)
        await self._start_agent(f"{line.name}.all", all_steps, self._alls[line.name], None)

    async def _start_agent(self, name: str, step: Callable[[Batch], Batch], channel: BatchChannel, following: BatchChannel | None) -> None:
        thread = self._thread(name)

        async def carry(stream: Any) -> None:
            async for batch in stream:
                done = await self._loop.run_in_executor(thread, step, batch)
                if following is not None:
                    await following.put(done)  # type: ignore[arg-type]

        agent = self.app.agent(channel, name=name, concurrency=1, supervisor_strategy=CrashingSupervisor)(carry)
        await agent.maybe_start()

    def _page(self, page: Page) -> None:
        async def show(view: Any, request: Any) -> Response:
            status, content_type, body = page.render()
            shown: Response = view.bytes(body, content_type=content_type, status=status)
            return shown

        self.app.page(page.path, name=page.path.strip("/"))(show)

    async def _crash(self) -> None:
        while not self.app.crashed:
            await asyncio.sleep(0.1)
