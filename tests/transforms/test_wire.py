"""One connection, against the other end of a socket pair."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.errors import StoreDown
from transforms.resp import command
from transforms.wire import Wire, WireCut


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Wire]]:
    near, far = socket.socketpair()
    wire = Wire(near, "redis at the other end", 2.0, near.close)
    yield far, wire
    wire.close()
    far.close()


def test_a_server_that_takes_nothing_until_its_answers_are_taken_does_not_stop_a_large_write(ends: tuple[socket.socket, Wire]) -> None:
    far, wire = ends
    ping, count = command(b"PING"), 400_000

    def answer() -> int:
        taken = 0
        while taken < count * len(ping) and (data := far.recv(len(ping) * 1000, socket.MSG_WAITALL)):
            far.sendall(b"+PONG\r\n" * (len(data) // len(ping)))  # waits for whoever does not read
            taken += len(data)
        return taken

    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(answer)
        wire.send(ping * count, count)
        replies = wire.receive()
        assert answered.result() == count * len(ping)
    assert len(replies) == count
    assert replies.error() is None


def test_an_answer_that_comes_byte_by_byte_is_put_together(ends: tuple[socket.socket, Wire]) -> None:
    far, wire = ends
    said = b"*3\r\n$5\r\na\r\nbc\r\n$-1\r\n:12\r\n-ERR no\r\n*-1\r\n*0\r\n"
    wire.send(command(b"PING"), 4)

    def say() -> None:
        for octet in range(len(said)):
            far.sendall(said[octet : octet + 1])

    with ThreadPoolExecutor(1) as pool:
        pool.submit(say)
        replies = wire.receive()
    assert bytes(replies.kinds) == b"*$_:-_*"
    assert list(replies)[:4] == [b"a\r\nbc", None, b"12", b"ERR no"]
    assert replies.error() == "ERR no"


def test_a_connection_that_ends_is_cut_and_stays_closed(ends: tuple[socket.socket, Wire]) -> None:
    far, wire = ends
    wire.send(command(b"PING"), 1)
    far.recv(100)
    far.close()
    with pytest.raises(WireCut, match="closed the connection"):
        wire.receive()
    assert not wire.is_open


@pytest.mark.parametrize("said", [b"HTTP/1.1 200\r\n", b"$x\r\n", b"*-\xff\r\n", b"+one\r\n+too many\r\n", b"$99999999999999\r\n"])
def test_what_is_no_answer_is_told(ends: tuple[socket.socket, Wire], said: bytes) -> None:
    far, wire = ends
    wire.send(command(b"PING"), 1)
    far.sendall(said)
    with pytest.raises(StoreDown, match="no answer"):
        wire.receive()
    assert not wire.is_open


def test_a_server_that_takes_nothing_is_given_up_on() -> None:
    near, far = socket.socketpair()
    wire = Wire(near, "redis at the other end", 0.05, near.close)
    with pytest.raises(StoreDown, match=r"within 0\.05 s"):
        wire.send(bytes(10_000_000), 1)
    assert not wire.is_open
    far.close()
