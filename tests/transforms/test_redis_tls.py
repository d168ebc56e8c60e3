"""rediss://: the same store with TLS in between."""

from __future__ import annotations

import datetime
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.columns import PackedBytes
from schemas.errors import StoreDown
from tests.block_writes import keys_of
from tests.redis_server import RedisServer
from transforms.redis_store import RedisStore
from transforms.store import WHOLE_BLOCK, Writes

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, signed by itself; the key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "millrace test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption()))
    return file


@contextmanager
def tls_before(server: RedisServer, certificate: Path) -> Iterator[int]:
    """A port where TLS ends and the server's socket begins; for one connection after the other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                plain, _ = listener.accept()
                plain.settimeout(10)
                client = context.wrap_socket(plain, server_side=True)
            except OSError:
                continue
            with client, socket.socket(socket.AF_UNIX) as inner:
                inner.connect(str(server.socket))
                pass_on(client, inner)

    def pass_on(client: ssl.SSLSocket, inner: socket.socket) -> None:
        while not ended.is_set():
            ready = [client] if client.pending() else select.select([client, inner], [], [], 0.05)[0]
            for end in ready:
                data = end.recv(1 << 14)
                if not data:
                    return
                (inner if end is client else client).sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        ended.set()
        thread.join()
        listener.close()


def test_large_writes_and_reads_pass_through_tls(server: RedisServer, namespace: str, certificate: Path) -> None:
    with tls_before(server, certificate) as port:
        store = RedisStore(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}", namespace)
        store.claim("0", {})
        count, size_bytes = 5_000, 300
        data = np.random.default_rng(3).integers(0, 256, count * size_bytes, dtype=np.uint8)
        ends = np.arange(1, count + 1) * size_bytes
        blocks = PackedBytes(data, ends - size_bytes, ends)
        keys = keys_of(*range(count))
        store.write("0", (Writes("customer", keys, np.full(count, WHOLE_BLOCK, np.int64), blocks),), 1)
        assert list(store.read("0", "customer", keys)) == list(blocks)
        store.close()


def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(server: RedisServer, namespace: str, certificate: Path) -> None:
    with tls_before(server, certificate) as port, pytest.raises(StoreDown, match=r"(?i)certificate"):
        RedisStore(f"rediss://127.0.0.1:{port}", namespace).claim("0", {})
    assert server.ask("KEYS", f"*{namespace}*") == []
