"""The frame: a Faust app whose agents carry batches from the source to the commit. The one door to faust and mode.

Faust gives supervision, the web pages, start and stop order; its own Kafka client stays off. One channel item is one batch, so
that an event costs nothing here.

        source ──▶ [extract] ──▶ [transform] ──▶ [score] ──▶ [load]
        thread      agent         agent           agent       agent       each runs its step in a thread of its own
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.web import Response
from mode.supervisors import CrashingSupervisor
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streams.batch import Batch

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the worker's web server: its path, and what gives its status, content type and body."""

    path: str
    render: Callable[[], tuple[int, str, bytes]]


class Frame:
    """Carries batches through steps, in order, each step in a thread of its own.

    Args:
        name: the app's.
        steps: name and function of each, the last of which ends a batch's way.
        source: blocks until it is told to stop; runs in a thread of its own.
        stop_source: tells it to.
        pages: the web pages.
        in_flight: the most batches between source and last step.
        host, port: where they are served; port 0 = not at all.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[tuple[str, Callable[[Batch], Batch]]],
        source: Callable[[], None],
        stop_source: Callable[[], None],
        pages: Sequence[Page],
        host: str,
        port: int,
        in_flight: int,
    ) -> None:
        self._source = source
        self._stop_source = stop_source
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=step) for step, _ in steps]
        self._source_thread = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._loop: asyncio.AbstractEventLoop
        self.app = App(
            name, broker="kafka://unused", autodiscover=False, web_enabled=port > 0, web_bind=host, web_port=port or 6066, loghandlers=[]
        )
        # Room for all that can be in flight: a put that has to wait may be overtaken by a later one.
        channels = [BatchChannel(self.app, maxsize=in_flight) for _ in steps]
        for place, (step, function) in enumerate(steps):
            following = channels[place + 1] if place + 1 < len(steps) else None
            self._agent(step, function, self._threads[place], channels[place], following)
        self._first = channels[0]
        for page in pages:
            self._page(page)

    def _agent(
        self, name: str, step: Callable[[Batch], Batch], thread: ThreadPoolExecutor, channel: BatchChannel, following: BatchChannel | None
    ) -> None:
        async def carry(stream: Any) -> None:
            async for batch in stream:
                done = await self._loop.run_in_executor(thread, step, batch)
                if following is not None:
                    await following.put(done)  # type: ignore[arg-type]

        self.app.agent(channel, name=name, concurrency=1, supervisor_strategy=CrashingSupervisor)(carry)

    def _page(self, page: Page) -> None:
        async def show(view: Any, request: Any) -> Response:
            status, content_type, body = page.render()
            shown: Response = view.bytes(body, content_type=content_type, status=status)
            return shown

        self.app.page(page.path, name=page.path.strip("/"))(show)

    def hand_on(self, batch: Batch) -> None:
        """Give the first step a batch, from the source's thread; those in flight are few, so nothing piles up."""
        asyncio.run_coroutine_threadsafe(self._first.put(batch), self._loop)  # type: ignore[arg-type]

    async def run(self) -> None:
        """Run until the source ends, or a step fails.

        Raises:
            BaseException: whatever a step or the source raised.
        """
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what stands now stays: looking through it again holds the interpreter for 40 ms each time
        await self.app.start()
        source = self._loop.run_in_executor(self._source_thread, self._source)
        crashed = asyncio.ensure_future(self._crash())
        try:
            await asyncio.wait({source, crashed}, return_when=asyncio.FIRST_COMPLETED)
            if not source.done():
                self._stop_source()
                raise self.app.crash_reason or RuntimeError("the worker's frame crashed and does not say why")
            await source
        finally:
            crashed.cancel()
            await self.app.stop()
            for thread in (*self._threads, self._source_thread):
                thread.shutdown(wait=False)

    async def _crash(self) -> None:
        while not self.app.crashed:
            await asyncio.sleep(0.1)
