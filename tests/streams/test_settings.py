"""Settings: where they come from, which wins, and what is said of a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import SettingsError
from streams.load_settings import load_settings, settings_schema
from streams.settings import OWNED_KEYS, Settings


def complaint(environment: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environment)
    return str(caught.value)


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_without_a_word_everything_has_its_default() -> None:
    settings = load_settings(None, {})
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.kafka.start is None
    assert settings.worker.delivery == "exactly_once"
    assert settings.health.host == "127.0.0.1"


def test_our_variables_beat_the_well_known_ones_which_beat_the_file_which_beats_local_services(tmp_path: Path) -> None:
    local = {"kafka": {"bootstrap_servers": "local:1"}, "redis": {"url": "redis://local"}, "log": {"level": "debug"}}
    file = written(tmp_path, "m.toml", '[kafka]\nbootstrap_servers = "file:1"\n[log]\nlevel = "error"\n')
    assert load_settings(None, {}, local).kafka.bootstrap_servers == "local:1"
    assert load_settings(file, {}, local).kafka.bootstrap_servers == "file:1"
    known = {"KAFKA_BOOTSTRAP_SERVERS": "known:1", "LOG_LEVEL": "WARN"}
    settings = load_settings(file, known, local)
    assert settings.kafka.bootstrap_servers == "known:1"
    assert settings.log.level == "warning"
    assert settings.redis.url.get_secret_value() == "redis://local"
    assert load_settings(file, {**known, "MILLRACE_KAFKA__BOOTSTRAP_SERVERS": "ours:1"}, local).kafka.bootstrap_servers == "ours:1"


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    toml = written(
        tmp_path, "m.toml", '[kafka]\nstart = "latest"\n[kafka.client]\n"ssl.ca.location" = "/ca"\n[worker]\nbatch_records = 10\n'
    )
    yaml = written(tmp_path, "m.yaml", "kafka:\n  start: latest\n  client:\n    ssl.ca.location: /ca\nworker:\n  batch_records: 10\n")
    assert load_settings(toml, {}) == load_settings(yaml, {}) == load_settings(None, {"MILLRACE_SETTINGS": str(toml)})
    assert load_settings(toml, {}).kafka.client_keys == {"ssl.ca.location": "/ca"}


def test_client_keys_without_quotes_in_toml_and_with_underscores_in_the_environment_get_their_dots(tmp_path: Path) -> None:
    file = written(tmp_path, "m.toml", "[kafka.client]\nssl.ca.location = '/ca'\n")
    settings = load_settings(file, {"MILLRACE_KAFKA__CLIENT__SOCKET_KEEPALIVE_ENABLE": "true"})
    assert settings.kafka.client_keys == {"ssl.ca.location": "/ca", "socket.keepalive.enable": "true"}


@pytest.mark.parametrize("word", ["exactly_once", "exactly-once", "exactly_once_v2", "exactly-once-v2"])
def test_exactly_once_is_understood_in_every_spelling(word: str) -> None:
    assert load_settings(None, {"MILLRACE_WORKER__DELIVERY": word}).worker.delivery == "exactly_once"


def test_at_least_once_is_understood_with_hyphens() -> None:
    assert load_settings(None, {"MILLRACE_WORKER__DELIVERY": "at-least-once"}).worker.delivery == "at_least_once"


@pytest.mark.parametrize("key", sorted(OWNED_KEYS))
def test_a_client_key_that_guarantees_rest_on_is_refused_by_name(key: str, tmp_path: Path) -> None:
    file = written(tmp_path, "m.yaml", f"kafka: {{client: {{{key}: 1}}}}")
    said = complaint({}, file)
    assert key in said
    assert OWNED_KEYS[key] in said
    assert str(file) in said


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"MILLRACE_KAFKA__STRAT": "x"}, ["kafka.strat", "did you mean 'start'", "MILLRACE_KAFKA__STRAT"]),
        ({"MILLRACE_KAFAK__START": "x"}, ["did you mean 'kafka'"]),
        ({"MILLRACE_KAFKA__START": "first"}, ["kafka.start", "'earliest' or 'latest'", "'first'", "environment MILLRACE_KAFKA__START"]),
        ({"MILLRACE_KAFKA_START": "latest"}, ["MILLRACE_KAFKA__START", "two underscores"]),
        ({"MILLRACE_WORKER__BATCH_RECORDS": "0"}, ["worker.batch_records", "greater than or equal to 1", "'0'"]),
        ({"MILLRACE_HEALTH__PORT": "high"}, ["health.port", "'high'"]),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "broker"},
            ["kafka.bootstrap_servers", "host:port", "'broker'", "environment KAFKA_BOOTSTRAP_SERVERS"],
        ),
        ({"MILLRACE_KAFKA__INSTANCE": "a b"}, ["kafka.instance", "'a b'"]),
        ({"MILLRACE_KAFKA__CLIENT": "x"}, ["kafka.client"]),
        ({"MILLRACE_KAFKA__START__X": "x"}, ["kafka.start"]),
        ({"MILLRACE_REGISTRY__URL": "http://r", "MILLRACE_REGISTRY__FOLDER": "f"}, ["registry", "one of them"]),
        ({"SCHEMA_REGISTRY_URL": "r:8081"}, ["registry.url", "http://", "registry.folder"]),
        ({"MILLRACE_REGISTRY__CLIENT__TIMEOUT": "soon"}, ["registry.client", "timeout is 'soon', wanted a number"]),
        ({"REDIS_URL": "redis://a", "REDIS_URL_FILE": "/b"}, ["redis.url", "both"]),
        ({"REDIS_URL_FILE": "/no/such/file"}, ["redis.url", "REDIS_URL_FILE", "/no/such/file"]),
        ({"MILLRACE_SETTINGS": "/no/such.toml"}, ["/no/such.toml", "can't be read"]),
    ],
)
def test_a_bad_setting_is_one_line_with_its_name_what_is_wrong_and_where(environment: dict[str, str], wanted: list[str]) -> None:
    said = complaint(environment)
    assert "\n" not in said
    for part in wanted:
        assert part in said


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("m.toml", "[kafka", "no TOML"),
        ("m.yaml", "kafka: [", "no YAML"),
        ("m.yaml", "- kafka", "wanted sections"),
        ("m.ini", "", ".toml, .yaml or .yml"),
        ("m.toml", "kafka = 1", "kafka"),
        ("m.toml", "[kafka]\ngroupe = 'x'", "did you mean 'group'"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, name: str, text: str, wanted: str) -> None:
    file = written(tmp_path, name, text)
    said = complaint({}, file)
    assert "\n" not in said
    assert str(file) in said
    assert wanted in said


def test_two_bad_settings_are_two_lines() -> None:
    assert len(complaint({"MILLRACE_HEALTH__PORT": "x", "MILLRACE_KAFKA__START": "x"}).splitlines()) == 2


def test_a_section_that_a_file_made_a_value_is_told_from_one_in_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, "m.toml", "kafka = 1")
    assert str(file) in complaint({"MILLRACE_KAFKA__START": "latest"}, file)


def test_a_registry_said_with_more_weight_replaces_a_folder_said_with_less(tmp_path: Path) -> None:
    file = written(tmp_path, "m.toml", "[registry]\nfolder = 'schemas'\n")
    registry = load_settings(file, {"SCHEMA_REGISTRY_URL": "http://r:8081"}).registry
    assert registry.folder is None
    assert registry.url is not None


def test_numbers_of_the_registrys_client_may_stand_in_the_environment() -> None:
    said = {"MAX_RETRIES": "0", "TIMEOUT": "0.5", "SSL_CA_LOCATION": "7"}
    registry = load_settings(None, {f"MILLRACE_REGISTRY__CLIENT__{name}": value for name, value in said.items()}).registry
    assert registry.client_keys == {"max.retries": 0, "timeout": 0.5, "ssl.ca.location": "7"}


def test_a_secret_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    secret = written(tmp_path, "secret", "hunter2\n")
    settings = load_settings(None, {"MILLRACE_KAFKA__CLIENT__SASL_PASSWORD_FILE": str(secret), "REDIS_URL": "redis://:hunter2@r"})
    assert settings.kafka.client_keys == {"sasl.password": "hunter2"}
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    "variable",
    ["REDIS_URL", "SCHEMA_REGISTRY_URL", "MILLRACE_KAFKA__CLIENT", "MILLRACE_REDIS__PASWORD", "MILLRACE_KAFKA__CLIENT__GROUP_ID"],
)
def test_no_complaint_shows_what_may_be_a_secret(variable: str) -> None:
    assert "hunter2" not in complaint({variable: "hunter2"})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().kafka.start = "latest"


def test_the_schema_for_editors_knows_every_setting_with_its_meaning() -> None:
    schema = json.loads(json.dumps(settings_schema()))
    for section, field in Settings.model_fields.items():
        assert schema["properties"][section]
        kind = field.annotation
        assert kind is not None
        properties = schema["$defs"][kind.__name__]["properties"]
        assert set(properties) == set(kind.model_fields)
        assert all("description" in each for each in properties.values())
