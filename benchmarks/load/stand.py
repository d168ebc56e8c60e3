"""Where a load runs: a Kafka and a Redis, the pipeline's topics on them, its workers.

By itself the harness brings services of its own and a copy of the pipeline in a temporary folder, and leaves nothing behind. On services
that the settings name it uses the pipeline's own topics, and only if nobody has used them before: a load among real events would be the
worse for both.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from benchmarks.load.reader import end_of, partitions_of
from benchmarks.load.watch import service_process
from inference.load_model import load_model
from inference.model_card import bind as bind_model
from schemas.errors import LocalServiceError, MillraceError, ModelError, StoreDown, TopicError
from schemas.registry import Registry, open_registry
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import KafkaDown, KafkaException, admin, cause, plain_consumer
from streams.local import services as local
from streams.local.process import choose_port
from streams.planning.create_topics import create
from streams.settings import KafkaSettings, RedisSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.parquet", "*.csv", "*.jsonl")
ANSWER_SECONDS = 10.0
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
SHOWN_LINES = 12
LOOK_SECONDS = 0.25  # a page of metrics costs a worker some milliseconds
# What this shell says of settings is not what the workers of our own services are to run with.
FOREIGN = re.compile(r"MILLRACE_SETTINGS|MILLRACE_\w+__\w+|(KAFKA_BOOTSTRAP_SERVERS|REDIS_URL|SCHEMA_REGISTRY_URL|LOG_LEVEL)(_FILE)?")


class WorkerEnded(MillraceError):
    """A worker ended in the middle of a run."""


@dataclass
class Stand:
    """The services and the pipeline that are measured.

    Attributes:
        bound: the pipeline.
        which: its name, if its file defines several.
        settings: where broker and Redis are.
        folder: for logs; temporary.
        environment: for workers.
        services: the folder of the services, if they are ours.
        model: what scores, in words.
    """

    bound: Bound
    file: Path
    which: str | None
    settings: Settings
    folder: Path
    environment: dict[str, str]
    services: Path | None
    model: str
    partitions: int = 1
    workers: list[Worker] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        """Knows the schemas."""
        return open_registry(self.settings.registry.place(self.bound.schema_folder), self.settings.registry.client_keys)

    @property
    def schema_id(self) -> int:
        """Under which the registry has the input's schema."""
        found = self.registry.latest(self.bound.input.subject)
        if found is None:
            raise TopicError(f"the registry knows no schema of {self.bound.input.subject}; `millrace topics create` registers it")
        return found[0]

    @property
    def kafka_data(self) -> Path | None:
        """The broker's log, if it is ours."""
        return None if self.services is None else self.services / "kafka" / "data"

    @property
    def processes(self) -> dict[str, list[psutil.Process]]:
        """What does the work, by name; the broker and Redis only if they are ours."""
        found = {"worker": [worker.process for worker in self.workers]}
        for name in ("kafka", "redis"):
            process = None if self.services is None else service_process(self.services / name)
            if process is not None:
                found[name] = [process]
        return found

    def redis(self) -> redis.Redis:
        """A client, for counters."""
        return redis.Redis.from_url(self.settings.redis.url.get_secret_value())

    def look(self) -> None:
        """See that every worker runs, and services of our own.

        Raises:
            WorkerEnded: a worker does not; with the end of its log.
            LocalServiceError: a service does not.
        """
        for worker in self.workers:
            worker.look()
        for name in ("kafka", "redis"):
            if self.services is not None and service_process(self.services / name) is None:
                raise LocalServiceError(f"{name} ended in the middle of a run")

    def counted(self, metric: str) -> float:
        """A counter, summed over workers and labels."""
        return sum(worker.counted(metric) for worker in self.workers)

    def batches(self) -> tuple[float, float]:
        """How many batches the workers have had, and records in them; an event counts once a stage."""
        return self.counted("millrace_batch_records_count"), self.counted("millrace_batch_records_sum")

    def spent_seconds(self) -> dict[str, float]:
        """By step: how long the workers have been at it."""
        found: dict[str, float] = {}
        for worker in self.workers:
            for step, seconds in worker.spent_seconds().items():
                found[step] = found.get(step, 0.0) + seconds
        return found

    @contextmanager
    def working(self, count: int) -> Iterator[None]:
        """Let so many workers run, and end them politely."""
        with ExitStack() as stack:
            for number in range(count):
                self.workers.append(stack.enter_context(_worker(self, number)))
            try:
                yield
            finally:
                self.workers.clear()


