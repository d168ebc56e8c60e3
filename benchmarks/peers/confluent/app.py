"""The peers' job as a careful loop: for each batch one Redis pipeline to read and one to write, one model call, one transaction."""

import io
import signal
import struct
from bisect import bisect_right

import numpy as np
import redis
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import load_schema
from onnxruntime import InferenceSession, SessionOptions

from benchmarks.peers.arguments import parse

DAY_MS = 86_400_000
WINDOWS_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
LATENESS_MS = DAY_MS
FEATURES = ("count_1d", "mean_1d", "count_7d", "mean_7d", "count_30d", "mean_30d")
HEADER = struct.pack(">bI", 0, 2)  # Confluent framing, schema id 2
BATCH = 1_000

arguments = parse()
payment_schema = load_schema(f"{arguments.schemas}/payment.avsc")
scored_schema = load_schema(f"{arguments.schemas}/scored.avsc")
options = SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
store = redis.Redis.from_url(arguments.redis_url)
consumer = Consumer(
    {
        "bootstrap.servers": arguments.bootstrap_servers,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 10,
    }
)
producer = Producer({"bootstrap.servers": arguments.bootstrap_servers, "transactional.id": arguments.group, "linger.ms": 1})
stopping = False


def stop(number, frame):
    """Finish the batch, then leave."""
    global stopping
    stopping = True


def main():
    """Score until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    producer.init_transactions()
    consumer.subscribe([arguments.input])
    while not stopping:
        messages = [message for message in consumer.consume(BATCH, 0.01) if not message.error()]
        if not messages:
            continue
        payments = [schemaless_reader(io.BytesIO(message.value()[5:]), payment_schema) for message in messages]
        rows = features(payments)
        scores = model.run(["probabilities"], {"features": np.array(rows, np.float32)})[0][:, 1]
        commit(messages, [encode(*answer) for answer in zip(payments, rows, scores.tolist(), strict=True)])
    consumer.close()


def features(payments):
    """Count and mean of the windows of each payment; those that are not too late are remembered."""
    keys = list({payment["customer_id"]: None for payment in payments})
    with store.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.zrange(f"peer:{key}", 0, -1, withscores=True)
        found = pipe.execute()
    pasts = {
        key: ([int(at) for _, at in members], [int(name.rpartition(b":")[2]) for name, _ in members])
        for key, members in zip(keys, found, strict=True)
    }
    new = {key: {} for key in keys}
    rows = []
    for payment in payments:
        event_ms, cents = round(payment["event_time"].timestamp() * 1000), round(payment["amount"] * 100)
        times, amounts = pasts[payment["customer_id"]]
        t = max(event_ms, times[-1] - LATENESS_MS) if times else event_ms
        end = bisect_right(times, t)
        row = []
        for length in WINDOWS_MS:
            start = bisect_right(times, t - length)
            count = end - start + 1
            row += [count, (sum(amounts[start:end]) + cents) / (count * 100)]
        rows.append(row)
        if t == event_ms:
            times.insert(end, event_ms)
            amounts.insert(end, cents)
            new[payment["customer_id"]][f"{payment['payment_id']}:{cents}"] = event_ms
    with store.pipeline(transaction=False) as pipe:
        for key, members in new.items():
            if members:
                pipe.zadd(f"peer:{key}", members)
                pipe.zremrangebyscore(f"peer:{key}", "-inf", pasts[key][0][-1] - LATENESS_MS - WINDOWS_MS[-1])
        pipe.execute()
    return rows


def encode(payment, row, score):
    """An answer in the framing."""
    out = io.BytesIO()
    out.write(HEADER)
    schemaless_writer(out, scored_schema, dict(zip(FEATURES, row, strict=True), event_id=payment["payment_id"], score=score))
    return out.getvalue()


def commit(messages, answers):
    """Answers and offsets in one transaction; if it can't be, read the batch again."""
    ends = {(message.topic(), message.partition()): message.offset() + 1 for message in messages}
    offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
    producer.begin_transaction()
    try:
        for message, answer in zip(messages, answers, strict=True):
            producer.produce(arguments.output, answer, message.key())
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
    except KafkaException as error:
        if not error.args[0].txn_requires_abort():
            raise
        producer.abort_transaction()
        for committed in consumer.committed(consumer.assignment()):
            consumer.seek(TopicPartition(committed.topic, committed.partition, max(committed.offset, 0)))


if __name__ == "__main__":
    main()
