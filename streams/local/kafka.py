"""A local Apache Kafka: one node, broker and controller in one process (KRaft); it starts fast and guarantees what a cluster does."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from schemas.errors import LocalServiceError
from streams.kafka import KafkaException, TopicPartition, admin, plain_consumer, transactional_producer
from streams.local.kafka_jars import find_java, kafka_jars
from streams.local.process import Service, await_listening, choose_port, recall, start
from streams.settings import KafkaSettings

NAME = "kafka"
HEAP_MB = 512
FORMAT_SECONDS = 60.0
ASK_SECONDS = 2.0
WARM_UP = "millrace-warm-up"

# A broker that shares two cores with its clients. The optimising compiler (C2) would work for a minute after each start, on cores that
# the events need: without it the p99 of the first minute at 10,000 events/s is 47 ms instead of 113, and a drained topic no slower.
# What survives a collection of the young generation is copied once, not fifteen times: pauses of 17 ms instead of 25.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
YOUNG = ("-Xmn128m", "-XX:MaxTenuringThreshold=1")
JVM_VARIABLE = "KAFKA_JVM_PERFORMANCE_OPTS"  # by which Kafka's own scripts are told of others

# One node keeps every copy there is. Internal topics are small, since their partitions are what a start waits for, and the group's
# clocks may run faster than a cluster's, so that a rebalance here takes tenths of a second.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # After a crash the node may not come back before its old self has been given up.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "10000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "16777216",  # of the heap; the default takes a quarter of ours
}

LOGGING = """\
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
# Settings, printed at each start, line by line.
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = warn
logger.kafka_settings.name = kafka.server.KafkaConfig
logger.kafka_settings.level = warn
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd'T'HH:mm:ss.SSS}} level=%p logger=%c{{1}} %m%n
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
"""


def begin(folder: Path, port: int | None, say: Callable[[str], None]) -> Service:
    """Start the broker in its folder; it does not answer yet.

    Raises:
        MissingProgram: Java or Maven is needed and not there.
        LocalServiceError: the port is taken, or the jars or the folder can't be made ready.
    """
    java = find_java()
    jars = kafka_jars(say)
    folder.mkdir(parents=True, exist_ok=True)
    last = recall(folder)
    clients = choose_port(port, last.port if last else None)
    controller = choose_port(None, last.ports[1] if last and last.ports[1] != clients else None)
    _write_settings(folder, clients, controller)
    classpath = ["-cp", f"{jars}/*"]
    if not (folder / "data" / "meta.properties").exists():
        _format(folder, [java, *JVM, *classpath])
    argv = [java, f"-Xmx{HEAP_MB}m", *jvm_options(), "-Djava.awt.headless=true"]
    argv += [f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", *classpath, "kafka.Kafka", str(folder / "server.properties")]
    return start(NAME, argv, folder, (clients, controller), folder / "kafka.log", folder / "kafka.out")


def jvm_options() -> tuple[str, ...]:
    """What decides how fast the broker's JVM is: our options, or in their place those that Kafka's own scripts would take."""
    return tuple(shlex.split(os.environ.get(JVM_VARIABLE, ""))) or (*JVM, *YOUNG)


def _write_settings(folder: Path, clients: int, controller: int) -> None:
    settings = SETTINGS | {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{clients}",
        "log.dirs": str(folder / "data"),
    }
    lines = "".join(f"{key}={value}\n" for key, value in settings.items())
    (folder / "server.properties").write_text(lines, encoding="utf-8")
    (folder / "log4j2.properties").write_text(LOGGING.format(log=folder / "kafka.log"), encoding="utf-8")


def _format(folder: Path, java: list[str]) -> None:
    """Give the empty log its cluster's name; Kafka starts on no other."""
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # An id may not begin with a dash: the tool would take it for an option.
    command = [*java, "kafka.tools.StorageTool", "format", "-t", f"M{cluster[1:]}", "-c", str(folder / "server.properties")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LocalServiceError(f"Kafka's log in {folder / 'data'} can't be made: {said[-1] if said else f'exit code {done.returncode}'}")


def address(service: Service) -> str:
    """What clients give as ``bootstrap.servers``."""
    return f"127.0.0.1:{service.port}"


def cluster_id(folder: Path) -> str | None:
    """The name that the broker in the folder answers with; None = it was never set up."""
    try:
        lines = (folder / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)


def answers(service: Service, folder: Path, timeout_seconds: float) -> bool:
    """Whether the broker tells its metadata, and is the one in the folder, not another on its port."""
    settings = KafkaSettings(bootstrap_servers=address(service))
    deadline = time.monotonic() + timeout_seconds
    while await_listening(service, deadline):
        try:
            # A starting broker takes connections before it answers them: a new client each time, or one waits for the old one's time-out.
            left = max(min(ASK_SECONDS, deadline - time.monotonic()), 0.1)
            return bool(admin(settings).list_topics(timeout=left).cluster_id == cluster_id(folder))
        except KafkaException:
            continue
    return False


def warm_up(service: Service, timeout_seconds: float) -> None:
    """Wait for the coordinators of groups and transactions: a fresh broker's load only when they are first asked for.

    Raises:
        LocalServiceError: they don't answer in time.
    """
    settings = KafkaSettings(bootstrap_servers=address(service))
    try:
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(coordinator, settings, timeout_seconds) for coordinator in (_await_transactions, _await_groups)]
            for answer in asked:
                answer.result()
    except KafkaException as error:
        raise LocalServiceError(
            f"Kafka on {address(service)} answers, but its coordinators don't: {error}; its log: {service.log}"
        ) from error


def _await_transactions(settings: KafkaSettings, timeout_seconds: float) -> None:
    transactional_producer(settings, WARM_UP, 1_000_000).init_transactions(timeout_seconds)


def _await_groups(settings: KafkaSettings, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    reader = plain_consumer(settings, WARM_UP)
    try:
        while True:
            try:
                reader.committed([TopicPartition("__consumer_offsets", 0)], max(deadline - time.monotonic(), 0.1))
                return
            except KafkaException:
                # Whatever it is (the client calls few of these errors retriable), the coordinator isn't there yet.
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)
    finally:
        reader.close()
