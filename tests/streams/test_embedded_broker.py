"""The stand-in for a broker: it carries records, and ends with whoever wanted it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from schemas.errors import LocalServiceError
from streams.kafka import KafkaException, admin, plain_consumer, plain_producer
from streams.local.embedded_broker import embedded_broker
from streams.settings import KafkaSettings


def test_records_sent_to_it_are_read_from_it() -> None:
    with embedded_broker({"letters": 1, "words": 3}) as address:
        settings = KafkaSettings(bootstrap_servers=address)
        known = admin(settings).list_topics(timeout=5).topics
        assert {name: len(topic.partitions) for name, topic in known.items()} == {"letters": 1, "words": 3}
        producer = plain_producer(settings)
        for text in (b"a", b"b", b"c"):
            producer.produce("letters", text, partition=0)
        assert producer.flush(10) == 0
        reader = plain_consumer(settings, "readers")
        reader.subscribe(["letters"])
        values: list[bytes | None] = []
        while len(values) < 3:
            record = reader.poll(10)
            assert record is not None, f"nothing more came after {values}"
            if record.error() is None:
                values.append(record.value())
        reader.close()
        assert values == [b"a", b"b", b"c"]


def test_it_is_gone_when_the_block_ends() -> None:
    with embedded_broker({}) as address:
        settings = KafkaSettings(bootstrap_servers=address)
        assert admin(settings).list_topics(timeout=5).brokers
    with pytest.raises(KafkaException):
        admin(settings).list_topics(timeout=0.5)


def test_it_ends_when_the_process_that_wanted_it_is_killed() -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "streams.local.embedded_broker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert ":" in server.stdout.readline()
    server.stdin.close()  # as the system does for a process that is gone
    assert server.wait(10) == 0
    server.stdout.close()


def test_a_stand_in_that_does_not_start_is_an_error_not_an_empty_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LocalServiceError, match="ended as it started, with exit code 1"), embedded_broker({}):
        pass
