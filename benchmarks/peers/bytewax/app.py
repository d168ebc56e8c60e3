"""The peers' job in Bytewax: a dataflow with the customer's past in a stateful map, and the model called once for each batch."""

import io
import struct
from bisect import bisect_right
from datetime import timedelta

import bytewax.operators as op
import numpy as np
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
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


def decode(message):
    """A payment under its customer."""
    payment = schemaless_reader(io.BytesIO(message.value[5:]), payment_schema)
    return payment["customer_id"], payment


def features(past, payment):
    """Count and mean of the windows; the payment is remembered unless it is too late."""
    event_ms, cents = round(payment["event_time"].timestamp() * 1000), round(payment["amount"] * 100)
    times, amounts = past or ([], [])
    t = max(event_ms, times[-1] - LATENESS_MS) if times else event_ms
    end = bisect_right(times, t)
    row = []
    for length in WINDOWS_MS:
        start = bisect_right(times, t - length)
        count = end - start + 1
        row += [count, (sum(amounts[start:end]) + cents) / (count * 100)]
    if t == event_ms:
        times.insert(end, event_ms)
        amounts.insert(end, cents)
        old = bisect_right(times, times[-1] - LATENESS_MS - WINDOWS_MS[-1])
        del times[:old], amounts[:old]
    return (times, amounts), (payment["payment_id"], row)


def score(batch):
    """Add the model's probability to as many as came together."""
    rows = np.array([row for _, (_, row) in batch], np.float32)
    scores = model.run(["probabilities"], {"features": rows})[0][:, 1].tolist()
    return [(customer, name, row, each) for (customer, (name, row)), each in zip(batch, scores, strict=True)]


def encode(answer):
    """An answer in the framing."""
    customer, name, row, probability = answer
    out = io.BytesIO()
    out.write(HEADER)
    schemaless_writer(out, scored_schema, dict(zip(FEATURES, row, strict=True), event_id=name, score=probability))
    return KafkaSinkMessage(customer.encode(), out.getvalue())


flow = Dataflow("peer")
brokers = [arguments.bootstrap_servers]
payments = kop.input("payments", flow, brokers=brokers, topics=[arguments.input])
decoded = op.map("decode", payments.oks, decode)
windows = op.stateful_map("windows", decoded, features)
scored = op.flat_map_batch("score", windows, score)
answers = op.map("encode", scored, encode)
kop.output("scored", answers, brokers=brokers, topic=arguments.output)

if __name__ == "__main__":
    init_db_dir(arguments.state_dir, 1)
    cli_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(arguments.state_dir))
