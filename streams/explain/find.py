"""Find the record of the input that a decision was about: by an address on its way, or by the event's id."""

from __future__ import annotations

import numpy as np

from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import HistoryError, SettingsError, TopicError
from schemas.framing import CloudEvents
from schemas.registry import open_registry
from streams.batch import Address
from streams.definition.bound import Bound
from streams.explain.log import LogReader
from streams.explain.served import Outputs
from streams.hop import HopSchema, texts
from streams.pack import headers_by_row
from streams.planning.stage import stages
from streams.settings import Settings


def sources_of(
    bound: Bound, settings: Settings, log: LogReader, outputs: Outputs, at: Address | None, event_id: str | None
) -> list[Address]:
    """Where the input has what is meant; of an event id that came several times all, the newest last.

    Raises:
        SettingsError: the address is of a topic that the pipeline's events do not go through.
        TopicError: the pipeline's input or output is not there.
        HistoryError: there is no such record, or no such event.
        KafkaDown, RetryLater: what it asks does not answer.
    """
    missing = [topic for topic in (bound.input.name, bound.output.name) if not log.partitions(topic)]
    if missing:
        raise TopicError(f"no topic {', '.join(missing)} on the broker; there is no decision of pipeline {bound.name!r} to make again")
    if at is not None and 0 < (count := log.partitions(at.topic)) <= at.partition:
        raise HistoryError(f"no record at {at}: {at.topic} has {count} partitions")
    if at is not None:
        return [_source_at(bound, log, outputs, at)]
    assert event_id is not None
    served = sorted({each.source for each in outputs.of_event(event_id)}, key=lambda each: (each.partition, each.offset))
    found = served or _in_the_input(bound, settings, log, event_id)
    if not found:
        raise HistoryError(f"no event {event_id!r} among the scored ones in {bound.output.name}, nor in {bound.input.name}")
    return found


def _source_at(bound: Bound, log: LogReader, outputs: Outputs, at: Address) -> Address:
    if at.topic == bound.input.name:
        return at
    if at.topic == bound.output.name:
        return outputs.at(at).source
    hops = {stage.input.name: stage for stage in stages(bound, log.partitions(bound.input.name)) if stage.kind == "hop"}
    if at.topic not in hops:
        known = ", ".join((bound.input.name, bound.output.name, *hops))
        raise SettingsError(f"{at} is in no topic that events of pipeline {bound.name!r} go through; these are {known}")
    record = log.record(at)
    if record is None:
        span = log.span(at.topic, at.partition)
        raise HistoryError(f"no record at {at}: the log has {span.start}..{span.end} of that partition, or it is a transaction's mark")
    hop = HopSchema.of(bound, hops[at.topic])
    rows = hop.decode(hop.decoder(), PackedBytes.pack([record.value() or b""]), lambda row: str(at))
    if rows.rejected[0] or rows.is_label[0]:
        raise HistoryError(f"{at} is {'a label' if rows.is_label[0] else 'no record of ours'}, wanted an event")
    return Address(bound.input.name, int(rows.origins.partitions[0]), int(rows.origins.offsets[0]))


def _in_the_input(bound: Bound, settings: Settings, log: LogReader, event_id: str) -> list[Address]:
    """Every record of the input with this event id: refused ones too, if their bytes can be read."""
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    decoder = Decoder(bound.schema, bound.input.framing, registry)
    topic, wanted = bound.input.name, event_id.encode()
    in_sight = bound.input.framing != "json" and not isinstance(bound.input.framing, CloudEvents)
    found = []
    for partition in range(log.partitions(topic)):
        span = log.span(topic, partition)
        for records in log.records(topic, partition, span.start, span.end):
            # The id's bytes stand in Avro as they are; in JSON they may be escaped, and in a CloudEvent among the headers.
            likely = [record for record in records if not in_sight or wanted in (record.value() or b"")]
            if not likely:
                continue
            decoded = decoder.decode(PackedBytes.pack([record.value() or b"" for record in likely]), None, headers_by_row(likely))
            ids = texts(decoded.columns[bound.event_id])
            for row in np.flatnonzero(decoded.rejected == 0).tolist():
                if ids[row] == wanted:
                    found.append(Address(topic, partition, likely[row].offset()))
    return found
