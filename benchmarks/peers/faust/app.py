"""The peers' job in stock Faust: an agent that takes one payment at a time, its customer's past in a Redis sorted set."""

import io
import struct

import faust
import numpy as np
import redis.asyncio as redis
from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import load_schema
from onnxruntime import InferenceSession, SessionOptions

from benchmarks.peers.arguments import parse

DAY_MS = 86_400_000
WINDOWS_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
LATENESS_MS = DAY_MS
FEATURES = ("count_1d", "mean_1d", "count_7d", "mean_7d", "count_30d", "mean_30d")
HEADER = struct.pack(">bI", 0, 2)  # Confluent framing, schema id 2

arguments = parse()
payment_schema = load_schema(f"{arguments.schemas}/payment.avsc")
scored_schema = load_schema(f"{arguments.schemas}/scored.avsc")
options = SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
store = redis.Redis.from_url(arguments.redis_url)

app = faust.App(
    arguments.group,
    broker=f"kafka://{arguments.bootstrap_servers}",
    datadir=arguments.state_dir,
    store="memory://",
    web_enabled=False,
    topic_disable_leader=True,
    topic_allow_declare=False,
    consumer_auto_offset_reset="earliest",
    producer_linger=0.005,
)
payments = app.topic(arguments.input, key_type=bytes, value_type=bytes, value_serializer="raw")
scored = app.topic(arguments.output, key_type=bytes, value_type=bytes, value_serializer="raw")


@app.agent(payments)
async def score(stream):
    """Score each payment, in the order of its partition."""
    async for customer, value in stream.items():
        payment = schemaless_reader(io.BytesIO(value[5:]), payment_schema)
        row = await features(f"peer:{payment['customer_id']}", payment)
        probabilities = model.run(["probabilities"], {"features": np.array([row], np.float32)})[0]
        answer = dict(zip(FEATURES, row, strict=True), event_id=payment["payment_id"], score=float(probabilities[0, 1]))
        out = io.BytesIO()
        out.write(HEADER)
        schemaless_writer(out, scored_schema, answer)
        await scored.send(key=customer, value=out.getvalue())


async def features(key, payment):
    """Count and mean of the windows; the payment is remembered unless it is too late."""
    event_ms, cents = round(payment["event_time"].timestamp() * 1000), round(payment["amount"] * 100)
    member = f"{payment['payment_id']}:{cents}"
    async with store.pipeline() as pipe:
        pipe.zrange(key, 0, -1, withscores=True)
        pipe.zadd(key, {member: event_ms})
        pipe.zremrangebyscore(key, "-inf", event_ms - LATENESS_MS - WINDOWS_MS[-1])
        past, _, _ = await pipe.execute()
    past = [(at, int(name.rpartition(b":")[2])) for name, at in past]
    t = max(event_ms, past[-1][0] - LATENESS_MS) if past else event_ms
    if t != event_ms:
        await store.zrem(key, member)
    row = []
    for length in WINDOWS_MS:
        inside = [amount for at, amount in past if t - length < at <= t]
        count = len(inside) + 1
        row += [count, (sum(inside) + cents) / (count * 100)]
    return row


if __name__ == "__main__":
    faust.Worker(app, loglevel="info").execute_from_commandline()
