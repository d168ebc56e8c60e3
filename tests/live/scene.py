"""One test's stage: the example's pipeline under names of its own, its topics, its model, and worker processes to run and to end.

A worker is the command a user runs, in a process of its own that is forked from one which has imported everything. Tests wait for facts
(an offset committed, a line in the log, a page's answer), never for time to pass.
"""

from __future__ import annotations

import atexit
import io
import json
import signal
import struct
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import fastavro
import redis
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.faults.nursery import Nursery, Overdue
from streams.kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition, plain_consumer, plain_producer
from streams.local.process import choose_port
from streams.planning.create_topics import create
from streams.planning.stage import Stage, stages
from streams.scored_event import output_schema
from streams.settings import Settings
from tests.live.model import VERSION, write_model
from tests.oracles.payments import Evidence, Fault, Payments, Record
from tests.services import Broker

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "card_fraud"
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.02
START_MS = 1_704_067_200_000
# A customer alone may live in many partitions; a terminal's events would be scattered over them.
CUSTOMERS_ONLY = {"entities=(customer, terminal)": "entities=(customer,)", ", *terminal.feature_names": ""}


class Waited(AssertionError):
    """What a test waited for did not come."""


def wait_for(what: str, seen: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Wait until something is so; what was seen."""
    end = time.monotonic() + seconds
    while not (found := seen()):
        if time.monotonic() > end:
            raise Waited(f"{what}: not within {seconds} s")
        time.sleep(LOOK_SECONDS)
    return found


@cache
def nursery() -> Nursery:
    """What forks the workers of this process's tests: an import a test run, and not one a worker."""
    opened = Nursery(python_path=(str(ROOT),))
    atexit.register(opened.close)
    return opened


class Worker:
    """A running `millrace run`."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, port: int, born_of: Nursery | None = None
    ) -> None:
        self.port = port
        self.began = time.monotonic()
        self._child = (born_of or nursery()).start(["millrace", "run", *arguments], environment, log)

    @property
    def log(self) -> str:
        return self._child.log

    @property
    def lives(self) -> bool:
        return self._child.lives

    @property
    def code(self) -> int | None:
        return self._child.code

    def says(self, words: str, times: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Wait until its log has these words so often."""
        wait_for(f"{words!r} in\n{self.log[-3_000:]}", lambda: self.log.count(words) >= times or not self._alive_or_fail(words), seconds)

    def _alive_or_fail(self, words: str) -> bool:
        if not self.lives and words not in self.log:
            raise Waited(f"ended with {self.code} before it said {words!r}:\n{self.log[-3_000:]}")
        return True

    def ends(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait until it ended; its exit code, negative = a signal's number."""
        try:
            return self._child.ends(seconds)
        except Overdue:
            raise Waited(f"the worker goes on:\n{self.log[-3_000:]}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._child.signal(number)

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def kill(self) -> None:
        """End it as a crash does."""
        self._child.kill()

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages; 0 = nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        return self.page("/readyz")[0] == 200

    def stages(self) -> dict[str, Any]:
        """What its /readyz says, by stage."""
        found: dict[str, Any] = json.loads(self.page("/readyz")[1])["stages"]
        return found

    def metric(self, line_start: str) -> float:
        """A metric's value, the sum over all lines that start so."""
        lines = self.page("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))


@dataclass
class Scene:
    """The pipeline of one test.

    Attributes:
        folder: has the pipeline file, its schemas, its model, the workers' logs.
        broker: where its topics are.
        redis_url: where its state is.
        partitions: of each topic.
        changes: of the example's text: old and new.
        environment: settings of its workers.
        born_of: what forks its workers; None = what forks everybody's.
    """

    folder: Path
    broker: Broker
    redis_url: str
    partitions: int = 1
    changes: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    make_topics: bool = True
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    workers: list[Worker] = field(default_factory=list)
    schemas: dict[int, Any] = field(default_factory=dict)
    born_of: Nursery | None = None

    def __post_init__(self) -> None:
        (self.folder / "schemas").mkdir(parents=True, exist_ok=True)
        schema = (EXAMPLE / "schemas" / "1-payments-value.avsc").read_text()
        (self.folder / "schemas" / f"1-{self.name}-value.avsc").write_text(schema)
        self.schemas[1] = fastavro.parse_schema(fastavro.schema.load_schema(str(EXAMPLE / "schemas" / "1-payments-value.avsc")))
        self.write_pipeline(self.changes)
        write_model(self.bound, self.bound.model_path)
        if self.make_topics:
            create(self.bound, self.settings, self.partitions, 1)

    # --- the pipeline ---

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.py"

    def write_pipeline(self, changes: Mapping[str, str]) -> None:
        """The example's file with names of its own, and whatever else is to be different."""
        text = (EXAMPLE / "pipeline.py").read_text()
        names = {
            '"payments",': f'"{self.name}",',
            "schemas/1-payments-value": f"schemas/1-{self.name}-value",
            'Pipeline(\n    "card_fraud"': f'Pipeline(\n    "{self.name}"',
            '"payments.scored"': f'"{self.name}.scored"',
        }
        for old, new in {**names, **changes}.items():
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the example"
            text = text.replace(old, new)
        self.file.write_text(text)
        self.reload()

    def reload(self) -> None:
        """Take the pipeline file as it is now."""
        self.bound: Bound = load_bound(self.file)

    @property
    def stage(self) -> Stage:
        return stages(self.bound, self.partitions)[0]

    @property
    def settings(self) -> Settings:
        return Settings.model_validate({"kafka": {"bootstrap_servers": self.broker.bootstrap_servers}, "redis": {"url": self.redis_url}})

    @property
    def judge(self) -> Payments:
        """Knows what should have come out."""
        definition: Any = output_schema(self.bound).definition
        return Payments(
            schemas=self.schemas,
            output=fastavro.parse_schema(definition),
            model=self.bound.model.name,
            version=VERSION,
            fingerprints=[self.bound.features.fingerprint],
            terminals=len(self.bound.pipeline.entities) == 2,
        )

    # --- workers ---

    def worker(self, instance: str = "a", *arguments: str, port: int | None = None, **environment: str) -> Worker:
        """Start one. Variables are named without their MILLRACE_."""
        variables = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "KAFKA__INSTANCE": f"{self.name}-{instance}",
            "KAFKA__START": "earliest",
            "KAFKA__SESSION_TIMEOUT_MS": "2000",
            "REDIS__URL": self.redis_url,
            "HEALTH__PORT": str(choose_port(None) if port is None else port),
            "WORKER__BATCH_RECORDS": "250",
            **self.environment,
            **environment,
        }
        ours = {f"MILLRACE_{name}": value for name, value in variables.items() if value}
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker([str(self.file), *arguments], ours, log, int(variables["HEALTH__PORT"]), self.born_of)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.lives:
                worker.kill()
        if "_reader" in self.__dict__:
            self._reader.close()

    # --- records ---

    def encode(self, payment: Mapping[str, Any], schema_id: int = 1) -> bytes:
        """A payment as Confluent's wire format has it."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self.schemas[schema_id], dict(payment))
        return b"\0" + struct.pack(">i", schema_id) + out.getvalue()

    def send(self, values: Iterable[tuple[bytes | None, bytes | None]], partition: int = -1, **extra: Any) -> None:
        """Put (key, value) pairs on the input topic, and wait until they are there."""
        producer = self._producer
        for key, value in values:
            producer.produce(self.bound.input.name, value, key, partition, **extra)
        left = producer.flush(WAIT_SECONDS)
        assert left == 0, f"the broker did not take {left} records"

    def send_payments(self, payments: Iterable[Mapping[str, Any]]) -> None:
        self.send((payment["customer_id"].encode(), self.encode(payment)) for payment in payments)

    # --- what is left ---

    @cached_property
    def _producer(self) -> Producer:
        return plain_producer(self.settings.kafka, 2_000_000)

    @cached_property
    def _reader(self) -> Consumer:
        """Asks for the group's offsets, without being a member."""
        return plain_consumer(self.settings.kafka, self.stage.group(self.settings.kafka))

    def committed(self) -> dict[int, int | None]:
        """The group's offsets, by partition; waits while a transaction is open on them."""
        here = [TopicPartition(self.bound.input.name, p) for p in range(self.partitions)]
        return {tp.partition: None if tp.offset < 0 else tp.offset for tp in self._reader.committed(here, 10.0)}

    def commit_offset(self, offset: int) -> None:
        """Set the group's offset of partition 0, as an operator's tool does while no worker runs."""
        self._while_the_group_is_empty(
            lambda: self._reader.commit(offsets=[TopicPartition(self.bound.input.name, 0, offset)], asynchronous=False)
        )

    def delete_offsets(self) -> None:
        """Let the group be forgotten."""
        group, client = self.stage.group(self.settings.kafka), self.broker.admin

        def delete() -> object:
            return client.delete_consumer_groups([group])[group].result()

        self._while_the_group_is_empty(delete)

    def _while_the_group_is_empty(self, change: Callable[[], object]) -> None:
        def changed() -> bool:
            try:
                change()
                return True
            except KafkaException:
                return False  # a member that has left is not forgotten yet

        wait_for("the group to be changed", changed)

    def ends(self) -> dict[int, int]:
        """Where the input ends, by partition."""
        here = self.bound.input.name
        return {p: self._reader.get_watermark_offsets(TopicPartition(here, p), 10.0)[1] for p in range(self.partitions)}

    def drained(self, worker: Worker | None = None, seconds: float = WAIT_SECONDS) -> None:
        """Wait until everything on the input is committed."""
        ends = self.ends()
        self._await(f"all of {ends} committed", lambda now: all((now[p] or 0) >= ends[p] for p in ends), worker, seconds)

    def progressed(self, records: int, worker: Worker | None = None) -> None:
        """Wait until so many offsets are committed, of all partitions together."""
        self._await(f"{records} committed", lambda now: sum(each or 0 for each in now.values()) >= records, worker)

    def _await(
        self, what: str, enough: Callable[[dict[int, int | None]], bool], worker: Worker | None, seconds: float = WAIT_SECONDS
    ) -> None:
        def seen() -> bool:
            if worker is not None and not worker.lives:
                raise Waited(f"{what}: the worker ended with {worker.code}:\n{worker.log[-3_000:]}")
            try:
                return enough(self.committed())
            except KafkaException:
                return False  # an open transaction, or a broker that is away: asked again

        try:
            wait_for(what, seen, seconds)
        except Waited as error:
            raise Waited(f"{error}; committed {self.committed()}; {worker.log[-3_000:] if worker else ''}") from None

    def add_partitions(self, count: int) -> None:
        """Let the input have so many; this scene's own clients take it as it is then."""
        topic, client = self.bound.input.name, self.broker.admin
        for answer in client.create_partitions([NewPartitions(topic, count)]).values():
            answer.result()
        wait_for("the new partitions", lambda: len(client.list_topics(topic, 5).topics[topic].partitions) == count)
        self.partitions = count
        for name in ("_producer", "_reader"):
            self.__dict__.pop(name, None)

    def positions(self) -> dict[int, int | None]:
        """How far the state has come in Redis, by partition."""
        with self.redis() as client:
            found = {p: client.hget(self.fence_key(p), "o") for p in range(self.partitions)}
        return {p: None if at is None else int(at) for p, at in found.items()}

    def redis(self) -> redis.Redis:
        if self.redis_url.startswith("redis+cluster"):
            first, *_ = self.redis_url.removeprefix("redis+cluster://").split(",")
            return cast(redis.Redis, redis.RedisCluster.from_url(f"redis://{first}"))
        return redis.Redis.from_url(self.redis_url)

    def fence_key(self, partition: int) -> str:
        return f"{{{self.stage.namespace}.{partition}}}o"

    def blocks(self, partition: int = 0) -> list[bytes]:
        """Names of its blocks in Redis."""
        with self.redis() as client:
            return sorted(client.scan_iter(f"{{{self.stage.namespace}.{partition}}}*:*", 10_000))

    def read(self, topic: str) -> list[Record]:
        """All committed records of a topic."""
        return read_topic(self.broker, topic)

    def outputs(self) -> list[Record]:
        return self.read(self.bound.output.name)

    def letters(self) -> list[Record]:
        return self.read(self.bound.input.dead_letters)

    def evidence(self) -> Evidence:
        return Evidence(
            self.bound.input.name,
            self.read(self.bound.input.name),
            self.outputs(),
            self.letters(),
            self.committed(),
            self.positions(),
        )

    def faults(self, *, at_rest: bool = True) -> list[str]:
        """What is wrong, in words; at most ten."""
        found: list[Fault] = self.judge.faults(self.evidence(), at_rest=at_rest)
        return [str(fault) for fault in found[:10]]


def read_topic(broker: Broker, topic: str) -> list[Record]:
    """All records of a topic that a read_committed reader sees now."""
    reader = plain_consumer(broker.settings, "reader")
    try:
        partitions = list(reader.list_topics(topic, 10.0).topics[topic].partitions)
        reader.assign([TopicPartition(topic, p, 0) for p in partitions])
        found: list[Record] = []
        at_end: set[int] = set()
        while len(at_end) < len(partitions):
            first: Any = reader.poll(0.5)  # a consume alone would wait its whole timeout for the rest
            messages: list[Any] = [] if first is None else [first, *reader.consume(10_000, 0)]
            for message in messages:
                error, partition = message.error(), message.partition()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error.str()
                    at_end.add(partition)
                    continue
                headers = tuple(message.headers() or ())
                found.append(Record(partition, message.offset(), message.key(), message.value(), headers, message.timestamp()[1]))
        return found
    finally:
        reader.close()


def payment(number: int, **changes: Any) -> dict[str, Any]:
    """A payment a minute after the one before it, by one of seven customers."""
    return {
        "payment_id": f"P{number:06}",
        "event_time": at_ms(START_MS + number * 60_000),
        "customer_id": f"C{number % 7}",
        "terminal_id": f"T{number % 3}",
        "amount": (number * 37 % 20_000) / 100,
        "currency": "EUR",
        **changes,
    }


def at_ms(milliseconds: int) -> datetime | int:
    """A time as fastavro takes it."""
    return datetime.fromtimestamp(milliseconds / 1_000, UTC) if 0 <= milliseconds < 32_503_680_000_000 else milliseconds


def payments(count: int, first: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [payment(first + i, **changes) for i in range(count)]


def alter_topic(broker: Broker, topic: str, **settings: str) -> None:
    """Change settings of a topic that is there; Kafka's names, with underscores for dots."""
    client = broker.admin
    changes = [ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    for answer in client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)]).values():
        answer.result()