@dataclass
class Worker:
    """A worker's process."""

    popen: subprocess.Popen[bytes]
    process: psutil.Process
    log: Path
    port: int

    def look(self) -> None:
        """See that it runs.

        Raises:
            WorkerEnded: it does not.
        """
        code = self.popen.poll()
        if code is not None:
            raise WorkerEnded(f"a worker ended with exit code {code}; its log ends with:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])

    def counted(self, metric: str) -> float:
        """A counter, summed over its labels; 0 before the worker answers."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in self._page() if line.startswith((metric + "{", metric + " ")))

    def spent_seconds(self) -> dict[str, float]:
        """By step, and for the transaction: how long it has been at it."""
        found: dict[str, float] = {}
        for line in self._page():
            if line.startswith("millrace_step_seconds_sum{"):
                step = re.search(r'step="([^"]+)"', line)
                name = step.group(1) if step else "?"
            elif line.startswith("millrace_commit_seconds_sum{"):
                name = "transaction"
            else:
                continue
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
        return found

    def _page(self) -> list[str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                return str(answer.read().decode()).splitlines()
        except OSError:
            return []


@contextmanager
def own_stand(file: Path, which: str | None, partitions: int, say: local.Say) -> Iterator[Stand]:
    """Services of our own, topics made, a copy of the pipeline with a model; all gone afterwards.

    Raises:
        MissingProgram: Java, Maven or Redis is not there.
        LocalServiceError: a service does not start.
        Refused: the pipeline can't be used as it stands.
    """
    bound = load_bound(file, which)
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    try:
        home = folder / file.resolve().parent.name
        shutil.copytree(file.resolve().parent, home, ignore=LEFT_OUT)
        bound = load_bound(home / file.name, which)
        model = _model(bound, say)
        services = local.up(folder / "services", say=say)
        kafka = KafkaSettings(bootstrap_servers=services.bootstrap_servers)
        settings = Settings(kafka=kafka, redis=RedisSettings.model_validate({"url": services.redis_url}))
        create(bound, settings, partitions)
        environment = {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}
        environment |= {"KAFKA_BOOTSTRAP_SERVERS": services.bootstrap_servers, "REDIS_URL": services.redis_url}
        yield Stand(bound, home / file.name, which, settings, folder, environment, folder / "services", model, partitions)
    finally:
        local.down(folder / "services")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stand_on(settings: Settings, settings_file: Path | None, file: Path, which: str | None, partitions: int) -> Iterator[Stand]:
    """The services that the settings name, the pipeline's own topics on them.

    Raises:
        KafkaDown: the broker does not answer.
        StoreDown: Redis does not.
        TopicError: a topic has another number of partitions, or records already.
        ModelError: the pipeline's model is missing or made for other features.
    """
    bound = load_bound(file, which)
    _await_services(settings)
    create(bound, settings, partitions)
    _refuse_used(bound, settings, partitions)
    card = load_model(bound.model_path).card
    bind_model(card, bound.features.names, bound.features.fingerprint)
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    environment = dict(os.environ) | ({"MILLRACE_SETTINGS": str(settings_file.resolve())} if settings_file else {})
    environment |= {"KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers, "REDIS_URL": settings.redis.url.get_secret_value()}
    try:
        yield Stand(bound, file, which, settings, folder, environment, None, f"{card.name} {card.version}", partitions)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _model(bound: Bound, say: local.Say) -> str:
    """The pipeline's model, or where it has none that fits a forest of 100 trees over noise: what it costs is what matters."""
    try:
        card = load_model(bound.model_path).card
        bind_model(card, bound.features.names, bound.features.fingerprint)
    except ModelError as error:
        from benchmarks.stages import grow  # trains, and so needs scikit-learn

        say(f"{error}; a forest of 100 trees, ten deep, takes its place")
        grow(bound)
        return "a forest of 100 trees, ten deep, grown on noise"
    return f"{card.name} {card.version}"


def _await_services(settings: Settings) -> None:
    try:
        admin(settings.kafka).list_topics(timeout=ANSWER_SECONDS)
    except KafkaException as error:
        raise KafkaDown(f"Kafka does not answer at {settings.kafka.bootstrap_servers}: {cause(error).str()}") from error
    url = settings.redis.url.get_secret_value()
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=settings.redis.connect_timeout_seconds) as client:
            client.ping()
    except redis.RedisError as error:
        raise StoreDown(f"Redis does not answer where the settings say it is: {error}") from error


def _refuse_used(bound: Bound, settings: Settings, partitions: int) -> None:
    """A load belongs on topics that nobody has used, with as many partitions as were asked for."""
    consumer = plain_consumer(settings.kafka, "millrace-bench")
    try:
        for topic in (bound.input.name, bound.output.name, bound.input.dead_letters):
            places = partitions_of(consumer, topic)
            if topic == bound.input.name and len(places) != partitions:
                raise TopicError(f"topic {topic} has {len(places)} partitions, wanted {partitions}; say --partitions {len(places)}")
            records = sum(end_of(consumer, place) for place in places)
            if records:
                raise TopicError(
                    f"topic {topic} holds {records:,} records or more: a load runs on topics that nobody has used. Leave out --on-settings "
                    "for services of its own, or name topics that are new"
                )
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what is in its topics: {cause(error).str()}") from error
    finally:
        consumer.close()


@contextmanager
def _worker(stand: Stand, number: int) -> Iterator[Worker]:
    port, log = choose_port(None), stand.folder / f"worker-{number}.log"
    environment = stand.environment | {
        "MILLRACE_KAFKA__START": "earliest",
        "MILLRACE_KAFKA__INSTANCE": f"bench-{number}",
        "MILLRACE_HEALTH__PORT": str(port),
    }
    command = [sys.executable, "-m", "millrace", "run", str(stand.file), *(("--pipeline", stand.which) if stand.which else ())]
    with log.open("wb") as out:
        # In a session of its own: Ctrl-C is for us, and we end it in good order.
        popen = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    worker = Worker(popen, psutil.Process(popen.pid), log, port)
    try:
        yield worker
    finally:
        popen.terminate()
        try:
            popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def await_answered(stand: Stand, rows: int, seconds: float) -> Iterator[tuple[float, float]]:
    """Moments, and how many events have been made final by then, until it is so many.

    Raises:
        WorkerEnded: a worker ended before.
    """
    end = time.monotonic() + seconds
    while True:
        stand.look()
        done = stand.counted("millrace_events_scored_total") + stand.counted("millrace_records_refused_total")
        yield time.monotonic(), done
        if done >= rows:
            return
        if time.monotonic() > end:
            raise WorkerEnded(
                f"{done:,.0f} of {rows:,} events are final after {seconds:.0f} seconds; the worker's log ends with:\n"
                f"{stand.workers[0].log_tail()}"
            )
        time.sleep(LOOK_SECONDS)
