"""A link: a TCP proxy before one server, through which the workers reach it, and which can be cut, slowed, frozen or half closed.

    worker ──▶ link ──▶ broker or Redis

Bytes are passed on as they come; what a fault does, it does between them.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

READ_BYTES = 1 << 16
LOOK_SECONDS = 0.05
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: the other end hears of a reset, not of an end


@dataclass(eq=False)
class _Passage:
    """One client's way through."""

    client: socket.socket
    server: socket.socket
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_closed: bool = False

    def close(self, *, reset: bool = False) -> None:
        with self.lock:
            if self.is_closed:
                return  # whoever came first has said how
            self.is_closed = True
        for end in (self.client, self.server):
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # A thread that still reads keeps a closed socket open: it has to be woken, without a word to the other end.
                end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            with suppress(OSError):
                end.close()


class Link:
    """A proxy on a port of its own.

    Args:
        port: the server's, on this machine; may be set later.
    """

    def __init__(self, port: int = 0) -> None:
        self.server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self._passages: set[_Passage] = set()
        self._may_pass = threading.Event()  # cleared: nothing passes, and nobody hears of it
        self._may_pass.set()
        self._answers_pass = threading.Event()  # cleared: what is asked arrives, the answers don't
        self._answers_pass.set()
        self._delay_seconds = 0.0
        self._refuses = False
        self._ended = False
        self._thread = threading.Thread(target=self._welcome, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where clients find it."""
        return int(self._listener.getsockname()[1])

    # --- faults ---

    def cut(self, *, reset: bool, share: float = 1.0) -> int:
        """End connections, as a server that goes does or with a reset; all, or the oldest so many of them; how many they were."""
        with self._lock:
            gone = sorted(self._passages, key=id)
            gone = gone[: max(round(len(gone) * share), 1)]
            self._passages.difference_update(gone)
        for passage in gone:
            passage.close(reset=reset)
        return len(gone)

    def freeze(self, frozen: bool) -> None:
        """Let nothing pass, while every connection stays; or go on."""
        self._may_pass.clear() if frozen else self._may_pass.set()

    def swallow_answers(self, swallowed: bool) -> None:
        """Let what is asked through, and no answer: half-open; or go on."""
        self._answers_pass.clear() if swallowed else self._answers_pass.set()

    def slow_down(self, seconds: float) -> None:
        """Hold every stretch of bytes back so long; 0 = none."""
        self._delay_seconds = seconds

    def refuse(self, refused: bool) -> None:
        """End connections as soon as they are made; or take them again."""
        self._refuses = refused

    def heal(self) -> None:
        """Take back whatever was done and lasts."""
        self.slow_down(0.0)
        self.refuse(False)
        self.swallow_answers(False)
        self.freeze(False)

    def close(self) -> None:
        """End it, and every connection."""
        self._ended = True
        self.heal()
        self._thread.join()
        self._listener.close()
        self.cut(reset=True)

    # --- passing on ---

    def _welcome(self) -> None:
        while not self._ended:
            if not select.select([self._listener], [], [], LOOK_SECONDS)[0]:
                continue
            client, _ = self._listener.accept()
            if self._refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), 5.0)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(None)
            passage = _Passage(client, server)
            with self._lock:
                self._passages.add(passage)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(passage, source, sink), daemon=True).start()

    def _pass_on(self, passage: _Passage, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(READ_BYTES):
                self._may_pass.wait()
                if source is passage.server:
                    self._answers_pass.wait()
                if self._delay_seconds:
                    time.sleep(self._delay_seconds)
                sink.sendall(data)
        except OSError:
            pass  # cut, by a fault or by one of the two
        with self._lock:
            self._passages.discard(passage)
        passage.close()
