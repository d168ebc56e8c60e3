"""The example's pipeline in two stages with labels: customers by the input's key, terminals over a hop, frauds told later."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro

from streams.hop import HopSchema
from streams.kafka import KafkaException, TopicPartition, plain_consumer
from streams.planning.stage import Stage, stages
from streams.scored_event import output_schema
from tests.live.model import VERSION
from tests.live.scene import Scene, Waited, Worker, wait_for
from tests.oracles.payments import Fault, Payments
from tests.oracles.stages import Evidence, Stages

LABEL_ID = 3
LABEL = {
    "type": "record",
    "name": "PaymentLabel",
    "namespace": "card_fraud",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "terminal_id", "type": "string"},
        {"name": "fraud", "type": "boolean"},
    ],
}
TWO_STAGES = {
    "    Count,\n": "    Count,\n    LabelCount,\n    LabelRate,\n    Labels,\n",
    "windows=tuple(Window(days(n), delay_ms=days(7)) for n in (1, 7, 30))": (
        "windows=tuple(Window(hours(n), delay_ms=hours(2)) for n in (1, 12, 48))"
    ),
    "aggregates=(Count(),)": "aggregates=(Count(), LabelCount(), LabelRate())",
    "entities=(customer, terminal),": "entities=(customer, terminal),\n    labels=labels,",
}


@dataclass
class StageScene(Scene):
    """A scene of two stages and the routing of labels, over four partitions of each topic unless said otherwise."""

    partitions: int = 4

    def __post_init__(self) -> None:
        (self.folder / "schemas").mkdir(parents=True, exist_ok=True)
        (self.folder / "schemas" / f"{LABEL_ID}-{self.label_topic}-value.avsc").write_text(json.dumps(LABEL))
        declared = (
            f'labels = Labels(\n    Topic("{self.label_topic}", schema="schemas/{LABEL_ID}-{self.label_topic}-value.avsc", '
            'key="payment_id", event_time="event_time", event_id="payment_id"),\n    value="fraud",\n)\n\npipeline = Pipeline('
        )
        self.changes = {**TWO_STAGES, "pipeline = Pipeline(": declared, **self.changes}
        super().__post_init__()

    @property
    def label_topic(self) -> str:
        return f"{self.name}-labels"

    @property
    def stages(self) -> dict[str, Stage]:
        """By name, in order."""
        return {stage.name: stage for stage in stages(self.bound, self.partitions)}

    @property
    def judge_of_stages(self) -> Stages:
        definition: Any = output_schema(self.bound).definition
        payments = Payments(
            schemas=self.schemas,
            output=fastavro.parse_schema(definition),
            model=self.bound.model.name,
            version=VERSION,
            fingerprints=[self.bound.features.fingerprint],
            terminals=False,
        )
        hop: Any = HopSchema.of(self.bound, self.stages["by-terminal"]).schema.definition
        return Stages(payments, fastavro.parse_schema(hop), fastavro.parse_schema(LABEL), self.bound.input.name, self.label_topic)

    def send_labels(self, labels: Iterable[Mapping[str, Any]]) -> None:
        """Put labels on their topic, and wait until they are there."""
        producer = self._producer
        for label in labels:
            producer.produce(self.label_topic, self.encode_label(label), label["payment_id"].encode())
        assert producer.flush(30) == 0

    def send_raw_label(self, key: bytes | None, value: bytes | None) -> None:
        """Put any record on the labels' topic."""
        self._producer.produce(self.label_topic, value, key)
        assert self._producer.flush(30) == 0

    def encode_label(self, label: Mapping[str, Any]) -> bytes:
        """A label as Confluent's wire format has it."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(LABEL), dict(label))
        return b"\0" + struct.pack(">i", LABEL_ID) + out.getvalue()

    def delete_inputs(self) -> None:
        """Delete all that is on the input, as its retention would."""
        self.delete_all_of(self.bound.input.name)

    def delete_all_of(self, name: str) -> None:
        """Delete all that is on a topic."""
        client = self.broker.admin
        for answer in client.delete_records([TopicPartition(name, p, -1) for p in range(self.partitions)]).values():
            answer.result()

    # --- what is left ---

    def committed_by_stage(self) -> dict[str, dict[int, int | None]]:
        found: dict[str, dict[int, int | None]] = {}
        for name, stage in self.stages.items():
            reader = plain_consumer(self.settings.kafka, stage.group(self.settings.kafka))
            try:
                here = [TopicPartition(stage.input.name, p) for p in range(self.partitions)]
                found[name] = {tp.partition: None if tp.offset < 0 else tp.offset for tp in reader.committed(here, 10.0)}
            finally:
                reader.close()
        return found

    def drained_stages(self, *workers: Worker, seconds: float = 60.0) -> None:
        """Wait until every stage has read what there is: first those that write the internal topic, then the one that reads it."""
        self.drained_of(("by-customer", "labels"), workers, seconds)
        self.drained_of(("by-terminal",), workers, seconds)

    def drained_of(self, names: Sequence[str], workers: Sequence[Worker], seconds: float = 60.0) -> None:
        """Wait until some stages have read what there is for them now."""
        ends = {name: self._ends_of(self.stages[name]) for name in names}

        def seen() -> bool:
            for worker in workers:
                if not worker.lives:
                    raise Waited(f"the worker ended with {worker.code}:\n{worker.log[-3_000:]}")
            try:
                committed = self.committed_by_stage()
            except KafkaException:
                return False  # a transaction is open
            return all((committed[name][p] or 0) >= end for name in names for p, end in ends[name].items())

        try:
            wait_for(f"{ends} committed", seen, seconds)
        except Waited as error:
            logs = "\n".join(worker.log[-3_000:] for worker in workers)
            raise Waited(f"{error}; committed {self.committed_by_stage()}; {logs}") from None

    def _ends_of(self, stage: Stage) -> dict[int, int]:
        def asked() -> dict[int, int] | None:
            try:
                here = [TopicPartition(stage.input.name, p) for p in range(self.partitions)]
                return {tp.partition: self._reader.get_watermark_offsets(tp, 10.0)[1] for tp in here}
            except KafkaException:
                return None  # a topic just made has no leader yet

        found: dict[int, int] = wait_for(f"the ends of {stage.input.name}", asked)
        return found

    def positions_by_stage(self) -> dict[str, dict[int, int | None]]:
        found: dict[str, dict[int, int | None]] = {}
        with self.redis() as client:
            for name, stage in self.stages.items():
                at = {p: client.hget(f"{{{stage.namespace}.{p}}}o", "o") for p in range(self.partitions)}
                found[name] = {p: None if each is None else int(each) for p, each in at.items()}
        return found

    def state_follows(self) -> bool:
        """Whether the state of each stage stands where its offsets do; the labels' stage keeps none, and never catches up with them."""
        committed, positions = self.committed_by_stage(), self.positions_by_stage()
        return all(positions[name] == committed[name] for name, stage in self.stages.items() if stage.entities)

    def evidence_of_stages(self) -> Evidence:
        return Evidence(
            inputs=self.read(self.bound.input.name),
            labels=self.read(self.label_topic),
            hops=self.read(self.stages["by-terminal"].input.name),
            outputs=self.outputs(),
            letters=self.letters(),
            label_letters=self.read(f"{self.label_topic}.dlq"),
            committed=self.committed_by_stage(),
            positions=self.positions_by_stage(),
        )

    def faults_of_stages(self) -> list[str]:
        """What is wrong, in words; at most ten."""
        found: list[Fault] = self.judge_of_stages.faults(self.evidence_of_stages())
        return [str(fault) for fault in found[:10]]
