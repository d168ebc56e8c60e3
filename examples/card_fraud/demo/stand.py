"""The stand: everything the worker needs, in a folder of the demo's own. Broker and Redis, topics and schemas, settings, the model."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console

from examples.card_fraud.demo.checklist import Checklist, Step
from examples.card_fraud.demo.records import FRAUDS, HISTORY_DAYS, STAND_IN_DAYS
from examples.card_fraud.demo.reports import labels_of
from examples.card_fraud.demo.worker_process import end_leftover
from examples.card_fraud.simulate import Simulator
from inference.model_card import ModelCard, bind
from schemas.compiled import cold_kernels, warm_up
from schemas.errors import LocalServiceError, MissingProgram, ModelError, SchemaError
from schemas.registry import FileRegistry
from streams.definition.bound import Bound
from streams.definition.pipeline import Topic
from streams.load_settings import load_settings
from streams.local import redis as local_redis
from streams.local import services as local
from streams.local.embedded_broker import NOTICE, embedded_broker
from streams.local.kafka_jars import find_java, kafka_jars, kafka_version
from streams.local.process import choose_port
from streams.planning.create_topics import create
from streams.planning.topics import planned_topics
from streams.scored_event import output_schema
from streams.settings import Settings

REDIS_SECONDS = 20.0
KERNEL_HOMES = ("schemas.codec", "transforms.shard", "inference.load_model")
OWN_SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Stand:
    """What the worker runs on."""

    folder: Path
    bound: Bound
    settings_file: Path
    settings: Settings
    registry: FileRegistry
    schema_id: int  # of the input's values
    label_schema_id: int  # of the labels' values
    broker: str  # what it is, in words
    is_real_broker: bool

    @property
    def history_days(self) -> int:
        """How long a history the broker can hold."""
        return HISTORY_DAYS if self.is_real_broker else STAND_IN_DAYS


@dataclass(frozen=True, slots=True)
class Services:
    """Where broker and Redis answer."""

    bootstrap_servers: str
    redis_url: str
    broker: str
    is_real_broker: bool


@contextmanager
def stand(folder: Path, bound: Bound, checklist: Checklist, console: Console, *, keep: bool) -> Iterator[Stand]:
    """Set everything up but the model, and end the services with the block.

    Args:
        folder: the demo's; what an earlier run left there is ended and removed.
        bound: the pipeline.
        checklist: shows the steps.
        console: for notices.
        keep: leave the services running; an embedded broker can't be left.
    """
    clear(folder)
    with ExitStack() as stack:
        services = stack.enter_context(_services(folder, bound, checklist, console, keep))
        registry_folder = folder / "schemas"
        shutil.copytree(bound.schema_folder, registry_folder)  # what is registered here must not appear in the checkout
        settings_file = write_settings(folder / "settings.toml", services, registry_folder, choose_port(None))
        settings = load_settings(settings_file, {})
        registry = FileRegistry(registry_folder)
        with checklist.step("topics, schemas") as step:
            if services.is_real_broker:
                create(bound, settings)
            else:  # it was given its topics as it started
                registry.register(bound.input.subject, bound.schema)
                registry.register(bound.output.subject, output_schema(bound))
                registry.register(labels_of(bound).topic.subject, labels_of(bound).schema)
            step.say(", ".join(plan.name for plan in planned_topics(bound, 1)))
        schema_id, label_schema_id = _schema_id(registry, bound.input), _schema_id(registry, labels_of(bound).topic)
        broker, is_real_broker = services.broker, services.is_real_broker
        yield Stand(folder, bound, settings_file, settings, registry, schema_id, label_schema_id, broker, is_real_broker)


def _schema_id(registry: FileRegistry, topic: Topic) -> int:
    found = registry.latest(topic.subject)
    if found is None:
        raise SchemaError(f"the schema of {topic.name} is not in the demo's folder of schemas")
    return found[0]


def clear(folder: Path) -> None:
    """End what an earlier demo left running in the folder, and remove what it left there."""
    end_leftover(folder)
    local.down(folder / OWN_SERVICES, erase=True)
    shutil.rmtree(folder / "schemas", ignore_errors=True)


@contextmanager
def _services(folder: Path, bound: Bound, checklist: Checklist, console: Console, keep: bool) -> Iterator[Services]:
    missing = _missing(checklist)
    own = folder / OWN_SERVICES
    if missing is None:
        with checklist.step("Kafka and Redis") as step:
            services = local.up(own, say=step.say)
            step.say(f"{services.bootstrap_servers} and {services.redis_url.removeprefix('redis://').removesuffix('/0')}")
        broker = f"Apache Kafka {kafka_version()}, one node"
        try:
            yield Services(services.bootstrap_servers, services.redis_url, broker, True)
        finally:
            if not keep:
                local.down(own, erase=True)
        return
    console.print(
        f"\n{missing}\n\n{NOTICE}\nGoing on with it, since there is no Kafka; the summary will say what that leaves unproven.\n",
        style="yellow",
    )
    topics = {plan.name: plan.partitions for plan in planned_topics(bound, 1)}
    with ExitStack() as stack:
        with checklist.step("stand-in and Redis") as step:
            address = stack.enter_context(embedded_broker(topics))
            stack.callback(local.down, own, erase=True)
            redis_url = _redis_alone(own, step)
            step.say(f"{address} and {redis_url.removeprefix('redis://').removesuffix('/0')}")
        yield Services(address, redis_url, "an embedded stand-in (librdkafka's mock cluster)", False)


def _missing(checklist: Checklist) -> MissingProgram | None:
    """What a real broker would need and this machine has not; the jars are fetched here if need be."""
    with checklist.step("Java and Maven") as step:
        try:
            java = find_java()
            jars = kafka_jars(step.say)
        except MissingProgram as error:
            step.say("not here")
            return error
        step.say(f"{java}, Kafka {kafka_version()} in {jars}")
    return None


def _redis_alone(folder: Path, step: Step) -> str:
    """Start Redis without Kafka; where it answers. `streams.local.services.down` ends it."""
    home = (folder / local_redis.NAME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    service = local_redis.begin(home, None, step.say)
    if not local_redis.answers(service, home, REDIS_SECONDS):
        raise LocalServiceError(f"Redis does not answer within {REDIS_SECONDS:.0f} s; its log: {service.log}")
    return local_redis.address(service)


def write_settings(file: Path, services: Services, registry_folder: Path, port: int) -> Path:
    """The settings of worker and command line, as a file."""
    sections: dict[str, dict[str, str | int]] = {
        "kafka": {"bootstrap_servers": services.bootstrap_servers, "instance": f"demo-{port}", "start": "earliest"},
        "redis": {"url": services.redis_url},
        "registry": {"folder": str(registry_folder)},
        "health": {"port": port},
    }
    # JSON's strings and numbers are TOML's.
    lines = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()) for name, keys in sections.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def compile_kernels(checklist: Checklist) -> None:
    """Have every kernel compiled that worker and demo will run, so that the wait for it is seen as what it is."""
    with checklist.step("kernels") as step:
        step.say("loading")
        for home in KERNEL_HOMES:
            import_module(home)
        cold = len(cold_kernels())
        step.say(f"compiling {cold}, this once" if cold else "cached")
        warm_up()
        step.say(f"{cold} compiled; cached from now on" if cold else "cached")


def model_of(bound: Bound, checklist: Checklist) -> ModelCard:
    """The model for this pipeline's features: the one that is there, else one trained now, on another world than the demo's."""
    with checklist.step("model") as step:
        card = _fitting_card(bound)
        if card is None:
            step.say("none for these features: simulating 90 days and training 100 trees, this once")
            from examples.card_fraud.train import train

            with contextlib.redirect_stdout(io.StringIO()):
                card = train(bound, Simulator(), bound.model_path)
        step.say(f"{card.name} {card.version}{_recalls(card)}")
    return card


def _recalls(card: ModelCard) -> str:
    """What it caught of the last week of its history, which it was not trained on."""
    shares = {kind.words: card.metrics.get(f"recall_{kind.name.lower()}") for kind in FRAUDS}
    told = ", ".join(f"{words} {share:.0%}" for words, share in shares.items() if share is not None)
    return f"; caught in its test: {told}" if told else ""


def _fitting_card(bound: Bound) -> ModelCard | None:
    from inference.onnx_scorer import OnnxScorer

    try:
        card = OnnxScorer(bound.model_path).card
        bind(card, bound.features.names, bound.features.fingerprint)
    except ModelError:
        return None
    return card
