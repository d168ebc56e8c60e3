"""Assembly: a stage's steps, source and commit, made of a bound pipeline, the settings, and what the broker said of its topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inference.model_card import ModelCard
from inference.scorer import Scorer
from schemas.codec import Decoder, Encoder
from schemas.errors import LostBlock, MillraceError
from schemas.registry import Registry
from streams.account import Account
from streams.batch import Batch
from streams.bound import Bound
from streams.commit import Commit
from streams.dead_letters import HaltLimit, Letter, Sender, letter
from streams.extract import Extract
from streams.health import Health
from streams.kafka import Consumer, OnPartitions, TopicFacts, TopicPartition, group_consumer, plain_producer, transactional_producer
from streams.metrics import Metrics
from streams.ownership import InFlight, Ownership, Tokens
from streams.refusal import refusal
from streams.refusals import Refusals
from streams.run_step import Step, StepRunner
from streams.score import Score
from streams.scored_event import Stamp
from streams.settings import Settings
from streams.source import Source
from streams.stage import Stage
from streams.takeover import PartitionTakeover
from streams.transaction import Deliveries, Outbox, Transactions, fence
from streams.transform import Transform
from transforms.shard import ShardState
from transforms.store import Store

LAST = "load"


@dataclass(frozen=True, slots=True)
class Given:
    """What the parts are made of."""

    bound: Bound
    settings: Settings
    stage: Stage
    scorer: Scorer
    card: ModelCard
    registry: Registry
    encoder: Encoder
    store: Store
    topics: Mapping[str, TopicFacts]
    metrics: Metrics
    health: Health
    hand_on: Callable[[Batch], None]

    @property
    def threshold(self) -> float:
        """Scores at or above it are positive: the pipeline's own, else the model card's."""
        return self.card.threshold if self.bound.model.threshold is None else self.bound.model.threshold


class Parts:
    """A running stage's parts, joined."""

    def __init__(self, given: Given) -> None:
        bound, settings, stage = given.bound, given.settings, given.stage
        self._given = given
        self._ownership = Ownership()
        self._in_flight = InFlight(settings.worker.in_flight_batches)
        self._refusals = Refusals()
        self._decoder = Decoder(bound.schema, bound.input.framing, given.registry)
        self._transform = Transform(
            bound,
            lambda partition: ShardState(str(partition), stage.entities, given.store, bound.event_time.column, settings.worker.max_keys),
            self._ownership.tokens,
        )
        self._account = Account(
            given.metrics,
            given.health,
            tuple(rule.name for rule in bound.rules),
            bound.model.name,
            given.card.version,
            given.threshold,
            self._transform.resident_keys,
            {name: facts.partitions for name, facts in given.topics.items()},
        )
        self.outbox = self._open_outbox()
        self._takeover = self._make_takeover()
        self.source = self._make_source()
        self.steps: dict[str, Step] = {
            "extract": self._run(
                "extract",
                Extract(
                    bound,
                    self._decoder,
                    self._refusals,
                    given.topics[bound.input.name].max_record_bytes,
                    settings.worker.unknown_schema_retry_seconds,
                ),
            ),
            "transform": self._run("transform", self._transform),
            "score": self._run("score", Score(given.scorer, bound.features.names)),
            LAST: self._run(LAST, self._make_commit()),
        }

    def close(self) -> None:
        """Let go of Kafka and the store, once the source has ended."""
        self.outbox.close()
        self._given.store.close()

    def _run(self, name: str, step: Step) -> Step:
        runner = StepRunner(name, step, self._ownership, self._start_over, self._given.metrics)

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
            self._given.stage.transactional_prefix(settings.kafka),
            lambda name: transactional_producer(settings.kafka, name, self._most_bytes(), self._request_bytes()),
        )

    def _commit_offsets(self, offsets: list[TopicPartition]) -> object:
        return self.source.ask(lambda consumer: consumer.commit(offsets=offsets, asynchronous=False))

    def _most_bytes(self) -> int:
        bound, topics = self._given.bound, self._given.topics
        return max(topics[bound.output.name].max_record_bytes, topics[bound.input.dead_letters].max_record_bytes)

    def _request_bytes(self) -> int:
        bound, topics = self._given.bound, self._given.topics
        least = min(topics[bound.output.name].max_record_bytes, topics[bound.input.dead_letters].max_record_bytes)
        return max(least - 1_024, 1)  # a request's own header

    def _make_takeover(self) -> PartitionTakeover:
        given = self._given
        return PartitionTakeover(
            topic=given.bound.input.name,
            store=given.store,
            state=given.stage.state_fingerprint,
            pipeline=given.bound.fingerprint,
            refusals=self._refusals,
            declared=given.settings.kafka.start,
            on_conflict=given.settings.worker.on_conflict,
            producers=self.outbox.ids,
            fence=lambda names: fence(names, lambda name: transactional_producer(given.settings.kafka, name, self._most_bytes())),
            retention_ms=given.bound.retention_ms,
        )

    def _make_source(self) -> Source:
        given, kafka = self._given, self._given.settings.kafka

        def connected(is_up: bool) -> None:
            given.health.connected = is_up

        def connect(on_assign: OnPartitions, on_revoke: OnPartitions, on_lost: OnPartitions) -> Consumer:
            return group_consumer(kafka, given.stage.group(kafka), given.bound.input.name, on_assign, on_revoke, on_lost, connected)

        return Source(
            topic=given.bound.input.name,
            connect=connect,
            takeover=self._takeover,
            ownership=self._ownership,
            in_flight=self._in_flight,
            hand_on=given.hand_on,
            batch_records=given.settings.worker.batch_records,
            drain_seconds=given.settings.worker.stop_budget_seconds / 2,
            watcher=self._account,
        )

    def _make_commit(self) -> Commit:
        given, bound, settings = self._given, self._given.bound, self._given.settings
        letters_take = given.topics[bound.input.dead_letters].max_record_bytes
        sender = Sender(bound.name, settings.kafka.instance, bound.features.fingerprint, given.card.version)

        def write_letter(batch: Batch, row: int, times_refused: int) -> Letter:
            error, refused_by = refusal(bound, self._decoder, batch, row)
            return letter(batch, row, error, refused_by, sender, time.time_ns() // 1_000_000, letters_take, times_refused)

        return Commit(
            output=bound.output.name,
            dead_letters=bound.input.dead_letters,
            encoder=given.encoder,
            stamp=stamp(given),
            write_letter=write_letter,
            output_bounds_ms=given.topics[bound.output.name].clamp_bounds_ms(),
            letter_bounds_ms=given.topics[bound.input.dead_letters].clamp_bounds_ms(),
            outbox=self.outbox,
            ownership=self._ownership,
            refusals=self._refusals,
            store=given.store,
            state=given.stage.state_fingerprint,
            pipeline=bound.fingerprint,
            limit=HaltLimit(settings.dead_letters.halt_share, settings.dead_letters.halt_window_records),
            final=self._account.final,
            settled=self._transform.settled,
        )


def stamp(given: Given) -> Stamp:
    """What all scored events of a stage say alike."""
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
