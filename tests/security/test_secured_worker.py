"""A whole worker over TLS, logged in everywhere with no more rights than it needs; and none of its secrets said anywhere."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from confluent_kafka.admin import AclOperation, ResourcePatternType, ResourceType  # type: ignore[attr-defined]

from streams.kafka import KafkaException, admin
from streams.settings import KafkaSettings
from tests.live.scene import Scene, payment, payments, wait_for
from tests.live.stall import breaking
from tests.security.certificates import Authority
from tests.security.secured_kafka import SecuredKafka, login, secured_kafka
from tests.security.secured_redis import SecuredRedis, secured_redis
from tests.streams.command_line import Run, runner

pytestmark = pytest.mark.broker

# One in every place that a secret of a worker's may come from.
SECRETS = {
    "sasl": "planted-sasl-7f3a",
    "key": "planted-key-19bc",
    "redis": "planted-redis-55e0",
    "registry": "planted-registry-a2d4",
    "wrong": "planted-wrong-c081",
}
USER = "worker"
LITERAL, PREFIXED = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
READ, WRITE, DESCRIBE, CONFIGS = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS


@dataclass(frozen=True)
class Locked:
    """All that a worker depends on, behind locks."""

    authority: Authority
    kafka: SecuredKafka
    redis: SecuredRedis
    registry: SecuredRegistry

    def environment_of(self, scene: Scene) -> dict[str, str]:
        """A worker's settings, with secrets from everywhere they may come from."""
        for file in (scene.folder / "schemas").glob("*.avsc"):
            number, _, subject = file.stem.partition("-")
            self.registry.schemas[int(number)] = (subject, file.read_text())
        identity = self.authority.vouch("worker", SECRETS["key"])
        by_file = scene.folder / "sasl-secret"
        by_file.write_text(SECRETS["sasl"] + "\n")
        in_settings = scene.folder / "worker.toml"
        in_settings.write_text(f'[kafka.client]\nssl.key.password = "{SECRETS["key"]}"\n[registry.client]\nmax.retries = 0\n')
        client = {
            **login(self.authority, USER),
            "ssl.certificate.location": str(identity.certificate),
            "ssl.key.location": str(identity.key),
        }
        return {
            **{f"KAFKA__CLIENT__{key.upper().replace('.', '_')}": value for key, value in client.items()},
            "SETTINGS": str(in_settings),
            "KAFKA__CLIENT__SASL_PASSWORD_FILE": str(by_file),
            "KAFKA__BOOTSTRAP_SERVERS": self.kafka.clients,
            "REDIS__URL": self.redis.url(USER, SECRETS["redis"], self.authority),
            "REGISTRY__URL": f"http://{USER}:{SECRETS['registry']}@127.0.0.1:{self.registry.http.server_address[1]}",
            "WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS": "0.2",
            "LOG__LEVEL": "debug",
        }


class SecuredRegistry:
    """A schema registry's API for whoever knows the password; without it, or when told to be out of order, it says so."""

    def __init__(self) -> None:
        self.schemas: dict[int, tuple[str, str]] = {}  # by id: subject and text
        self.out_of_order = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(*outer.answer(self.path, self.headers.get("Authorization", "")))

            def answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        if authorization != "Basic " + base64.b64encode(f"{USER}:{SECRETS['registry']}".encode()).decode():
            return 401, {"error_code": 401, "message": "who are you"}
        if self.out_of_order:
            return 500, {"error_code": 50001, "message": "out of order"}
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["schemas", "ids"] and int(parts[2]) in self.schemas:
            return 200, {"schema": self.schemas[int(parts[2])][1]}
        if parts[0] == "subjects":
            found = [(i, text) for i, (subject, text) in self.schemas.items() if subject == parts[1]]
            if found:
                number, text = max(found)
                return 200, {"subject": parts[1], "version": 1, "id": number, "schema": text, "schemaType": "AVRO"}
        return 404, {"error_code": 40403, "message": "not found"}


