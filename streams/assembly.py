"""Assembly: a stage's steps, source and commit, made of a bound pipeline, the settings, and what the broker said of its topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from inference.model_card import ModelCard
from inference.scorer import Scorer
from schemas.codec import Decoder, Encoder
from schemas.errors import LostBlock, MillraceError
from schemas.registry import Registry
from streams.account import Account
from streams.alignment import Alignment
from streams.batch import Batch
from streams.commit import Commit
from streams.constraint_counts import counting_constraints
from streams.dead_letters import HaltLimit, Letter, Refused, Sender, as_it_came, letter
from streams.definition.bound import Bound, BoundLabels
from streams.extract import Extract, ExtractHop
from streams.frame import Line
from streams.health import Health
from streams.hop import HopSchema
from streams.kafka import (
    Consumer,
    OnPartitions,
    TopicFacts,
    TopicPartition,
    admin,
    group_consumer,
    plain_consumer,
    plain_producer,
    transactional_producer,
)
from streams.metrics import Metrics
from streams.originals import Originals
from streams.output import Output
from streams.ownership import InFlight, Ownership, Tokens
from streams.planning.stage import Stage, fed_by
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.run_step import Step, StepRunner
from streams.score import Score
from streams.scored_event import Stamp
from streams.settings import Settings
from streams.source import Source
from streams.stage_outputs import hop_outputs, scored_output
from streams.takeover import PartitionTakeover
from streams.timed_store import TimedStore
from streams.transaction import Deliveries, Outbox, Transactions, fence
from streams.transform import Transform
from streams.upstream import Feed, Upstream
from transforms.shard import ShardState
from transforms.store import Store

LAST = "load"


@dataclass(frozen=True, slots=True)
class Given:
    """What the parts of all stages are made of."""

    bound: Bound
    settings: Settings
    stages: tuple[Stage, ...]  # the pipeline's, run here or not
    scorer: Scorer
    card: ModelCard
    registry: Registry
    encoder: Encoder  # of scored events
    topics: Mapping[str, TopicFacts]
    hand_on: Callable[[str, Batch, bool], None]  # to a stage's line; whether the batch is alone in it

    @property
    def threshold(self) -> float:
        """Scores at or above it are positive: the pipeline's own, else the model card's."""
        return self.card.threshold if self.bound.model.threshold is None else self.bound.model.threshold


class Parts:
    """A running stage's parts, joined."""

    def __init__(self, given: Given, stage: Stage, store: Store) -> None:
        bound, settings = given.bound, given.settings
        self._given, self.stage = given, stage
        self.metrics = Metrics(bound.name, bound.model.name, given.card.version, bound.features.fingerprint)
        self.health = Health(settings.health.livez_stalled_seconds, lambda: self.source.ends(), lambda: self.source.beat_seconds)
        self._store = TimedStore(store, self.metrics.store_took)
        self._ownership = Ownership()
        self._in_flight = InFlight(settings.worker.in_flight_batches)
        self._refusals = Refusals()
        self._transform = Transform(bound, self._open_state, self._ownership.tokens, stage)
        self._read: Bound | BoundLabels = bound.labels if stage.kind == "labels" and bound.labels is not None else bound
        self._originals = Originals(lambda: plain_consumer(settings.kafka, f"{stage.group(settings.kafka)}.originals"))
        self._account = Account(
            self.metrics,
            self.health,
            tuple(rule.name for rule in self._read.rules),
            bound.model.name,
            given.card.version,
            given.threshold,
            self._transform.resident_keys,
            {name: facts.partitions for name, facts in given.topics.items()},
        )
        self.outbox = self._open_outbox()
        self._takeover = self._make_takeover()
        self._upstream = self._make_upstream()
        self.source = self._make_source()
        self.line = Line(stage.name, [(name, self._run(name, step)) for name, step in self._steps()], self._run_source, self.source.abandon)

    # --- what differs between kinds of stages ---

    def _steps(self) -> Iterator[tuple[str, Step]]:
        given, stage = self._given, self.stage
        if stage.kind == "hop":
            hop = HopSchema.of(given.bound, stage)
            self._decoder = hop.decoder()
            yield "extract", ExtractHop(hop)
        else:
            topic_bytes = given.topics[stage.input.name].max_record_bytes
            self._decoder = Decoder(self._read.schema, stage.input.framing, given.registry)
            yield (
                "extract",
                Extract(self._read, self._decoder, self._refusals, topic_bytes, given.settings.worker.unknown_schema_retry_seconds),
            )
        if stage.kind != "labels":
            yield "transform", self._transform
        if stage.is_last:
            yield "score", Score(given.scorer, given.bound.features.names)
        yield LAST, self._make_commit()

    def _outputs(self) -> tuple[Output, ...]:
        given = self._given
        if self.stage.is_last:
            return (scored_output(self.stage, given.encoder, stamp(given), given.bound.key, given.topics),)
        return hop_outputs(given.bound, self.stage, given.stages, given.topics)

    def _letter_topics(self) -> Mapping[str, str]:
        """Where the dead letters of a topic's records go. A hop record that can't be read is nobody's but the input's."""
        bound, stage = self._given.bound, self.stage
        if stage.kind != "hop":
            return {stage.input.name: stage.input.dead_letters}
        topics = {bound.input.name: bound.input.dead_letters, stage.input.name: bound.input.dead_letters}
        if stage.counts_labels and bound.labels is not None:
            topics[bound.labels.topic.name] = bound.labels.topic.dead_letters
        return topics

    def _refused(self, batch: Batch, rows: Sequence[int]) -> list[Refused]:
        if batch.origins is None:
            return [as_it_came(batch, row) for row in rows]
        places = [batch.origin(row) for row in rows]
        found = self._originals.read(places)
        gone = [Refused(at, None, None, (), int(batch.arrived_ms[row]), there=False) for at, row in zip(places, rows, strict=True)]
        return [found.get(each.at, each) for each in gone]

    # --- the rest is alike ---

    def _run_source(self) -> None:
        try:
            self.source.run()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of Kafka and the store, once the source has ended."""
        self.outbox.close()
        self._originals.close()
        if self._upstream is not None:
            self._upstream.close()
        self._store.close()

    def exposed(self) -> Metrics:
        """The metrics, as of now."""
        self.metrics.lag.clear()
        for partition, records in self.health.lag().items():
            self.metrics.lag.labels(self.stage.input.name, partition).set(records)
        return self.metrics

    def _open_state(self, partition: int) -> ShardState:
        given = self._given
        return ShardState(str(partition), self.stage.entities, self._store, given.bound.event_time.column, given.settings.worker.max_keys)

    def _run(self, name: str, step: Step) -> Step:
        runner = StepRunner(name, step, self._ownership, self._start_over, self.metrics)

        def counted(batch: Batch) -> Batch:
            done = False
            try:
                given_on = runner(batch)
                done = True
                return given_on
            finally:
                if name == LAST or not done:  # a batch that fails goes no further
                    self._in_flight.leave()

        return counted

    def _start_over(self, tokens: Tokens, error: MillraceError) -> None:
        if isinstance(error, LostBlock):
            self._takeover.damaged.update(partition for partition in tokens if str(partition) == error.shard)
        self._account.started_over(tokens, error)
        self.source.start_over(tokens, error)

    def _open_outbox(self) -> Outbox:
        settings = self._given.settings
        if settings.worker.delivery == "at_least_once":
            return Deliveries(plain_producer(settings.kafka, self._most_bytes()), self._commit_offsets)
        return Transactions(
            self.stage.transactional_prefix(settings.kafka),
            lambda name: transactional_producer(settings.kafka, name, self._most_bytes(), self._request_bytes()),
        )

    def _commit_offsets(self, offsets: list[TopicPartition]) -> object:
        return self.source.ask(lambda consumer: consumer.commit(offsets=offsets, asynchronous=False))

    def _written(self) -> list[TopicFacts]:
        names = [*(topic.name for topic in self.stage.outputs), *self._letter_topics().values()]
        return [self._given.topics[name] for name in names]

    def _most_bytes(self) -> int:
        return max(topic.max_record_bytes for topic in self._written())

    def _request_bytes(self) -> int:
        least = min(topic.max_record_bytes for topic in self._written())
        return max(least - 1_024, 1)  # a request's own header

    def _make_takeover(self) -> PartitionTakeover:
        given, stage = self._given, self.stage
        return PartitionTakeover(
            topic=stage.input.name,
            store=self._store,
            state=stage.state_fingerprint,
            pipeline=given.bound.fingerprint,
            refusals=self._refusals,
            # Whatever a stage before has put out is to be read, wherever that one began.
            declared="earliest" if stage.kind == "hop" else given.settings.kafka.start,
            on_conflict=given.settings.worker.on_conflict,
            producers=self.outbox.ids,
            fence=lambda names: fence(names, lambda name: transactional_producer(given.settings.kafka, name, self._most_bytes())),
            partitions=given.topics[stage.input.name].partitions,
            retention_ms=max((entity.retention_ms for entity in stage.entities), default=0),
            reader=lambda: plain_consumer(given.settings.kafka, f"{stage.group(given.settings.kafka)}.reach"),
            stateless=not stage.entities and not stage.is_alone,
        )

    def _make_source(self) -> Source:
        given, stage, kafka = self._given, self.stage, self._given.settings.kafka

        def connected(is_up: bool) -> None:
            self.health.connected = is_up

        def connect(on_assign: OnPartitions, on_revoke: OnPartitions, on_lost: OnPartitions) -> Consumer:
            return group_consumer(kafka, stage.group(kafka), stage.input.name, on_assign, on_revoke, on_lost, connected)

        return Source(
            topic=stage.input.name,
            connect=connect,
            takeover=self._takeover,
            ownership=self._ownership,
            in_flight=self._in_flight,
            hand_on=lambda batch, alone: given.hand_on(stage.name, batch, alone),
            batch_records=given.settings.worker.batch_records,
            drain_seconds=given.settings.worker.stop_budget_seconds / 2,
            watcher=self._account,
            partitions=given.topics[stage.input.name].partitions,
            alignment=self._make_alignment(),
        )

    def _make_alignment(self) -> Alignment | None:
        """Where several logs become one, about in the order of their times; what comes of the last stage's is nobody's log."""
        most = self._given.settings.worker.batch_records
        if self._upstream is not None:
            return Alignment(most, self._upstream.passed_ms)
        several = self._given.topics[self.stage.input.name].partitions > 1
        return Alignment(most) if several and not self.stage.is_last else None

    def _make_upstream(self) -> Upstream | None:
        """What labels must not overtake: the events on their way to where labels go."""
        given, stage, kafka = self._given, self.stage, self._given.settings.kafka
        if stage.kind != "labels" or given.topics[stage.input.name].on_stand_in:
            return None
        last = max(fed.index for fed in fed_by(stage, given.stages))
        before = [each for each in given.stages if each.kind != "labels" and each.index < last]
        feeds = [Feed(each.group(kafka), each.input.name, given.topics[each.input.name].partitions) for each in before]
        return Upstream(feeds, lambda: admin(kafka), lambda: plain_consumer(kafka, f"{stage.group(kafka)}.upstream"))

    def _make_commit(self) -> Commit:
        given, settings = self._given, self._given.settings
        bounds_ms = {name: given.topics[name].clamp_bounds_ms() for name in self._letter_topics().values()}
        return Commit(
            outputs=self._outputs(),
            write_letters=self._write_letters,
            letter_bounds_ms=bounds_ms,
            outbox=self.outbox,
            ownership=self._ownership,
            refusals=self._refusals,
            store=self._store,
            state=self.stage.state_fingerprint,
            pipeline=given.bound.fingerprint,
            limit=HaltLimit(settings.dead_letters.halt_share, settings.dead_letters.halt_window_records),
            final=self._account.final if self.stage.kind == "hop" else counting_constraints(self._account.final, self._read, self.metrics),
            settled=self._transform.settled,
            partitions=given.topics[self.stage.input.name].partitions,
        )

    def _write_letters(self, batch: Batch, rows: Sequence[int], times_refused: Sequence[int]) -> list[Letter]:
        given, topics = self._given, self._letter_topics()
        sender = Sender(given.bound.name, given.settings.kafka.instance, given.bound.features.fingerprint, given.card.version)
        now_ms = time.time_ns() // 1_000_000
        letters = []
        for row, record, times in zip(rows, self._refused(batch, rows), times_refused, strict=True):
            error, refused_by = refusal(self._read, self._decoder, batch, row)
            schema_id = -1 if batch.schema_ids is None else int(batch.schema_ids[row])
            topic = topics[record.at.topic]
            most_bytes = given.topics[topic].max_record_bytes
            is_label = given.bound.labels is not None and record.at.topic == given.bound.labels.topic.name
            letters.append(letter(row, record, topic, schema_id, error, refused_by, sender, now_ms, most_bytes, times, is_label))
        return letters


def stamp(given: Given) -> Stamp:
    """What all scored events of a pipeline say alike."""
    bound = given.bound
    return Stamp(
        pipeline=bound.name,
        model=bound.model.name,
        version=given.card.version,
        role="champion",
        threshold=given.threshold,
        feature_fingerprint=bound.features.fingerprint,
        features=bound.features.names if bound.pipeline.include_features else (),
        event_id=bound.event_id,
        event_time=bound.event_time.column,
    )
