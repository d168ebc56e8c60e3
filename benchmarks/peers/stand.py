"""The broker and the Redis that all peers of a run share, in a temporary folder; both are gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from benchmarks.pace import send_all
from benchmarks.peers.peer_process import cpu_seconds
from streams.kafka import NewTopic, admin, plain_producer
from streams.local import services as local
from streams.local.process import recall
from streams.settings import KafkaSettings

PARTITIONS = 4
ANSWER_SECONDS = 30.0
TOPIC_SETTINGS = {"retention.ms": "-1", "cleanup.policy": "delete"}


@dataclass(frozen=True)
class Stand:
    """Where the services answer, and what they have used."""

    folder: Path
    bootstrap_servers: str
    redis_url: str
    kafka: psutil.Process
    redis: psutil.Process

    @property
    def settings(self) -> KafkaSettings:
        """For clients of the runner's own."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    def kafka_cpu_seconds(self) -> float:
        """The broker's CPU so far."""
        return cpu_seconds(self.kafka)

    def redis_cpu_seconds(self) -> float:
        """Redis' CPU so far."""
        return cpu_seconds(self.redis)

    def fresh_topics(self, *names: str) -> None:
        """Make topics, partitions empty."""
        client = admin(self.settings)  # by a name: it ends with its last one, answers or not
        for answer in client.create_topics([NewTopic(name, PARTITIONS, config=TOPIC_SETTINGS) for name in names]).values():
            answer.result(ANSWER_SECONDS)

    def clear(self, tag: str) -> None:
        """Remove every topic with this in its name, and all keys of the Redis database: the next peer finds nothing of the last."""
        client = admin(self.settings)
        names = [name for name in client.list_topics(timeout=ANSWER_SECONDS).topics if tag in name]
        if names:
            for answer in client.delete_topics(names).values():
                answer.result(ANSWER_SECONDS)
        with redis.Redis.from_url(self.redis_url) as connection:
            connection.flushdb()

    def send(self, topic: str, values: list[bytes], keys: list[bytes]) -> None:
        """Send records, and wait until the broker has them."""
        send_all(plain_producer(self.settings, **{"linger.ms": 20}), topic, values, keys)


@contextmanager
def stand(say: Callable[[str], None]) -> Iterator[Stand]:
    """Services of the run's own.

    Raises:
        LocalServiceError: they can't be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="millrace-peers-"))
    try:
        yield stand_on(local.up(folder / "services", say=say), folder)
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)


def stand_on(services: local.Services, folder: Path) -> Stand:
    """A stand on local services that run, with its files in a folder."""
    processes = []
    for name in ("kafka", "redis"):
        service = recall(services.state_dir / name)
        assert service is not None
        processes.append(psutil.Process(service.pid))
    return Stand(folder, services.bootstrap_servers, services.redis_url, *processes)
