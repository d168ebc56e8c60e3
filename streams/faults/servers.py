"""A Kafka and a Redis of a run's own, to be hurt: killed, frozen, emptied, cut short, and started again where they were.

Kafka listens twice. Whoever looks on has the plain listener; the workers are told the address of a link (`streams.faults.link`) in front of
the other, and so can be cut off from a broker that is well.
"""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from schemas.errors import LocalServiceError
from streams.kafka import KafkaException, admin
from streams.local import kafka as local_kafka
from streams.local import redis as local_redis
from streams.local.kafka_jars import find_java, kafka_jars
from streams.local.process import Service, await_listening, choose_port, start
from streams.settings import KafkaSettings

START_SECONDS = 60.0
ASK_SECONDS = 2.0
LOOK_SECONDS = 0.02
HEAP_MB = 512

# The clocks of transactions and groups run as fast as the broker lets them: a zombie is one sooner, and more faults fit into an hour.
FAST_CLOCKS = {
    # Not sooner: a broker that comes back ends what timed out meanwhile before it has its partitions, and leaves the markers out.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000",
    "group.consumer.heartbeat.interval.ms": "200",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
}


class OwnKafka:
    """A broker, by its process.

    Args:
        folder: its settings, data and log.
        link_port: where the workers will find it.
    """

    def __init__(self, folder: Path, link_port: int) -> None:
        self._folder = folder
        self._link_port = link_port
        self._ports = tuple(choose_port(None) for _ in range(3))
        folder.mkdir(parents=True)
        self._write_settings()
        self._format()
        self.start()

    @property
    def address(self) -> str:
        """For whoever looks on."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def linked_port(self) -> int:
        """The listener that the workers' link leads to."""
        return self._ports[1]

    def start(self) -> None:
        """Start it where it was, and wait until it answers."""
        java = [find_java(), f"-Xmx{HEAP_MB}m", *local_kafka.JVM, *local_kafka.YOUNG, "-Djava.awt.headless=true"]
        java += [f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}", "-cp", f"{kafka_jars(_quiet)}/*", "kafka.Kafka"]
        command = [*java, str(self._folder / "server.properties")]
        self._service = start("kafka", command, self._folder, self._ports, self._folder / "kafka.log", self._folder / "kafka.out")
        deadline = time.monotonic() + START_SECONDS
        while await_listening(self._service, deadline):
            try:
                # A starting broker takes connections before it answers them: a new client each time.
                if admin(KafkaSettings(bootstrap_servers=self.address)).list_topics(timeout=ASK_SECONDS).brokers:
                    return
            except KafkaException:
                continue
        raise LocalServiceError(f"Kafka does not answer on {self.address}; its log: {self._service.log}\n{self._service.log_tail()}")

    def warm_up(self) -> None:
        """Wait for its coordinators, which a fresh broker loads when they are first asked for."""
        local_kafka.warm_up(self._service, START_SECONDS)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        _reap(self._service)

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._service.pid is not None
        return self._service.pid

    def _write_settings(self) -> None:
        plain, linked, controller = self._ports
        settings = (
            local_kafka.SETTINGS
            | FAST_CLOCKS
            | {
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LINKED:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"PLAINTEXT://127.0.0.1:{plain},LINKED://127.0.0.1:{linked},CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},LINKED://127.0.0.1:{self._link_port}",
                "log.dirs": str(self._folder / "data"),
            }
        )
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        (self._folder / "server.properties").write_text(lines, encoding="utf-8")
        (self._folder / "log4j2.properties").write_text(local_kafka.LOGGING.format(log=self._folder / "kafka.log"), encoding="utf-8")

    def _format(self) -> None:
        cluster = "M" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        tool = [find_java(), *local_kafka.JVM, "-cp", f"{kafka_jars(_quiet)}/*", "kafka.tools.StorageTool", "format", "-t", cluster]
        done = subprocess.run(
            [*tool, "-c", str(self._folder / "server.properties")], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LocalServiceError(f"Kafka's log in {self._folder} can't be made: {(done.stderr or done.stdout).strip()}")


class OwnRedis:
    """A Redis that keeps an append-only file, by its process.

    Args:
        folder: its data and log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = choose_port(None)
        (folder / "data").mkdir(parents=True)
        settings = local_redis.SETTINGS.format(port=self.port, unixsocket="", data=folder / "data")
        # A file of commands alone can be cut anywhere; in front of them, what a replica began with would be a snapshot.
        (folder / "redis.conf").write_text(f"{settings}aof-use-rdb-preamble no\n", encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Start it where it was, and wait until it answers."""
        log = self._folder / "redis.log"
        command = [local_redis.find_server(), str(self._folder / "redis.conf")]
        self._service = start("redis", command, self._folder, (self.port,), log, log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._service.alive:
            try:
                if self.ask("PING") == b"PONG":
                    return
            except (OSError, RedisRefused):
                pass  # it is loading its file
            time.sleep(LOOK_SECONDS)
        raise LocalServiceError(f"Redis does not answer on port {self.port}; its log: {log}\n{self._service.log_tail()}")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        _reap(self._service)

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._service.pid is not None
        return self._service.pid

    def follow(self, port: int | None) -> None:
        """Become a replica of another Redis on this machine, or of none any more.

        Raises:
            LocalServiceError: it does not answer.
        """
        try:
            self.ask("REPLICAOF", *(("NO", "ONE") if port is None else ("127.0.0.1", str(port))))
        except (OSError, RedisRefused) as error:
            raise LocalServiceError(f"Redis on port {self.port} does not change its master: {error}") from error

    def has_followed(self) -> bool:
        """Whether it is a replica that has what its master has; one that is still loading may not even answer."""
        try:
            return b"master_link_status:up" in (self.ask("INFO", "replication") or b"")
        except (OSError, RedisRefused):
            return False

    def packed_bytes(self) -> int:
        """How much of its append-only file was there when it began, or when it packed the file anew, which is on disk before it counts.

        Raises:
            OSError: it does not answer.
        """
        found = re.search(rb"aof_base_size:(\d+)", self.ask("INFO", "persistence") or b"")
        return int(found[1]) if found else 0

    def cut_its_file(self, chance: random.Random, most_bytes: int, packed_bytes: int) -> int:
        """Cut the end of its append-only file off at a random byte, while it doesn't run; how many bytes are gone.

        As after a power failure: what was written within the last second may be on no disk. A file that was packed anew stands in the
        order of Redis's own table, and would lose blocks and keep the position behind them: no power failure does that.
        """
        files = sorted((self._folder / "data").rglob("*.aof"), key=lambda file: file.stat().st_mtime)
        if not files:
            return 0
        size = files[-1].stat().st_size
        gone = chance.randint(0, min(max(size - packed_bytes, 0), most_bytes))
        os.truncate(files[-1], size - gone)
        return gone

    def ask(self, *command: str) -> bytes | None:
        """One command on a connection of its own; its first word, or the value.

        Raises:
            OSError: it does not answer.
            RedisRefused: it answers with an error.
        """
        return ask(self.port, *command)


class RedisRefused(Exception):
    """Redis answered with an error."""


def ask(port: int, *command: str) -> bytes | None:
    """One command to a Redis on this machine, over a bare socket: the answer's value, or the first line of one that has none."""
    parts = [part.encode() for part in command]
    asked = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    with socket.create_connection(("127.0.0.1", port), ASK_SECONDS) as connection, connection.makefile("rb") as answer:
        connection.sendall(asked)
        line = answer.readline().rstrip(b"\r\n")
        if line.startswith(b"-") or not line:
            raise RedisRefused(line.decode(errors="replace") or "no answer")
        if line.startswith(b"$"):
            size = int(line[1:])
            return None if size < 0 else answer.read(size)
        return line[1:]


def _reap(service: Service) -> None:
    service.kill()


def _quiet(words: str) -> None:
    pass
