"""The ground of a round: services of its own behind links, the topics of a pipeline, workers, a feeder and a watch."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import MillraceError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.fault_points import POINTS
from streams.faults.events import Events
from streams.faults.feeder import Feeder
from streams.faults.link import Link
from streams.faults.log import History, committed, read_history
from streams.faults.nursery import Child, Nursery, Overdue
from streams.faults.servers import OwnKafka, OwnRedis, RedisRefused
from streams.faults.watch import Watch
from streams.kafka import KafkaDown, TopicPartition, plain_consumer
from streams.planning.create_topics import create
from streams.planning.stage import Stage, stages
from streams.settings import Settings

TEND_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
QUIET_SECONDS = 90.0  # without any progress while nothing is broken
MOST_PASSED = 15
LATE_ID = 9_000
TAKEN_OVER = re.compile(r"taken_over at=\S+ replay_from=(\d+) live_from=(\d+)")


class Stuck(MillraceError):
    """The pipeline came no further, though nothing was broken any more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a round is set up; drawn from its seed."""

    partitions: int
    workers: int
    static_member: bool
    protocol: str
    batch_records: int
    max_keys: int
    session_timeout_ms: int
    transaction_timeout_ms: int

    @classmethod
    def drawn(cls, chance: random.Random) -> Shape:
        """Any of those that are possible."""
        protocol = "consumer" if chance.random() < 0.25 else "classic"
        return cls(
            partitions=chance.choice((1, 2, 3, 4)),
            workers=chance.choice((1, 2, 2, 3)),
            # The broker's own protocol frees the name of a static member that died only after its session: nothing would come back sooner.
            static_member=chance.random() < 0.6 and protocol == "classic",
            protocol=protocol,
            batch_records=chance.choice((50, 250, 1_000)),
            max_keys=chance.choice((50, 200, 100_000)),
            session_timeout_ms=chance.choice((1_500, 2_000, 2_500)),
            transaction_timeout_ms=chance.choice((2_000, 4_000, 10_000)),
        )


@dataclass(frozen=True, slots=True)
class Hurt:
    """A fault that was done: what, when (seconds since the round began), for how long, and to whom."""

    kind: str
    at_seconds: float
    lasted_seconds: float
    where: str


@dataclass(eq=False)
class Slot:
    """A worker's place: an instance name, and the process that has it now."""

    name: str
    child: Child | None = None
    fault: str = ""
    wakes_at: float = 0.0
    rests: bool = False  # it is not to be started again for now


