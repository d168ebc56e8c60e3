"""A TCP proxy before a server's unix socket that cuts connections at chosen points of what passes through it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WAIT_SECONDS = 10.0


@dataclass(slots=True)
class Passage:
    """One client's way through the proxy."""

    client: socket.socket
    server: socket.socket
    seen: bytearray = field(default_factory=bytearray)  # from the client, not yet passed on
    is_open: bool = True

    def cut(self) -> None:
        self.is_open = False
        self.client.close()
        self.server.close()

    def server_says(self, wanted: bytes) -> bytes:
        """Wait until the server's answer has this in it; all it said."""
        said = b""
        end = time.monotonic() + WAIT_SECONDS
        while wanted not in said:
            assert time.monotonic() < end, f"no {wanted!r} in {said!r}"
            if select.select([self.server], [], [], 0.1)[0]:
                said += self.server.recv(1 << 16)
        return said


Deed = Callable[[Passage, bytes], None]  # what to do with the bytes from the mark on


class CuttingProxy:
    """Passes everything on, until a mark comes by from a client: then the next planned deed is done, once."""

    def __init__(self, server_socket: Path) -> None:
        self._server_socket = server_socket
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._plan: deque[tuple[bytes, Deed]] = deque()
        self._held: list[tuple[Passage, bytes]] = []
        self.late_answers: list[bytes] = []
        self.connections = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def is_done(self) -> bool:
        """Whether all that was planned has happened."""
        return not self._plan

    def cut_before(self, mark: bytes) -> None:
        """The mark and what follows it never arrive, and the connection ends."""
        self._plan.append((mark, lambda passage, _: passage.cut()))

    def cut_after(self, mark: bytes, answer: bytes) -> None:
        """All arrives and is answered, but the connection ends before the client hears of it."""

        def deed(passage: Passage, rest: bytes) -> None:
            passage.server.sendall(rest)
            passage.server_says(answer)
            passage.cut()

        self._plan.append((mark, deed))

    def hold(self, mark: bytes) -> None:
        """The client's connection ends, while the mark and what follows it are still on their way: until `let_go`."""

        def deed(passage: Passage, rest: bytes) -> None:
            passage.is_open = False
            passage.client.close()
            self._held.append((passage, rest))

        self._plan.append((mark, deed))

    def let_go_before(self, mark: bytes, answer: bytes) -> None:
        """What is held arrives just before a later mark does."""

        def deed(passage: Passage, rest: bytes) -> None:
            self.let_go(answer)
            passage.server.sendall(rest)

        self._plan.append((mark, deed))

    def do_before(self, mark: bytes, do: Callable[[], object]) -> None:
        """Something else happens just before the mark arrives."""

        def deed(passage: Passage, rest: bytes) -> None:
            do()
            passage.server.sendall(rest)

        self._plan.append((mark, deed))

    def let_go(self, answer: bytes) -> None:
        """What is held arrives now, and is answered; what is still on its way here is waited for."""
        end = time.monotonic() + WAIT_SECONDS
        while not self._held and time.monotonic() < end:
            time.sleep(0.001)
        for passage, rest in self._held:
            passage.server.sendall(rest)
            self.late_answers.append(passage.server_says(answer))
            passage.server.close()
        self._held.clear()

    def close(self) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        passages: list[Passage] = []
        while not self._ended:
            passages = [p for p in passages if p.is_open]
            ends: dict[socket.socket, Passage] = {p.client: p for p in passages} | {p.server: p for p in passages}
            for ready in select.select([self._listener, *ends], [], [], 0.02)[0]:
                if ready is self._listener:
                    passages.append(self._welcome())
                elif ends[ready].is_open:
                    self._pass_on(ready, ends[ready])
        for passage in passages:
            passage.cut()
        for passage, _ in self._held:
            passage.server.close()
        self._listener.close()

    def _welcome(self) -> Passage:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server_socket))
        self.connections += 1
        return Passage(client, server)

    def _pass_on(self, ready: socket.socket, passage: Passage) -> None:
        try:
            data = ready.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            passage.cut()
        elif ready is passage.server:
            passage.client.sendall(data)
        else:
            self._from_client(passage, data)

    def _from_client(self, passage: Passage, data: bytes) -> None:
        data = bytes(passage.seen) + data
        passage.seen.clear()
        if self._plan:
            mark, deed = self._plan[0]
            at = data.find(mark)
            if at >= 0:
                self._plan.popleft()
                passage.server.sendall(data[:at])
                deed(passage, data[at:])
                return
            # The end may be the beginning of the mark.
            kept = next((n for n in range(min(len(mark), len(data)), 0, -1) if mark.startswith(data[-n:])), 0)
            passage.seen += data[len(data) - kept :]
            data = data[: len(data) - kept]
        if data:
            passage.server.sendall(data)


@contextmanager
def cutting_proxy(server_socket: Path) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server_socket)
    try:
        yield proxy
    finally:
        proxy.close()
