"""How a worker runs here: addresses, guarantees, limits. (`streams.load_settings` gathers them.)

Each setting has a default. Over it goes what local services say (``millrace up``), over that a TOML or YAML file, over that the names
people know (``KAFKA_BOOTSTRAP_SERVERS``, ``REDIS_URL``, ``SCHEMA_REGISTRY_URL``, ``LOG_LEVEL``), over those
``MILLRACE_<SECTION>__<SETTING>``. With ``_FILE`` after its name, a variable holds the path of a file with the value: that, and the
variables themselves, is where secrets come from.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from streams.address import ESCAPES, is_redis, is_registry

Seconds = Annotated[float, Field(gt=0, le=86_400)]
ClientKey = str | int | float | bool | SecretStr

_SECRET_KEY = re.compile(r"password|passphrase|secret|user\.info|\.pem$|jaas|token$|oauthbearer\.config|kinit|proxy")
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,100}")

REGISTRY_NUMBERS = ("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms", "cache.capacity", "cache.latest.ttl.sec")

# What our guarantees rest on, and the setting that is meant instead.
OWNED_KEYS: dict[str, str] = {
    "bootstrap.servers": "kafka.bootstrap_servers",
    "metadata.broker.list": "kafka.bootstrap_servers",
    "group.id": "kafka.group",
    "group.instance.id": "kafka.instance and kafka.static_member",
    "group.protocol": "kafka.group_protocol",
    "session.timeout.ms": "kafka.session_timeout_ms",
    "heartbeat.interval.ms": "kafka.session_timeout_ms",
    "transactional.id": "kafka.instance",
    "transaction.timeout.ms": "kafka.transaction_timeout_ms",
    "auto.offset.reset": "kafka.start",
    "enable.idempotence": "worker.delivery",
    "acks": "worker.delivery",
    "request.required.acks": "worker.delivery",
    "isolation.level": "worker.delivery",
    "enable.auto.commit": "worker.delivery",
    "auto.commit.enable": "worker.delivery",
    "enable.auto.offset.store": "worker.delivery",
    "enable.partition.eof": "",
    "partition.assignment.strategy": "",
    "partitioner": "",
    "delivery.report.only.error": "",
    "max.in.flight.requests.per.connection": "",
    "max.in.flight": "",
}


class Section(BaseModel):
    """A part of the settings: frozen, and without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class KafkaSettings(Section):
    """The broker, and this worker's place in the group."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """Where to find the brokers: host:port, several parted by commas."""
    group: str | None = Field(default=None, min_length=1)
    """The consumer group; by default the pipeline's name. Of several stages each has its own, with a dot and the stage's name after it."""
    instance: str = Field(default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "worker")
    """This worker's own name: no two live workers of a group may share one. By default the host's name."""
    static_member: bool = False
    """Whether the group knows this worker by its instance name, so that a quick restart moves no partitions."""
    start: Literal["earliest", "latest"] | None = None
    """Where to begin in a partition without a committed offset; without a word here the worker refuses to guess."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """How the group shares out partitions: by its members, or by the broker (KIP-848)."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000, le=300_000)
    """How long the group waits for a silent worker before it gives its partitions away."""
    transaction_timeout_ms: int = Field(default=10_000, ge=1_000, le=900_000)
    """How long the broker keeps a silent worker's transaction open; readers of the output wait behind it."""
    client: dict[str, ClientKey] = Field(default_factory=dict)
    """Keys for librdkafka, with their dots, as its documentation names them; those our guarantees rest on are refused."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        if not all(re.fullmatch(r"\s*(\[[0-9a-fA-F:]+\]|[^\s:,/]+):\d{1,5}\s*", server) for server in value.split(",")):
            raise ValueError("wanted host:port, several parted by commas")
        return value

    @field_validator("instance")
    @classmethod
    def _instance_name(cls, value: str) -> str:
        if not _INSTANCE.fullmatch(value):
            raise ValueError("wanted 1 to 100 of a-z, A-Z, 0-9, '.', '_' and '-'")
        return value

    @field_validator("client", mode="before")
    @classmethod
    def _flat_client(cls, value: Any) -> Any:
        return flat_keys(value)

    @field_validator("client")
    @classmethod
    def _not_ours(cls, value: dict[str, ClientKey]) -> dict[str, ClientKey]:
        for key in value:
            if key in OWNED_KEYS:
                instead = f"; set {OWNED_KEYS[key]} instead" if OWNED_KEYS[key] else ""
                raise ValueError(f"{key} is Millrace's to set, since its guarantees rest on it{instead}")
            if key.endswith("_cb") or key == "logger":
                raise ValueError(f"{key} is a function, and can't be a setting")
        return value

    @property
    def client_keys(self) -> dict[str, str | int | float | bool]:
        """The keys as the client wants them, secrets in the clear."""
        return revealed(self.client)


class RedisSettings(Section):
    """The store of the windows' state."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """redis://, rediss:// (TLS) or unix://, with user and password if needed; of a cluster redis+cluster://host:port,host:port."""
    connect_timeout_seconds: Seconds = 2.0
    """How long to wait for a connection."""
    answer_timeout_seconds: Seconds = 5.0
    """How long to wait for an answer."""

    @field_validator("url")
    @classmethod
    def _scheme(cls, value: SecretStr) -> SecretStr:
        if not is_redis(value.get_secret_value()):
            raise ValueError(f"wanted redis://host:port/db, rediss://..., redis+cluster://host:port,host:port or unix:///path; {ESCAPES}")
        return value


