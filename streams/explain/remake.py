"""Remake: one event once more through every stage, each with the state its log gives, by the steps of a worker.

A stage's log is read from where its windows begin up to the record, and of it what concerns the record's keys goes through the
worker's own extract and transform, into a store in memory. Where the log does not reach back, a snapshot's blocks of these keys come
first. The state just before the record is kept, to show which events were in which window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from schemas.block_file import read_blocks
from schemas.codec import Decoder
from schemas.columns import Columns, Mask, Nullable, PackedBytes
from schemas.errors import HistoryError, RecordError, StateError
from schemas.registry import open_registry
from schemas.reject import Reject
from streams.batch import Address, Batch
from streams.definition.bound import Bound
from streams.explain.log import READER, LogReader
from streams.extract import Extract, ExtractHop
from streams.hop import HopSchema, texts
from streams.kafka import Record, TopicPartition, admin, committed_by, plain_consumer, topic_facts
from streams.log_reach import Shortfall, shortfall
from streams.pack import pack
from streams.partitioner import partitions_of
from streams.planning.stage import Stage, stages
from streams.recovery import CommitNote, Log
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.run_step import Step
from streams.settings import Settings
from streams.state.places import Place
from streams.state.rebuild import Snapshot, choose
from streams.transform import Transform
from transforms.entity import Entity
from transforms.kernel import REFUSED
from transforms.keys import is_given, key_hashes, key_ids
from transforms.memory_store import MemoryStore
from transforms.past import Past, past_of
from transforms.rows import taken
from transforms.shard import ShardState
from transforms.store import Writes

EVERY_KEY = 1 << 40
TOKEN = 0

Hash = NDArray[np.uint64]  # shape (2,)


@dataclass(frozen=True, slots=True)
class Name:
    """What the log calls a remembered event."""

    event_id: str
    source: Address  # of its record in the input


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an entity remembered of the event's key just before the event."""

    entity: Entity
    key: Mapping[str, str]  # of the event, by column
    past: Past


@dataclass(frozen=True, slots=True)
class Remade:
    """What one stage made of the event.

    Attributes:
        stage: which.
        at: the record it read.
        log: what the broker has of that partition.
        read_from: where reading began.
        records: how many records were looked at.
        snapshot: what it began with; None = with nothing.
        short: how the log falls short of what the windows look back on, if no snapshot helped; None = it doesn't.
        batch: the event alone, as the stage's steps left it.
        refused: why it goes no further; None = it does.
        came_back_from: where the event stood first, under which windows hold it if they do, if it came back as a dead letter; else -1.
        remembered: by entity; those whose key the event lacks are missing.
        names: of events met in the log, by offset.
    """

    stage: Stage
    at: Address
    log: Log
    read_from: int
    records: int
    snapshot: Snapshot | None
    short: Shortfall | None
    batch: Batch
    refused: RecordError | None
    came_back_from: int
    remembered: tuple[Remembered, ...]
    names: Mapping[int, Name]

    @property
    def is_readable(self) -> bool:
        """Whether the record's bytes are an event, even if it is refused as such."""
        return self.batch.rejected[0] == 0 or bool(self.batch.rejected[0] >= Reject.NULL_KEY)

    @property
    def computed(self) -> tuple[str, ...]:
        """The features of its own."""
        return tuple(name for entity in self.stage.entities for name in entity.feature_names)


