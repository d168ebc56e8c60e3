"""A link passes bytes on, and what is done to it is what both ends see."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from streams.faults.link import Link

WAIT_SECONDS = 5.0


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket, socket.socket]]:
    """A link, a client's end and a server's."""
    listener = socket.create_server(("127.0.0.1", 0))
    link = Link(listener.getsockname()[1])
    client = socket.create_connection(("127.0.0.1", link.port), WAIT_SECONDS)
    server, _ = listener.accept()
    server.settimeout(WAIT_SECONDS)
    yield link, client, server
    link.close()
    for each in (client, server, listener):
        each.close()


def exchange(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"asked")
    assert server.recv(100) == b"asked"
    server.sendall(b"answered")
    assert client.recv(100) == b"answered"


def test_a_reset_is_heard_at_once_by_both_ends_though_nobody_sends(ends: tuple[Link, socket.socket, socket.socket]) -> None:
    link, client, server = ends
    exchange(client, server)
    assert link.cut(reset=True) == 1
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(100)


def test_a_cut_is_an_end_and_no_reset(ends: tuple[Link, socket.socket, socket.socket]) -> None:
    link, client, server = ends
    exchange(client, server)
    link.cut(reset=False)
    assert (client.recv(100), server.recv(100)) == (b"", b"")


def test_what_is_asked_of_a_half_open_link_arrives_and_no_answer(ends: tuple[Link, socket.socket, socket.socket]) -> None:
    link, client, server = ends
    exchange(client, server)
    link.swallow_answers(True)
    client.sendall(b"asked")
    assert server.recv(100) == b"asked"
    server.sendall(b"answered")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(100)
    link.heal()
    client.settimeout(WAIT_SECONDS)
    assert client.recv(100) == b"answered"


def test_a_frozen_link_keeps_what_is_sent_until_it_is_healed(ends: tuple[Link, socket.socket, socket.socket]) -> None:
    link, client, server = ends
    link.freeze(True)
    client.sendall(b"asked")
    threading.Timer(0.2, link.heal).start()
    assert server.recv(100) == b"asked"
    exchange(client, server)
