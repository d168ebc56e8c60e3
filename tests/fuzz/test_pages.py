"""The worker's pages, asked by whoever can reach them: nonsense, endless headers, and connections that never say anything."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.frame import Frame, Line, Page
from streams.local.process import choose_port, listens
from streams.pages import MOST_CONNECTIONS

TIMEOUT_SECONDS = 10.0


class Served:
    """A frame that serves a page and carries nothing."""

    def __init__(self) -> None:
        self.port = choose_port(None)
        self.ended = threading.Event()
        pages = [Page("/livez", lambda: (200, "application/json", b'{"status": "ok"}'))]
        self.frame = Frame("pages", self.prepare, pages, "127.0.0.1", self.port, 1)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.frame.run()))
        self.thread.start()
        end = time.monotonic() + TIMEOUT_SECONDS
        while not listens(self.port):
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.01)

    def prepare(self) -> list[Line]:  # the pages answer meanwhile
        self.ended.wait()
        return []

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)

    def said_to(self, request: bytes, ends: bool = True) -> bytes:
        """All that is answered until the connection is closed; `ends`: by us first."""
        with self.open() as connection:
            try:
                connection.sendall(request)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65_536), b""))
            except OSError:
                return b""  # it hung up on us

    def get(self, path: str) -> tuple[int, bytes]:
        answer = self.said_to(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), ends=False)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def is_well(self) -> bool:
        return self.get("/livez") == (200, b'{"status": "ok"}')


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.ended.set()
    made.thread.join(TIMEOUT_SECONDS)
    assert not made.thread.is_alive()


LINES = st.sampled_from(
    [
        b"GET /livez HTTP/1.1",
        b"GET /livez HTTP/9.9",
        b"POST /livez HTTP/1.1",
        b"GET //\xff\xfe HTTP/1.1",
        b"GET /%00%ff%zz HTTP/1.1",
        b"",
        b"\0",
    ]
)
HEADERS = st.sampled_from(
    [
        b"Host: x", b"Host: x\r\nHost: y", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked",
        b": x", b"\xff: \xff", b" x", b"Upgrade: h2c",
    ]
)  # fmt: skip


@settings(max_examples=100)
@given(
    request=st.binary(max_size=200)
    | st.builds(
        lambda line, headers, body: b"\r\n".join([line, *headers, b"", body]), LINES, st.lists(HEADERS, max_size=4), st.binary(max_size=50)
    )
)
def test_whatever_is_asked_is_answered_or_hung_up_on_and_the_next_one_is_served(served: Served, request: bytes) -> None:
    answer = served.said_to(request)
    assert not answer or answer.startswith(b"HTTP/1.")
    assert b"Traceback" not in answer
    assert served.is_well()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X" * 1_000_000,
    ],
    ids=["path", "value", "many", "name"],
)
def test_endless_headers_are_refused(served: Served, request_: bytes) -> None:
    answer = served.said_to(request_, ends=False)
    assert not answer or answer.split()[1] == b"400"
    assert served.is_well()


def test_whoever_opens_many_connections_and_says_little_keeps_nobody_out(served: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    slow = [served.open() for _ in range(5 * MOST_CONNECTIONS)]
    try:
        for connection in slow:
            try:
                connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow")
            except OSError:
                pass  # the oldest have made room
        assert served.is_well()
        ours = len(slow)
        assert len(os.listdir("/proc/self/fd")) - before - ours <= MOST_CONNECTIONS + 1
    finally:
        for connection in slow:
            connection.close()


def test_there_are_no_pages_but_ours(served: Served) -> None:
    for path in ("/", "/router/", "/router/a/b", "/table/", "/tables/", "/stats/", "/graph/", "/metrics/", "/static/", "/../etc/passwd"):
        status, body = served.get(path)
        assert status == 404, path
        assert len(body) < 200
    assert json.loads(served.get("/livez")[1]) == {"status": "ok"}
