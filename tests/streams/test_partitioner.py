"""Where keys belong, against Kafka's own figures and a real client's choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streams.account import Account
from streams.health import Health
from streams.kafka import plain_producer
from streams.metrics import Metrics, expose
from streams.partitioner import SAMPLE_RECORDS, misplaced
from tests.live.scene import read_topic
from tests.services import Broker
from tests.streams.batches import batch_of

# From the tests of Kafka's Java client.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), JAVA.items())
def test_keys_belong_where_javas_client_puts_them(key: bytes, signed: int) -> None:
    partitions = 2**31 - 1  # so that nearly the whole hash is compared
    home = (signed & 0x7FFFFFFF) % partitions
    assert misplaced([key], home, partitions) == (1, 0)
    assert misplaced([key], home ^ 1, partitions) == (1, 1)


def test_a_sample_is_looked_at_and_null_keys_belong_anywhere() -> None:
    assert misplaced([], 0, 4) == (0, 0)
    assert misplaced([None, None], 3, 4) == (0, 0)
    looked, elsewhere = misplaced([b"%d" % n for n in range(1_000)], 0, 4)
    assert looked == SAMPLE_RECORDS
    assert elsewhere == pytest.approx(SAMPLE_RECORDS * 3 / 4, abs=12)
    assert misplaced([b"%d" % n for n in range(1_000)], 0, 1)[1] == 0


def test_what_our_producers_send_is_where_it_belongs_and_crc32_is_not(broker: Broker) -> None:
    keys = [np.random.default_rng(7).bytes(n % 19) for n in range(300)]
    for partitioner, are_home in (("murmur2_random", True), ("consistent_random", False)):
        topic = broker.topic(partitions=5)
        producer = plain_producer(broker.settings, partitioner=partitioner)
        for key in keys:
            producer.produce(topic, b"", key)
        producer.flush()
        records = read_topic(broker, topic)
        elsewhere = sum(misplaced([record.key], record.partition, 5)[1] for record in records if record.key)
        assert (elsewhere == 0) == are_home, (partitioner, elsewhere)


def test_misplaced_keys_show_in_the_metrics_and_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("p", "m", "1", "f" * 16)
    account = Account(metrics, Health(60.0, dict), (), "m", "1", 0.5, dict, {"payments": 5})
    keys = [b"%d" % n for n in range(10)]
    elsewhere = misplaced(keys, 3, 5)[1]
    assert elsewhere > 0
    for _ in range(2):
        account.final(replace(batch_of([b"x"] * 10, keys), rejected=np.ones(10, np.uint8)), 0.01)
    page = expose({"score": metrics}).decode()
    assert 'millrace_partitioner_checked_total{stage="score",topic="payments"} 20.0' in page
    assert f'millrace_partitioner_mismatches_total{{stage="score",topic="payments"}} {2.0 * elsewhere}' in page
    assert caplog.text.count("misplaced_keys at=payments[3]@1042..1052") == 1
