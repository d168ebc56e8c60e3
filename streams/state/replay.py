"""Replay: a stretch of one partition's log into the state only, by the steps a worker has, without being a member of its group."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.codec import Decoder
from schemas.registry import open_registry
from streams.definition.bound import Bound
from streams.extract import Extract, ExtractHop
from streams.hop import HopSchema
from streams.kafka import Consumer, Record, TopicPartition, next_messages, plain_consumer
from streams.pack import pack
from streams.progress import Advance
from streams.reading import Reading, Taken
from streams.refusals import Refusals
from streams.run_step import Step
from streams.settings import Settings
from streams.state.places import Place
from streams.transform import Transform
from transforms.shard import ShardState
from transforms.store import Store

ANSWER_SECONDS = 30.0
TOKEN = 1
READER = "millrace-state-rebuild"  # names the reader in the broker's log; nothing is committed


def replay(
    bound: Bound,
    settings: Settings,
    place: Place,
    store: Store,
    partition: int,
    start: int,
    end: int,
    refused: Mapping[int, int],
    advance: Advance,
) -> None:
    """Bring a claimed shard from one offset to another.

    Args:
        bound: the pipeline.
        settings: of the broker, the registry, and how much at a time.
        place: the stage and its topic.
        store: with the shard claimed, and its state at `start`, or none.
        partition: whose log is read.
        start: where the state stands.
        end: where it is to stand.
        refused: schema ids that were refused, with the offsets from which on.
        advance: is told how many offsets were passed.

    Raises:
        KafkaDown, StoreDown: the log can't be read, or the store does not answer.
        FenceLost: somebody else claimed the shard.
    """
    shard, topic = str(partition), place.topic.name
    transform, extract = _steps(bound, settings, place, store, partition, refused)
    consumer = plain_consumer(settings.kafka, READER, off_the_log="error")
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        reading = Reading(start, end, end)
        while (before := reading.position) < end:
            records, reading.end = _poll(consumer, topic, partition, settings.worker.batch_records)
            old = Taken()
            reading.take(partition, [each for each in records if each.offset() >= before], old, Taken())
            if old.next_offsets:
                batch = transform(extract(pack(topic, old.records, old.next_offsets, {partition: TOKEN}, replay=True)))
                next_offset = old.next_offsets[partition]
                store.write(shard, batch.writes.get(partition, ()), next_offset)
                store.settle(shard)
                transform.settled(partition, next_offset)
            advance(min(reading.position, end) - before)
    finally:
        consumer.close()


def _steps(
    bound: Bound, settings: Settings, place: Place, store: Store, partition: int, refused: Mapping[int, int]
) -> tuple[Transform, Step]:
    stage = place.stage
    transform = Transform(
        bound,
        lambda p: ShardState(str(p), stage.entities, store, bound.event_time.column, settings.worker.max_keys),
        lambda: {partition: TOKEN},
        stage,
    )
    if stage.kind == "hop":
        return transform, ExtractHop(HopSchema.of(bound, stage))
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    refusals = Refusals()
    refusals.learn(partition, refused)
    decoder = Decoder(bound.schema, bound.input.framing, registry)
    return transform, Extract(bound, decoder, refusals, place.topic.max_record_bytes, settings.worker.unknown_schema_retry_seconds)


def _poll(consumer: Consumer, topic: str, partition: int, most: int) -> tuple[list[Record], int]:
    """Records in log order, and where the partition ended if that was seen, else 0."""
    found = next_messages(consumer, f"{topic}[{partition}]", most, ANSWER_SECONDS)
    ends = [message.offset() for message in found if message.error() is not None]
    return [message for message in found if message.error() is None], max(ends, default=0)
