"""One connection to a server: bytes out, replies in, and never both waiting for each other.

A connection that failed in any way is closed and stays closed. It neither reconnects nor repeats: whether what was sent had an
effect is open then, and only who sent it can find that out.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable

from schemas.columns import Octets
from schemas.errors import StoreDown
from transforms.resp import GarbledError, Incoming, Replies

_CHUNK_BYTES = 1 << 18
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


_ON_ITS_WAY = ("ASK", "TRYAGAIN")


class WireCut(StoreDown):
    """The connection ended. Whether what was sent had an effect is open; a new connection may answer at once."""


class Wire:
    """A connection; one exchange at a time.

    Args:
        sock: connected and authenticated; with no answer outstanding.
        address: for errors.
        answer_timeout_seconds: how long to wait while nothing at all comes or goes.
        close: ends the connection.
        moved: is told where else a cluster's node sends us, in its words.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        answer_timeout_seconds: float,
        close: Callable[[], None],
        moved: Callable[[str], None] | None = None,
    ) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._address = address
        self._timeout_seconds = answer_timeout_seconds
        self._close = close
        self._moved = moved
        self._poll = select.poll()
        self._incoming: Incoming | None = None
        self.is_open = True

    @property
    def is_waiting(self) -> bool:
        """Whether it is open, with replies outstanding."""
        return self.is_open and self._incoming is not None

    def ask(self, payload: bytes, replies: int) -> Replies:
        """Send commands and wait for their replies.

        Raises:
            StoreDown: as for `send` and `receive`, or a reply is an error: its words are in the message.
        """
        self.send(payload, replies)
        found = self.receive()
        refusal = found.error()
        if refusal is not None:
            raise self.refused(refusal)
        return found

    def send(self, payload: bytes | Octets, replies: int, elements: int = 64) -> None:
        """Send commands; their `replies` are read by `receive`, and by this call as far as they come while it sends.

        Raises:
            WireCut: the connection ended.
            StoreDown: the other side takes nothing.
        """
        assert self._incoming is None, "the replies to the last exchange have not been read"
        self._incoming = Incoming(replies, elements)
        rest = memoryview(payload) if isinstance(payload, bytes) else payload.data
        while len(rest):
            try:
                rest = rest[self._sock.send(rest[:_CHUNK_BYTES]) :]
            except _WOULD_WAIT:
                # A server, or a proxy in between, may stop taking commands until the replies to earlier ones are taken.
                self._wait(select.POLLIN | select.POLLOUT)
                self._drain()
            except OSError as error:
                raise self._cut(f"sending failed: {error}") from error
            if len(rest) and self._incoming.is_complete:
                raise self._garbled("all replies came before the commands were sent")

    def receive(self) -> Replies:
        """Wait for the outstanding replies.

        Raises:
            WireCut: the connection ended.
            StoreDown: no answer in time, or none that was asked for.
        """
        assert self._incoming is not None, "nothing was sent"
        self._drain()
        while not self._incoming.is_complete:
            self._wait(select.POLLIN)
            self._drain()
        found, self._incoming = self._incoming.replies(), None
        return found

    def refused(self, words: str, wanted: str = "") -> StoreDown:
        """Close, since no more can be said to this server now; what to raise."""
        self.close()
        if self._moved is not None:
            reason = words.partition(" ")[0]
            if reason == "MOVED":
                self._moved(words)
                return WireCut(f"{self._address} keeps this no more: {words}")
            if reason in _ON_ITS_WAY:
                return StoreDown(f"{self._address}: a slot is on its way to another node, and waited for: {words}")
        return StoreDown(f"{self._address} refuses{' to ' + wanted if wanted else ''}: {words}")

    def close(self) -> None:
        """End the connection."""
        self.is_open = False
        self._close()

    def _drain(self) -> None:
        """Take what has come, without waiting."""
        incoming = self._incoming
        assert incoming is not None
        while not incoming.is_complete:
            try:
                size_bytes = self._sock.recv_into(incoming.room())
            except _WOULD_WAIT:
                return
            except OSError as error:
                raise self._cut(f"reading failed: {error}") from error
            if size_bytes == 0:
                raise self._cut("it closed the connection")
            try:
                incoming.take(size_bytes)
            except GarbledError as error:
                raise self._garbled(str(error)) from error

    def _wait(self, events: int) -> None:
        self._poll.register(self._sock, events)
        if not self._poll.poll(self._timeout_seconds * 1000):
            self.close()
            raise StoreDown(f"{self._address} did not answer within {self._timeout_seconds:g} s")

    def _garbled(self, what: str) -> StoreDown:
        self.close()
        return StoreDown(f"{self._address} answers what is no answer: {what}")

    def _cut(self, what: str) -> WireCut:
        self.close()
        return WireCut(f"{self._address}: {what}")
