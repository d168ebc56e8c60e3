"""Which partitions this worker owns, as of which assignment: what decides whether a batch may still become final.

Partitions come and go while batches are under way, and the broker does not help: it checks that a commit's member and generation
are current, not that the member owns the partition. So each batch carries the tokens its partitions had when its rows were polled,
and its commit asks `Ownership.holding` first, under the one lock that a revocation also takes.

The member's metadata is captured in the poll's thread and nowhere else. Read at commit time it may be a new generation's, in which
the partition belongs to another worker; or, after the session was lost, nobody's, which the broker takes without any check.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Tokens = Mapping[int, int]  # by partition


class Ownership:
    """Tokens of the partitions owned now. A token is never used twice, so a partition that left and came back is told apart.

    The source's thread grants, revokes and captures; the commit's thread holds.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tokens: dict[int, int] = {}
        self._granted = 0
        self._member: Any = None

    def grant(self, partition: int) -> int:
        """A new token for a partition: what was derived under an older one is void."""
        with self._lock:
            self._granted += 1
            self._tokens[partition] = self._granted
            return self._granted

    def revoke(self, partition: int, timeout_seconds: float = -1) -> bool:
        """The partition is not ours any more. Waits for a commit that is under way; False when that took longer, and nothing changed."""
        if not self._lock.acquire(timeout=timeout_seconds):
            return False
        try:
            self._tokens.pop(partition, None)
        finally:
            self._lock.release()
        return True

    def void(self, tokens: Tokens) -> None:
        """What was derived under these tokens is void."""
        with self._lock:
            self._tokens = {p: token for p, token in self._tokens.items() if tokens.get(p) != token}

    def capture(self, member: Any) -> None:
        """Remember the member's metadata, read in the poll's thread: after a poll, or inside a rebalance callback.

        There the group can't move on before the callback returns, so batches that a graceful revocation waits for may commit with it.
        """
        self._member = member  # no lock: a commit under way keeps the one it began with

    def tokens(self) -> dict[int, int]:
        """Token by partition, now."""
        return dict(self._tokens)

    def current(self, tokens: Tokens) -> bool:
        """Whether every partition is still ours under the token given."""
        return all(self._tokens.get(partition) == token for partition, token in tokens.items())

    def kept(self, tokens: Tokens) -> dict[int, int]:
        """Those of the partitions that are still ours under the token given."""
        return {partition: token for partition, token in tokens.items() if self._tokens.get(partition) == token}

    @contextmanager
    def holding(self, tokens: Tokens) -> Iterator[Any]:
        """Hold partitions while a batch of theirs is committed: yields the member to commit as, or None if they are not ours any more."""
        with self._lock:
            yield self._member if self.current(tokens) else None


class InFlight:
    """Counts the batches between source and commit, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._changed = threading.Condition()

    def room(self, timeout_seconds: float, most: int | None = None) -> bool:
        """Wait until there is room for one more, of `most` if that is fewer than the limit; False when there was none in time."""
        limit = self._limit if most is None else min(most, self._limit)
        with self._changed:
            return self._changed.wait_for(lambda: self._count < limit, timeout_seconds)

    def enter(self) -> None:
        """Count one more. Only the source enters, so room seen is room kept."""
        with self._changed:
            self._count += 1

    def leave(self) -> None:
        """Count one less."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def drained(self, timeout_seconds: float) -> bool:
        """Wait until no batch is under way; False when some still are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_seconds)

    def __len__(self) -> int:
        return self._count