@dataclass(slots=True)
class Remake:
    """Makes the decision about one record again.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        log: reads topics.
        snapshots: of its state; may be none.
        accept_short_log: make do with what the log has, if that is less than the windows look back on.
        whole_log: read from the log's beginning, whatever the timestamps of its records say.
    """

    bound: Bound
    settings: Settings
    log: LogReader
    snapshots: Sequence[Snapshot] = ()
    accept_short_log: bool = False
    whole_log: bool = False
    _decoders: dict[str, Decoder] = field(default_factory=dict)

    def stages(self, source: Address) -> Iterator[Remade]:
        """The event's way, stage by stage, until it is scored, refused, or not to be found in a stage's log.

        Raises:
            HistoryError: the log does not have the record, or does not reach back as far as its windows.
            StateError: the snapshots do not fit.
            KafkaDown, RetryLater: what it asks does not answer.
        """
        planned = stages(self.bound, self.log.partitions(source.topic))
        at: Address | None = source
        for stage in planned:
            if stage.kind == "labels" or at is None:
                return
            made = self._stage(stage, at)
            yield made
            if made.refused is not None or stage.is_last:
                return
            at = self._passed_on(next(each for each in planned if each.name == stage.feeds[0]), made, source)

    def _stage(self, stage: Stage, at: Address) -> Remade:
        record = self.log.record(at)
        span = self.log.span(at.topic, at.partition)
        if record is None:
            raise HistoryError(f"no record at {at}: the log has {span.start}..{span.end} of that partition, or it is a transaction's mark")
        extract = self._extract(stage, at)
        alone = self._packed(at, [record])
        event = extract(alone)
        hashes = {} if not event.usable[0] else {entity.name: _hash(entity, event.columns) for entity in stage.entities}
        wanted = {name: found for name, found in hashes.items() if found is not None}
        read_from, snapshot, short = self._beginning(stage, at, span, record) if wanted else (at.offset, None, None)
        store = MemoryStore()
        shard = str(at.partition)
        store.claim(shard, {})
        if snapshot is not None:
            store.load(shard, _blocks_of(snapshot, wanted), snapshot.position)
        names: dict[int, Name] = {}
        transform = self._transform(stage, at.partition, store)
        records = 0
        for some in self.log.records(at.topic, at.partition, read_from, at.offset) if wanted else ():
            records += len(some)
            batch = _only(extract(self._packed(at, some)), stage, wanted)
            names |= self._names(stage, batch)
            batch = transform(batch)
            store.write(shard, batch.writes.get(at.partition, ()), some[-1].offset() + 1)
        remembered = tuple(
            Remembered(entity, _key_text(entity, event.columns), past_of(_block(store, shard, entity, wanted[entity.name]), entity))
            for entity in stage.entities
            if entity.name in wanted
        )
        batch = transform(event)
        refused = None if batch.usable[0] else refusal(self.bound, self._decoders[stage.name], batch, 0)[0]
        came_back = -1 if alone.first_offsets is None else int(alone.first_offsets[0])
        came_back = REFUSED - came_back if came_back <= REFUSED else came_back
        return Remade(stage, at, span, read_from, records, snapshot, short, batch, refused, came_back, remembered, names)

    # --- where a stage's log is begun with ---

    def _beginning(self, stage: Stage, at: Address, span: Log, record: Record) -> tuple[int, Snapshot | None, Shortfall | None]:
        """Where to read from, the snapshot to begin with, and how the log falls short if there is none."""
        stamp_ms = record.timestamp()[1]
        since_ms = stamp_ms - stage.retention_ms
        read_from = span.start if self.whole_log else min(self.log.offset_at(at.topic, at.partition, since_ms), at.offset)
        here = TopicPartition(at.topic, at.partition)
        reader = plain_consumer(self.settings.kafka, READER)
        try:
            short = shortfall(reader, here, span, at.offset, stage.retention_ms)
        finally:
            reader.close()
        if short is None:
            return read_from, None, None
        if self.snapshots:
            chosen = self._snapshot(stage, at, span)
            return chosen.position, chosen, None
        if not self.accept_short_log:
            raise HistoryError(
                f"{at}: {short}. `--snapshot FOLDER` begins with what `millrace state snapshot` kept; "
                "`--accept-short-log` makes do with what the log has"
            )
        return span.start, None, short

    def _snapshot(self, stage: Stage, at: Address, span: Log) -> Snapshot:
        """The newest one that is whole at the record and joins the log."""
        facts = topic_facts(admin(self.settings.kafka), (stage.input.name,))[stage.input.name]
        fit = [each for each in self.snapshots if int(each.note["complete_at"]) <= at.offset and each.position >= span.start]
        if not fit:
            found = ", ".join(f"{each.file.name} at {each.note['position']}..{each.note['complete_at']}" for each in self.snapshots)
            raise StateError(
                f"no snapshot for {at}: wanted one that is complete by then and not older than {span.start}; there are {found}"
            )
        wanted = self.bound.describe_state(stage.entities)
        newest_first = sorted(fit, key=lambda each: -each.position)
        return choose(newest_first, wanted, Place(stage, facts), at.partition)

    # --- a stage's steps ---

    def _extract(self, stage: Stage, at: Address) -> Step:
        if stage.kind == "hop":
            hop = HopSchema.of(self.bound, stage)
            self._decoders[stage.name] = hop.decoder()
            return ExtractHop(hop)
        place = self.settings.registry.place(self.bound.schema_folder)
        decoder = Decoder(self.bound.schema, stage.input.framing, open_registry(place, self.settings.registry.client_keys))
        self._decoders[stage.name] = decoder
        client = admin(self.settings.kafka)
        refusals = Refusals()
        for committed in committed_by(client, [stage.group(self.settings.kafka)])[stage.group(self.settings.kafka)]:
            if (committed.topic, committed.partition) == (at.topic, at.partition):
                note = CommitNote.load(committed.metadata)
                refusals.learn(at.partition, note.refused if note else {})
        most = topic_facts(client, (at.topic,))[at.topic].max_record_bytes
        return Extract(self.bound, decoder, refusals, most, unknown_schema_retry_seconds=0)

    def _transform(self, stage: Stage, partition: int, store: MemoryStore) -> Transform:
        time = self.bound.event_time.column

        def open_state(shard: int) -> ShardState:
            return ShardState(str(shard), stage.entities, store, time, EVERY_KEY)

        return Transform(self.bound, open_state, lambda: {partition: TOKEN}, stage)

    def _packed(self, at: Address, records: Sequence[Record]) -> Batch:
        return pack(at.topic, {at.partition: records}, {at.partition: records[-1].offset() + 1}, {at.partition: TOKEN}, replay=True)

    def _names(self, stage: Stage, batch: Batch) -> dict[int, Name]:
        """What the events of a batch that concern the keys are called."""
        rows = np.flatnonzero(batch.outgoing)
        ids = texts(batch.columns[self.bound.event_id])
        return {int(batch.offsets[row]): Name(ids[row].decode(errors="replace"), batch.origin(row)) for row in rows.tolist()}

    # --- from one stage to the next ---

    def _passed_on(self, stage: Stage, made: Remade, source: Address) -> Address | None:
        """Where the record is that handed the event to a stage; None if there is none (any more, or yet)."""
        hop = HopSchema.of(self.bound, stage)
        topic = stage.input.name
        count = self.log.partitions(topic)
        key = hop.keys(made.batch.columns)[0]
        likely = int(partitions_of(PackedBytes.pack([key or b""]), count)[0])
        time = made.batch.columns[self.bound.event_time.column]
        event_ms = int(np.asarray(time.values if isinstance(time, Nullable) else time)[0])
        ordered = sorted(range(count), key=lambda partition: partition != likely)
        starts = {partition: self.log.offset_at(topic, partition, event_ms) for partition in ordered}
        search = partial(self._find_hop, hop, source)
        for partition in ordered:
            found = search(partition, starts[partition], self.log.span(topic, partition).end)
            if found is not None:
                return found
        for partition in ordered:
            found = search(partition, self.log.span(topic, partition).start, starts[partition])
            if found is not None:
                return found
        return None

    def _find_hop(self, hop: HopSchema, source: Address, partition: int, first: int, end: int) -> Address | None:
        topic, decoder = hop.stage.input.name, hop.decoder()
        for records in self.log.records(topic, partition, first, end):
            values = PackedBytes.pack([record.value() or b"" for record in records])
            rows = hop.decode(decoder, values, partial(_place, topic, partition, records))
            ours = (rows.rejected == 0) & ~rows.is_label
            ours &= (rows.origins.partitions == source.partition) & (rows.origins.offsets == source.offset)
            for row in np.flatnonzero(ours).tolist():
                return Address(topic, partition, records[row].offset())
        return None


