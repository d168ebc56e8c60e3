"""Work ahead: the next items are made in another thread while the last ones are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_SECONDS = 0.1


class _End:
    """The last thing handed over: why there is no more."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[Item], most: int = 2) -> Iterator[Item]:
    """The same items in the same order, up to `most` of them made ahead in a thread of their own.

    What making them raises is raised here, at its place in the order. Where this is closed early, so is the thread.
    """
    handed: queue.Queue[Item | _End] = queue.Queue(most)
    stopped = threading.Event()

    def hand(item: Item | _End) -> None:
        while not stopped.is_set():
            try:
                handed.put(item, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                hand(item)
                if stopped.is_set():
                    return
        except BaseException as raised:  # noqa: BLE001 - it is raised again, in the thread that asked for the items
            error = raised
        hand(_End(error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := handed.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