class RegistrySettings(Section):
    """Where writers' schemas are found; with neither, the folder of the pipeline's own schema file."""

    url: SecretStr | None = None
    """Of a schema registry (http://, https://), or mock://name."""
    folder: str | None = None
    """A folder of files named <id>-<subject>.avsc, in place of a registry."""
    client: dict[str, ClientKey] = Field(default_factory=dict)
    """Keys for the registry's client, with their dots."""

    @field_validator("url")
    @classmethod
    def _scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_registry(value.get_secret_value()):
            raise ValueError(f"wanted http://host:port, https:// or mock://; a folder goes into registry.folder; {ESCAPES}")
        return value

    @field_validator("client", mode="before")
    @classmethod
    def _flat_client(cls, value: Any) -> Any:
        return flat_keys(value)

    @field_validator("client")
    @classmethod
    def _numbers(cls, value: dict[str, ClientKey]) -> dict[str, ClientKey]:
        return {key: _number(key, said) if key in REGISTRY_NUMBERS else said for key, said in value.items()}

    def place(self, otherwise: object) -> str:
        """The registry's URL or folder; `otherwise` where neither is set."""
        return self.url.get_secret_value() if self.url else self.folder or str(otherwise)

    @model_validator(mode="after")
    def _one_place(self) -> RegistrySettings:
        if self.url is not None and self.folder is not None:
            raise ValueError("url and folder are both set; wanted one of them")
        return self

    @property
    def client_keys(self) -> dict[str, str | int | float | bool]:
        """The keys as the client wants them, secrets in the clear."""
        return revealed(self.client)


def _delivery(value: Any) -> Any:
    words = {
        "exactly-once": "exactly_once",
        "exactly_once_v2": "exactly_once",
        "exactly-once-v2": "exactly_once",
        "at-least-once": "at_least_once",
    }
    return words.get(value, value) if isinstance(value, str) else value


class WorkerSettings(Section):
    """How much at a time, and what is promised."""

    delivery: Annotated[Literal["exactly_once", "at_least_once"], BeforeValidator(_delivery)] = "exactly_once"
    """Outputs and offsets in one transaction, or outputs first and offsets after."""
    on_conflict: Literal["refuse", "rebuild", "adopt"] = "refuse"
    """What to do where committed offsets and state contradict each other."""
    batch_records: int = Field(default=10_000, ge=1, le=100_000)
    """Most records taken at a time; fewer when fewer have arrived."""
    in_flight_batches: int = Field(default=3, ge=1, le=3)
    """Batches between source and commit."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Keys of one entity and partition that are kept in memory; the others stay in Redis."""
    stop_budget_seconds: Seconds = 10.0
    """How long a stop may take to finish what is in flight before it is abandoned."""
    unknown_schema_retry_seconds: Seconds = 10.0
    """How long a record whose schema the registry doesn't know is waited with before it is refused."""


class DeadLetterSettings(Section):
    """Refused records, and how many are too many."""

    halt_share: float = Field(default=0.5, gt=0, le=1)
    """The worker stops when more than this share of the last records was refused; 1 = never."""
    halt_window_records: int = Field(default=10_000, ge=1)
    """How many records that share is taken over; fewer never stop the worker."""


class HealthSettings(Section):
    """The worker's health and metrics pages."""

    host: str = "127.0.0.1"
    """The address to listen on; the default is not reachable from other machines."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port to listen on; 0 = no pages."""
    livez_stalled_seconds: Seconds = 60.0
    """A partition with records waiting and no progress for this long makes /livez fail."""


def _level(value: Any) -> Any:
    return {"warn": "warning", "fatal": "critical"}.get(value.lower(), value.lower()) if isinstance(value, str) else value


class LogSettings(Section):
    """What is said."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_level)] = "info"
    """The least weighty line that is written."""


class Settings(Section):
    """All settings of a worker."""

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    dead_letters: DeadLetterSettings = Field(default_factory=DeadLetterSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    log: LogSettings = Field(default_factory=LogSettings)


def flat_keys(value: Any) -> Any:
    """Client keys as one level with dots, secrets wrapped: TOML makes tables of ``ssl.ca.location = ...``."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat.update({f"{key}.{rest}": each for rest, each in flat_keys(inner).items()})
        else:
            flat[str(key)] = inner
    return {k: SecretStr(str(v)) if _SECRET_KEY.search(k) and not isinstance(v, SecretStr) else v for k, v in flat.items()}


def _number(key: str, said: ClientKey) -> ClientKey:
    """What the environment says as text, as the number that the registry's client wants; librdkafka takes either."""
    try:
        return float(said) if isinstance(said, str) and "." in said else int(said) if isinstance(said, str) else said
    except ValueError:
        raise ValueError(f"{key} is {said!r}, wanted a number") from None


def revealed(keys: Mapping[str, ClientKey]) -> dict[str, str | int | float | bool]:
    """Client keys with their secrets in the clear: for the client alone."""
    return {key: value.get_secret_value() if isinstance(value, SecretStr) else value for key, value in keys.items()}