def _place(topic: str, partition: int, records: Sequence[Record], row: int) -> str:
    return f"{topic}[{partition}]@{records[row].offset()}"


def _hash(entity: Entity, columns: Columns) -> Hash | None:
    """The hash of the key of the only row; None if the row lacks it."""
    for name in entity.key_columns:
        if entity.missing_key == "absent" and not is_given(columns[name])[0]:
            return None
    found: Hash = key_hashes(key_ids(entity.key_columns, [columns[name] for name in entity.key_columns]))[0]
    return found


def _key_text(entity: Entity, columns: Columns) -> dict[str, str]:
    return {name: texts(columns[name])[0].decode(errors="replace") for name in entity.key_columns}


def _only(batch: Batch, stage: Stage, wanted: Mapping[str, Hash]) -> Batch:
    """The batch with only those rows usable that have one of the keys, labels included."""
    concerned = np.zeros(len(batch), np.bool_)
    for entity in stage.entities:
        if entity.name in wanted:
            concerned |= _has_key(entity, batch, wanted[entity.name])
    return batch.rejecting(~concerned, Reject.NULL_KEY)


def _has_key(entity: Entity, batch: Batch, wanted: Hash) -> Mask:
    there = batch.usable
    for name in entity.key_columns:
        if entity.missing_key == "absent":
            there = there & is_given(batch.columns[name])
    rows = np.flatnonzero(there)
    found = key_hashes(key_ids(entity.key_columns, [taken(batch.columns[name], rows) for name in entity.key_columns]))
    concerned = np.zeros(len(batch), np.bool_)
    concerned[rows[(found == wanted).all(axis=1)]] = True
    return concerned


def _block(store: MemoryStore, shard: str, entity: Entity, key: Hash) -> bytes:
    return store.read(shard, entity.name, key[None])[0]


def _blocks_of(snapshot: Snapshot, wanted: Mapping[str, Hash]) -> Iterator[Writes]:
    """The snapshot's blocks of these keys; the file is read to its end, so that it is known to be whole."""
    for some in read_blocks(snapshot.file):
        if some.entity in wanted:
            rows = np.flatnonzero((some.keys == wanted[some.entity]).all(axis=1))
            if len(rows):
                yield Writes.whole(some.entity, some.keys[rows], some.data.take(rows))
