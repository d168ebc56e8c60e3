"""The peers' job in Quix Streams: a stateful function over a streaming dataframe, the customer's past in its RocksDB state."""

import struct
from bisect import bisect_right

import numpy as np
from fastavro.schema import load_schema
from onnxruntime import InferenceSession, SessionOptions
from quixstreams import Application, State
from quixstreams.models.serializers.avro import AvroDeserializer, AvroSerializer

from benchmarks.peers.arguments import parse

DAY_MS = 86_400_000
WINDOWS_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
LATENESS_MS = DAY_MS
FEATURES = ("count_1d", "mean_1d", "count_7d", "mean_7d", "count_30d", "mean_30d")
HEADER = struct.pack(">bI", 0, 2)  # Confluent framing, schema id 2

arguments = parse()
exactly_once = arguments.guarantee == "exactly_once"
options = SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])


class FramedAvroDeserializer(AvroDeserializer):
    """Avro behind a Confluent header, the schema known."""

    def __call__(self, value, ctx):
        return super().__call__(value[5:], ctx)


class FramedAvroSerializer(AvroSerializer):
    """The same for what is written."""

    def __call__(self, value, ctx):
        return HEADER + super().__call__(value, ctx)


def features(payment: dict, state: State) -> dict:
    """Count and mean of the windows; the payment is remembered unless it is too late."""
    event_ms, cents = round(payment["event_time"].timestamp() * 1000), round(payment["amount"] * 100)
    times, amounts = state.get("past", [[], []])
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
        state.set("past", [times[old:], amounts[old:]])
    return dict(zip(FEATURES, row, strict=True), event_id=payment["payment_id"])


def score(answer: dict) -> dict:
    """Add the model's probability."""
    rows = np.array([[answer[name] for name in FEATURES]], np.float32)
    return answer | {"score": float(model.run(["probabilities"], {"features": rows})[0][0, 1])}


app = Application(
    broker_address=arguments.bootstrap_servers,
    consumer_group=arguments.group,
    auto_offset_reset="earliest",
    state_dir=arguments.state_dir,
    processing_guarantee="exactly-once" if exactly_once else "at-least-once",
    commit_interval=0.1 if exactly_once else 5.0,
)
payments = app.topic(arguments.input, value_deserializer=FramedAvroDeserializer(load_schema(f"{arguments.schemas}/payment.avsc")))
scored = app.topic(arguments.output, value_serializer=FramedAvroSerializer(load_schema(f"{arguments.schemas}/scored.avsc")))
app.dataframe(payments).apply(features, stateful=True).apply(score).to_topic(scored)

if __name__ == "__main__":
    app.run()
