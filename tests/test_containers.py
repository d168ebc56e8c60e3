"""The compose file and the Dockerfile: well formed, and of one mind with the settings. (No engine runs them here.)"""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.load_settings import load_settings
from streams.local import kafka as local_kafka
from streams.local.kafka_jars import kafka_version
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
OURS = ("topics", "train", "worker")


class Strict(yaml.SafeLoader):
    """YAML in which a key said twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice among {keys}"
        return super().construct_mapping(node, deep)


COMPOSE: dict[str, Any] = yaml.load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"), Strict)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    """What follows the name of an instruction, each time it stands in the Dockerfile."""
    return re.findall(rf"^\s*{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def broker_environment() -> dict[str, str]:
    found: dict[str, str] = SERVICES["kafka"]["environment"]
    return found


def outside(service: str, port: int) -> str:
    """Where a service's port is published on this machine."""
    found = [published for published in SERVICES[service]["ports"] if published.endswith(f":{port}")]
    assert len(found) == 1, f"{service} publishes {SERVICES[service]['ports']}, wanted its port {port} once"
    return str(found[0].removesuffix(f":{port}"))


def test_the_broker_is_published_where_the_settings_look_for_it() -> None:
    wanted = Settings().kafka.bootstrap_servers
    assert outside("kafka", 9092) == wanted
    advertised = dict(each.split("://") for each in broker_environment()["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised["OUTSIDE"] == wanted
    assert advertised["INSIDE"] == COMPOSE["x-millrace"]["KAFKA_BOOTSTRAP_SERVERS"]


def test_redis_is_published_where_the_settings_look_for_it() -> None:
    assert f"redis://{outside('redis', 6379)}/0" == Settings().redis.url.get_secret_value()


def test_the_health_pages_are_published_where_the_settings_put_them() -> None:
    settings = Settings().health
    assert outside("worker", 8080) == f"{settings.host}:{settings.port}"


def test_every_port_is_published_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_the_containers_settings_are_settings_and_lead_to_containers(name: str) -> None:
    image = dict(each.split("=") for line in instructions("ENV") for each in shlex.split(line) if each.startswith("MILLRACE_"))
    settings = load_settings(None, image | SERVICES[name]["environment"])
    assert settings.redis.url.get_secret_value() == "redis://redis:6379/0"
    assert settings.registry.url is not None
    registry = SERVICES["schema-registry"]["environment"]["SCHEMA_REGISTRY_LISTENERS"].replace("0.0.0.0", "schema-registry")
    assert settings.registry.url.get_secret_value() == registry
    assert settings.kafka.bootstrap_servers.split(":")[0] in SERVICES
    assert settings.health.host == "0.0.0.0"
    assert settings.health.port == 8080


def test_redis_forgets_nothing() -> None:
    options = shlex.join(SERVICES["redis"]["command"])
    assert "--maxmemory-policy noeviction" in options
    assert "--appendonly yes" in options
    assert "redis:/data" in SERVICES["redis"]["volumes"]


def test_the_broker_is_the_version_and_has_the_settings_of_the_local_one() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_version()}"
    for variable, value in broker_environment().items():
        name = variable.removeprefix("KAFKA_").lower().replace("_", ".")
        if name in local_kafka.SETTINGS and name != "listener.security.protocol.map":
            assert value == local_kafka.SETTINGS[name], f"{variable} differs from the local broker's {name}"


def test_what_waits_waits_for_something_that_can_happen() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}, which is none of the services"
            assert wait["condition"] in CONDITIONS
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other} to be healthy, which it never says"
            if wait["condition"] == "service_completed_successfully":
                assert "restart" not in SERVICES[other], f"{name} waits for {other} to end, which is started again"


def test_volumes_and_build_targets_are_declared() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert mounted == set(COMPOSE["volumes"])
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    for name in OURS:
        assert SERVICES[name]["build"]["target"] in stages
        assert "image" in SERVICES[name]


def test_what_the_image_is_built_from_is_there_and_not_ignored() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [line.removeprefix("!").rstrip("/") for line in lines if line.startswith("!")]
    for copy in instructions("COPY"):
        words = [word for word in shlex.split(copy) if not word.startswith("--")]
        if "--from" in copy:
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), f"COPY {copy}: no {source}"
            assert any(fnmatch(source, pattern) for pattern in kept), f".dockerignore keeps {source} out"


def test_the_worker_is_not_root_and_asks_after_its_own_readiness() -> None:
    base, worker = DOCKERFILE.split("AS base")[1].split("FROM")[0], DOCKERFILE.split("AS worker")[1]
    assert "USER millrace" in base
    assert "USER" not in worker
    assert "/readyz" in worker
    assert "FROM base" in DOCKERFILE.split("AS worker")[0].rsplit("\n", 1)[-1]


def test_containers_run_a_pipeline_that_is_there_with_verbs_that_are_there() -> None:
    from streams.commands.cli import app, topics_app

    verbs = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    (default,) = re.findall(r'^CMD \["run", "(.+)"\]$', DOCKERFILE, re.MULTILINE)
    assert "run" in verbs
    assert (ROOT / default).is_file()
    group, verb, pipeline = SERVICES["topics"]["command"]
    assert group == "topics"
    assert verb in {command.name for command in topics_app.registered_commands}
    assert (ROOT / pipeline).is_file()
    (trainer,) = re.findall(r'^CMD \["python", "(.+)"\]$', DOCKERFILE, re.MULTILINE)
    assert (ROOT / trainer).is_file()


def test_a_clean_stop_has_time_enough() -> None:
    assert float(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > Settings().worker.stop_budget_seconds
