"""The real broker and Redis that tests run on: one of each for the whole run, and private ones for tests that kill them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streams.kafka import AdminClient, NewTopic, admin
from streams.local.process import recall
from streams.local.services import Services, down, up
from streams.settings import KafkaSettings, RedisSettings, Settings

TOPIC_SECONDS = 20.0


@dataclass(frozen=True)
class Broker:
    """A running broker, and how to make topics on it."""

    bootstrap_servers: str

    @property
    def settings(self) -> KafkaSettings:
        """Settings for clients of this broker."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    @property
    def admin(self) -> AdminClient:
        """A new client for topics and their settings."""
        return admin(self.settings)

    def topic(self, prefix: str = "topic", partitions: int = 1, **settings: str) -> str:
        """Make a topic with a name of its own, and return it; settings are Kafka's, with underscores for dots."""
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        wanted = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in settings.items()})
        client = self.admin  # held until the answer is there: a client that is let go takes its questions with it
        for future in client.create_topics([wanted], operation_timeout=TOPIC_SECONDS).values():
            future.result()
        return name


class PrivateServices:
    """A broker and a Redis of one test's own, to kill and to start again on the same ports."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.now: Services = up(state_dir)

    @property
    def broker(self) -> Broker:
        """Its broker."""
        return Broker(self.now.bootstrap_servers)

    @property
    def settings(self) -> Settings:
        """Settings of a worker on these services."""
        return Settings(kafka=self.broker.settings, redis=RedisSettings.model_validate({"url": self.now.redis_url}))

    def pid(self, name: str) -> int:
        """The process of `kafka` or `redis`; for signals."""
        service = recall(self.state_dir / name)
        assert service is not None
        assert service.pid is not None
        return service.pid

    def kill(self, name: str) -> None:
        """End `kafka` or `redis` as `kill -9` does."""
        service = recall(self.state_dir / name)
        assert service is not None
        service.kill()

    def start_again(self) -> tuple[str, ...]:
        """Start what doesn't run, where it was, with the data it had; wait until it answers; return its names."""
        self.now = up(self.state_dir)
        return self.now.started


@contextmanager
def private_services() -> Iterator[PrivateServices]:
    """A broker and a Redis of the caller's own: some five seconds, so share them among a module's tests where that is possible."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-own-"))  # a short path: a socket's may have no more than about 100 characters
    try:
        yield PrivateServices(folder)
    finally:
        down(folder, erase=True)
        shutil.rmtree(folder, ignore_errors=True)