@contextmanager
def secured_registry() -> Iterator[SecuredRegistry]:
    registry = SecuredRegistry()
    thread = threading.Thread(target=registry.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        registry.http.shutdown()
        thread.join()
        registry.http.server_close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    authority = Authority(folder / "certificates")
    with (
        secured_kafka(folder / "kafka", authority, {USER: SECRETS["sasl"]}) as kafka,
        secured_redis(authority) as redis,
        secured_registry() as registry,
    ):
        yield Locked(authority, kafka, redis, registry)


def rights(scene: Scene) -> list[Any]:
    """What docs/security.md tells an operator to allow: a table of the page, in code."""
    topic = ResourceType.TOPIC
    return [
        (topic, scene.bound.input.name, LITERAL, (READ, CONFIGS)),
        (topic, scene.bound.output.name, LITERAL, (WRITE, CONFIGS)),
        (topic, scene.bound.input.dead_letters, LITERAL, (WRITE, CONFIGS)),
        (ResourceType.GROUP, scene.name, PREFIXED, (READ,)),
        (ResourceType.TRANSACTIONAL_ID, f"{scene.name}-", PREFIXED, (WRITE, DESCRIBE)),
    ]


def test_a_worker_does_its_work_behind_every_lock_and_says_no_secret(
    locked: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, locked.kafka.inside, locked.redis.server.url, changes=breaking("raise ValueError('a bug')"))
    try:
        scene.environment = locked.environment_of(scene)
        said = _work(locked, scene)
        said += _commands(scene, runner(tmp_path, monkeypatch, capsys), monkeypatch)
    finally:
        scene.close()
    for name, secret in SECRETS.items():
        for shown in (secret, quote(secret), base64.b64encode(f"{USER}:{secret}".encode()).decode()):
            assert shown not in said, f"the {name} secret was said: ...{said[max(said.find(shown) - 200, 0) :][:300]}..."


def _work(locked: Locked, scene: Scene) -> str:
    """Let a worker work, and run into every lock; all it said, in its log and on its pages."""
    keys = f"{{{scene.stage.namespace}.*"
    locked.kafka.allow(USER, rights(scene))
    locked.redis.allow(USER, SECRETS["wrong"], keys)
    worker = scene.worker()
    worker.says("waiting for the state store")
    locked.redis.allow(USER, SECRETS["redis"], keys)
    scene.send_payments(payments(300))
    scene.drained(worker)
    wait_for("ready behind its locks", worker.ready)
    listening = [each for each in psutil.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    (worker_pid,) = {each.pid for each in listening if each.laddr[1:2] == (worker.port,)}
    assert [each.laddr for each in listening if each.pid == worker_pid] == [("127.0.0.1", worker.port)], "its pages, and nothing else"

    locked.redis.allow(USER, SECRETS["wrong"], keys)
    scene.send_payments(payments(20, first=300))
    scene.drained(worker)
    scene.send_payments(payments(20, first=320))
    worker.says("take_over_later")
    pages = [worker.page(path)[1] for path in ("/livez", "/readyz", "/metrics", "/", "/router/", "/stats/", "/no/such/page")]
    assert "invalid username-password" in pages[1]
    locked.redis.allow(USER, SECRETS["redis"], keys)
    scene.drained(worker)

    locked.registry.out_of_order = True
    scene.send([(b"C1", scene.encode(payment(340))[:1] + (77).to_bytes(4, "big") + b"x")])
    worker.says("out of order")
    locked.registry.out_of_order = False
    scene.drained(worker)
    assert [fault for fault in scene.faults() if "unknown_schema" not in fault] == []
    assert len(scene.outputs()) == 340

    scene.send_payments([payment(341, amount=13.37)])
    assert worker.ends() == 70
    assert "a bug" in worker.log
    return "\n".join([worker.log, *pages])


def _commands(scene: Scene, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """What commands say, to whoever knows the secrets and to whoever does not."""
    for name, value in scene.environment.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    done = [run("settings", "--json")]
    done += [run(*verb.split(), scene.file, "--json") for verb in ("check", "plan", "status", "topics create")]
    assert [each.code for each in done] == [0, 0, 0, 0, 0], [each.err for each in done]
    done.append(run("settings"))
    for name in ("REDIS__URL", "REGISTRY__URL"):
        monkeypatch.setenv(f"MILLRACE_{name}", re.sub("planted-[a-z]+-[0-9a-f]+", SECRETS["wrong"], scene.environment[name]))
    done += [run("state", "ls", scene.file), run("topics", "create", scene.file)]
    assert [each.code for each in done[-2:]] == [75, 75]
    assert "invalid username-password" in done[-2].err
    assert "who are you" in done[-1].err
    return "".join(each.out + each.err for each in done)


def test_a_client_without_the_password_or_the_certificate_is_not_let_in(locked: Locked) -> None:
    identity = locked.authority.vouch("stranger")
    known = {**login(locked.authority, USER), "sasl.password": SECRETS["sasl"]}
    shown = {"ssl.certificate.location": str(identity.certificate), "ssl.key.location": str(identity.key)}

    def comes_in(keys: dict[str, str]) -> bool:
        settings = KafkaSettings.model_validate({"bootstrap_servers": locked.kafka.clients, "client": keys})
        try:
            admin(settings).list_topics(timeout=0.5)
        except KafkaException:
            return False
        return True

    wait_for("whoever has both", lambda: comes_in({**known, **shown}))
    assert not comes_in(known)
    assert not comes_in({**known, **shown, "sasl.password": SECRETS["wrong"]})
    assert not comes_in({key: value for key, value in {**known, **shown}.items() if key != "ssl.ca.location"})
