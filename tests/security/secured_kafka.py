"""A Kafka whose clients come by TLS, show a certificate, log in with SCRAM and may do what they were allowed, no more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from streams.local import kafka
from streams.local.kafka_jars import find_java, kafka_jars
from streams.local.process import choose_port, start
from tests.security.certificates import Authority
from tests.services import Broker

START_SECONDS = 60.0
Allowed = tuple[ResourceType, str, ResourcePatternType, Sequence[AclOperation]]


@dataclass(frozen=True)
class SecuredKafka:
    """A running one.

    Attributes:
        clients: where clients come in: TLS, SCRAM-SHA-512.
        inside: a door without a lock, for the test itself, which may do everything there.
    """

    clients: str
    inside: Broker

    def allow(self, user: str, rights: Sequence[Allowed]) -> None:
        """Let a user do these things."""
        bindings = [
            AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for kind, name, pattern, operations in rights
            for operation in operations
        ]
        client = self.inside.admin  # held until the answers are there
        for answer in client.create_acls(bindings).values():
            answer.result()


@contextmanager
def secured_kafka(folder: Path, authority: Authority, users: dict[str, str]) -> Iterator[SecuredKafka]:
    """Start one with these users and passwords; everything is refused to them until it is allowed."""
    folder.mkdir(parents=True)
    java, jars = find_java(), kafka_jars(lambda words: None)
    ports: list[int] = []
    while len(ports) < 3:
        port = choose_port(None)
        if port not in ports:
            ports.append(port)
    clients, inside, controller = (f"127.0.0.1:{port}" for port in ports)
    settings = kafka.SETTINGS | {
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"CLIENTS://{clients},INSIDE://{inside},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENTS://{clients},INSIDE://{inside}",
        "listener.security.protocol.map": "CLIENTS:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INSIDE",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.vouch("broker").both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.clients.ssl.client.auth": "required",
        "listener.name.clients.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "log.dirs": str(folder / "data"),
    }
    (folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    (folder / "log4j2.properties").write_text(kafka.LOGGING.format(log=folder / "kafka.log"))
    known = [part for user, password in users.items() for part in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")]
    tool = [java, *kafka.JVM, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "-t", "MDAwMDAwMDAwMDAwMDAwMA"]
    subprocess.run([*tool, "-c", str(folder / "server.properties"), *known], check=True, capture_output=True, timeout=START_SECONDS)
    argv = [java, f"-Xmx{kafka.HEAP_MB}m", *kafka.JVM, f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", "-cp", f"{jars}/*"]
    argv += ["kafka.Kafka", str(folder / "server.properties")]
    service = start("kafka", argv, folder, (ports[1],), folder / "kafka.log", folder / "kafka.out")
    try:
        assert kafka.answers(service, folder, START_SECONDS), (folder / "kafka.out").read_text() + service.log_tail()
        kafka.warm_up(service, START_SECONDS)
        yield SecuredKafka(clients, Broker(inside))
    finally:
        service.kill()


def login(authority: Authority, user: str) -> dict[str, str]:
    """The client keys with which a user comes in, but the password."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "ssl.ca.location": str(authority.file),
    }