class Ground:
    """One round's. Everything is ended when it is closed.

    Args:
        file: the pipeline's; which: one of several in it.
        folder: a new one, for all that the round leaves.
        nursery: makes the workers.
        shape: of the round.
        seed: decides everything else.
        rate: events a second.
    """

    def __init__(
        self, file: Path, which: str | None, folder: Path, nursery: Nursery, shape: Shape, seed: int, rate: float, doom: float = 0.4
    ) -> None:
        self.file, self.which, self.folder, self.shape = file.resolve(), which, folder, shape
        self.chance = random.Random(seed)
        self.doom = doom
        self.hurts: list[Hurt] = []
        self.ended: list[str] = []  # workers that ended by themselves: why
        self._nursery = nursery
        self._logs = 0
        self._closing: list[Callable[[], object]] = []
        folder.mkdir(parents=True)
        try:
            self._set_up(seed, rate)
        except BaseException:
            self.close()
            raise

    def _set_up(self, seed: int, rate: float) -> None:
        self.bound: Bound = load_bound(self.file, self.which)
        self.schemas = self.folder / "schemas"
        shutil.copytree(self.bound.schema_folder, self.schemas, ignore=lambda at, names: [n for n in names if not n.endswith(".avsc")])
        self.kafka_link, self.redis_link = Link(), Link()
        self._closing += [self.kafka_link.close, self.redis_link.close]
        self.redis = self._new_redis()
        self.kafka = OwnKafka(self.folder / "kafka", self.kafka_link.port)
        self._closing.append(self.kafka.kill)
        self.kafka_link.server_port, self.redis_link.server_port = self.kafka.linked_port, self.redis.port
        self.kafka.warm_up()
        kafka = {"bootstrap_servers": self.kafka.address}
        self.settings = Settings.model_validate({"kafka": kafka, "registry": {"folder": str(self.schemas)}})
        made = create(self.bound, self.settings, self.shape.partitions, 1)
        self.stages = stages(self.bound, self.shape.partitions)
        ids = {schema["subject"]: schema["id"] for schema in _list(made["schemas"])}
        labels = self.bound.labels
        self.events = Events(
            self.bound, seed, ids.get(self.bound.input.subject, -1), ids.get(labels.topic.subject, -1) if labels is not None else -1
        )
        self.slots = [Slot(f"w{n}") for n in range(self.shape.workers)]
        self.feeder = Feeder(self.bound, self.settings, self.events, rate)
        self._closing.append(self.feeder.close)
        self.watch = Watch(self.settings.kafka, self.stages, self.shape.partitions, self.position)
        self.began = time.monotonic()
        self.watch.start()
        self._closing.append(self.watch.close)

    def close(self) -> None:
        """End everything that was begun here."""
        for slot in getattr(self, "slots", ()):
            if slot.child is not None and slot.child.lives:
                slot.child.kill()
        for close in reversed(self._closing):
            close()
        self._closing.clear()

    # --- workers ---

    def start(self, slot: Slot, fault: str = "") -> Child:
        """Start the worker of a slot, maybe one that a fault waits for."""
        shape = self.shape
        variables: Mapping[str, object] = {
            "KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{self.kafka_link.port}",
            "KAFKA__INSTANCE": f"{self.folder.name}-{slot.name}",
            "KAFKA__START": "earliest",
            "KAFKA__STATIC_MEMBER": shape.static_member,
            "KAFKA__GROUP_PROTOCOL": shape.protocol,
            "KAFKA__SESSION_TIMEOUT_MS": shape.session_timeout_ms,
            "KAFKA__TRANSACTION_TIMEOUT_MS": shape.transaction_timeout_ms,
            "REDIS__URL": f"redis://127.0.0.1:{self.redis_link.port}/0",
            "REDIS__ANSWER_TIMEOUT_SECONDS": 1,
            "REGISTRY__FOLDER": self.schemas,
            "WORKER__BATCH_RECORDS": shape.batch_records,
            "WORKER__MAX_KEYS": shape.max_keys,
            "WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS": 0.3,
            "DEAD_LETTERS__HALT_SHARE": 1,
            "HEALTH__PORT": 0,
        }
        environment = {f"MILLRACE_{name}": str(value) for name, value in variables.items()} | {"MILLRACE_FAULT": fault}
        which = ["--pipeline", self.which] if self.which else []
        log = self.folder / f"worker-{self._logs:04}-{slot.name}.log"
        self._logs += 1
        slot.fault, slot.wakes_at = fault, 0.0
        slot.child = self._nursery.start(["millrace", "run", str(self.file), *which], environment, log)
        return slot.child

    def drawn_fault(self) -> str:
        """For a worker that begins: none, or a point of its life at which it will be hurt."""
        if self.chance.random() >= self.doom:
            return ""
        deed = self.chance.choice(("kill", "kill", "kill", "stop", "term"))
        point = self.chance.choice(POINTS)
        times = 1 if point == "claimed" else self.chance.randint(1, MOST_PASSED)
        return f"{point}:{times}:{deed}"

    def tend(self) -> None:
        """Start workers that have gone, wake those that were stopped long enough, and note what became of them."""
        for slot in self.slots:
            child = slot.child
            if child is None or slot.rests:
                continue
            if not child.lives:
                self._note_the_end(slot, child)
                self.start(slot, self.drawn_fault())
            elif child.is_stopped and slot.fault and not slot.wakes_at:
                seconds = self.chance.choice((0.2, 1.0, self.zombie_seconds))
                slot.wakes_at = time.monotonic() + seconds
                self.note(f"stopped_at_{slot.fault.split(':')[0]}", slot.name, time.monotonic(), seconds)
            elif slot.wakes_at and time.monotonic() >= slot.wakes_at:
                slot.wakes_at, slot.fault = 0.0, ""
                child.signal(signal.SIGCONT)

    @property
    def zombie_seconds(self) -> float:
        """Past a session, and past a transaction."""
        return max(self.shape.session_timeout_ms, min(self.shape.transaction_timeout_ms, 4_000)) / 1_000 + 0.7

    def _note_the_end(self, slot: Slot, child: Child) -> None:
        if child.expected:
            return
        name, _, rest = slot.fault.partition(":")
        if slot.fault and child.code == -signal.SIGKILL:
            self.note(f"killed_at_{name}", f"{slot.name} at {slot.fault}", time.monotonic())
        elif slot.fault and rest.endswith("term") and child.code == 0:
            self.note(f"terminated_at_{name}", f"{slot.name} at {slot.fault}", time.monotonic())
        else:
            self.ended.append(f"{child.log_file.name} ended with {child.code}: {_last_words(child.log)}")

    def any_slot(self) -> Slot:
        """A worker that runs, if there is one."""
        running = [slot for slot in self.slots if slot.child is not None and slot.child.lives and not slot.wakes_at]
        return self.chance.choice(running or self.slots)

    def meanwhile(self, seconds: float) -> None:
        """Let time pass, while the workers are looked after."""
        end = time.monotonic() + seconds
        while True:
            self.tend()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(TEND_SECONDS, left))

    def await_progress(self, since: float) -> None:
        """Wait until something that came later is committed.

        Raises:
            Stuck: nothing is.
        """
        self._await("progress", lambda: self.watch.progressed(since), QUIET_SECONDS)

    def _await(self, what: str, seen: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not seen():
            if time.monotonic() > deadline:
                logs = "\n".join(_last_words(slot.child.log, 12) for slot in self.slots if slot.child is not None)
                raise Stuck(f"no {what} within {seconds:.0f} s, though nothing is broken; the workers said last:\n{logs}")
            self.meanwhile(TEND_SECONDS)

    # --- what is done, and what becomes of it ---

    def note(self, kind: str, where: str, began: float, lasted: float = 0.0) -> None:
        """Remember a fault."""
        self.hurts.append(Hurt(kind, round(began - self.began, 3), round(lasted, 3), where))

    @contextmanager
    def hurting(self, kind: str, where: str) -> Iterator[None]:
        """Remember a fault, with the time it took."""
        began = time.monotonic()
        yield
        self.note(kind, where, began, time.monotonic() - began)

    def heal(self) -> None:
        """End every fault that lasts, and every worker that one still waits for."""
        self.kafka_link.heal()
        self.redis_link.heal()
        self.doom = 0.0
        for slot in self.slots:
            slot.rests = False
            if slot.child is not None and slot.child.lives and slot.fault:
                slot.child.kill()
        self.tend()

    def drain(self) -> None:
        """Stop feeding, and wait until every stage has read all there is.

        Raises:
            Stuck: it does not.
        """
        self.feeder.close()
        for names in [
            ("labels", *(s.name for s in self.stages if s.kind == "events")),
            *([s.name] for s in self.stages if s.kind == "hop"),
        ]:
            for stage in self.stages:
                if stage.name in names:
                    ends = self._ends(stage)
                    self._await(f"end of {stage.name} ({ends})", lambda s=stage, e=ends: self._is_read(s, e), PATIENCE_SECONDS)  # type: ignore[misc]

    def stop(self) -> None:
        """End the workers as an operator does."""
        for slot in self.slots:
            slot.rests = True
            if slot.child is not None:
                slot.child.signal(signal.SIGTERM)
        for slot in self.slots:
            if slot.child is not None:
                with suppress(Overdue):
                    slot.child.ends()
                if slot.child.code != 0:
                    self.ended.append(f"{slot.child.log_file.name} was stopped and ended with {slot.child.code}")

    def history(self) -> History:
        """What is left."""
        return read_history(self.bound, self.settings.kafka, self.position)

    def position(self, stage: Stage, partition: int) -> int | None:
        """How far a partition's state has come; None = there is none, or Redis is away."""
        try:
            found = self.redis.ask("HGET", f"{{{stage.namespace}.{partition}}}o", "o")
        except (OSError, RedisRefused):
            return None
        return None if found is None else int(found)

    def replayed(self) -> int:
        """Offsets that were read again into the state only, by all workers together."""
        logs = [file.read_text(encoding="utf-8", errors="replace") for file in self.folder.glob("worker-*.log")]
        return sum(int(live) - int(replay) for log in logs for replay, live in TAKEN_OVER.findall(log))

    def said(self) -> Counter[str]:
        """What the workers logged besides, by the line's first word: how often they began anew, and why they could not."""
        found: Counter[str] = Counter()
        for file in self.folder.glob("worker-*.log"):
            text = file.read_text(encoding="utf-8", errors="replace")
            found.update(re.findall(r"(?<= )(starting_over|take_over_later|state_dropped|fenced_by_name|lost)(?= at| id)", text))
        return found

    def facts(self) -> dict[str, Any]:
        """The round's shape, for a report."""
        return asdict(self.shape)

    def promote(self) -> None:
        """Let a replica of Redis take over from the one there is, which dies."""
        replica = self._new_redis()
        replica.follow(self.redis.port)
        deadline = time.monotonic() + 10.0
        while not replica.has_followed() and time.monotonic() < deadline:
            self.meanwhile(TEND_SECONDS)
        self.meanwhile(self.chance.random() * 0.3)
        self.redis.kill()
        self.redis_link.cut(reset=False)
        replica.follow(None)
        self.redis, self.redis_link.server_port = replica, replica.port

    def _new_redis(self) -> OwnRedis:
        redis = OwnRedis(self.folder / f"redis-{len(list(self.folder.glob('redis-*')))}")
        self._closing.append(redis.kill)
        return redis

    def _ends(self, stage: Stage) -> dict[int, int]:
        reader = plain_consumer(self.settings.kafka, "millrace-checker")
        try:
            return {p: reader.get_watermark_offsets(TopicPartition(stage.input.name, p), 10.0)[1] for p in range(self.shape.partitions)}
        finally:
            reader.close()

    def _is_read(self, stage: Stage, ends: Mapping[int, int]) -> bool:
        try:
            now = committed(self.settings.kafka, stage, self.shape.partitions)
        except KafkaDown:
            return False
        return all((now.get(p) or 0) >= end for p, end in ends.items())


def _last_words(log: str, lines: int = 1) -> str:
    said = [line for line in log.splitlines() if line.strip() and "librdkafka" not in line and "kafka_error" not in line]
    return "\n".join(said[-lines:])


def _list(value: Any) -> list[Any]:
    assert isinstance(value, list)
    return value
