"""The worker: one process that runs stages of a pipeline, all of them or some, from start to stop."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

from inference.load_model import load_model, parity_words
from inference.model_card import bind as bind_model
from schemas.codec import Encoder
from schemas.compiled import cold_kernels, warm_up
from schemas.errors import MillraceError, RetryLater, SchemaError, SettingsError
from schemas.registry import Registry, open_registry
from streams.assembly import Given, Parts
from streams.definition.bound import Bound
from streams.frame import Frame, Line, Page
from streams.health import rendered, together
from streams.kafka import TopicFacts, admin
from streams.metrics import CONTENT_TYPE, expose
from streams.planning.disagreement import check_running, commits_of_workers, disagreements
from streams.planning.stage import Stage, several_need_exactly_once, stages
from streams.planning.topics import check_topics, facts_of
from streams.scored_event import output_schema
from streams.settings import Settings
from streams.suggestion import did_you_mean
from transforms.redis_store import RedisStore

log = logging.getLogger(__name__)

T = TypeVar("T")
STOPPED_ITSELF, BROKEN = 20, 70  # exit codes


def run(bound: Bound, settings: Settings, wanted: Sequence[str] = ()) -> int:
    """Score a pipeline's events until a signal says to stop.

    Args:
        bound: the pipeline.
        settings: the worker's.
        wanted: names of the stages to run; none = all.

    The first SIGTERM or SIGINT finishes what is under way, or abandons it when the budget is over; the second ends the process at
    once. Either way nothing is lost: what was not committed is read again.

    Returns:
        The exit code, 0.

    Raises:
        Refused: it can't be started as it stands.
        StepFailed, TooManyRefused, ...: it stopped itself; nothing of the failing batch was committed.
    """
    Worker(bound, settings, wanted).run()
    return 0


def only_instance(group: str, instance: str) -> IO[str]:
    """Hold the instance's name on this machine until the file is closed or the process ends, however it ends.

    Raises:
        SettingsError: a live worker has it. Two with one name would end each other's transactions for ever.
    """
    name = quote(f"{group}-{instance}", safe="")[:200]
    path = Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}-{name}.lock"
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise SettingsError(
            f"another worker of group {group!r} runs here as instance {instance!r}; "
            "give this one a name of its own (kafka.instance or MILLRACE_KAFKA__INSTANCE)"
        ) from error
    return file


def _end_after(seconds: float, exit_code: int) -> None:
    """End the process when it has not ended by then, whatever its threads wait for."""

    def end() -> None:
        log.warning("abandoned what was under way: the budget is over")
        logging.shutdown()
        os._exit(exit_code)

    watch = threading.Timer(seconds, end)
    watch.daemon = True
    watch.start()


class Worker:
    """One process's life: load the model, wait for what it depends on, run, stop."""

    def __init__(self, bound: Bound, settings: Settings, wanted: Sequence[str] = ()) -> None:
        self._bound, self._settings, self._wanted = bound, settings, tuple(wanted)
        self._scorer = load_model(bound.model_path)
        log.info("%s", parity_words(self._scorer, bound.model_path))
        bind_model(self._scorer.card, bound.features.names, bound.features.fingerprint)
        self._parts: list[Parts] = []
        self._locks = ExitStack()
        self._stopping = threading.Event()
        self._frame = Frame(
            bound.name,
            self._prepare,
            [
                Page("/livez", lambda: rendered(together({each.stage.name: each.health.livez() for each in self._parts}, before=True))),
                Page("/readyz", lambda: rendered(together({each.stage.name: each.health.readyz() for each in self._parts}, before=False))),
                Page("/metrics", lambda: (200, CONTENT_TYPE, expose({each.stage.name: each.exposed() for each in self._parts}))),
            ],
            settings.health.host,
            settings.health.port,
            settings.worker.in_flight_batches,
        )

    def run(self) -> None:
        """Run until stopped."""
        try:
            with self._locks:
                asyncio.run(self._run())
        except BaseException as error:
            if self._parts:
                # A thread may still be asking a broker that is away; whoever catches this has the budget's time to say what happened.
                broken = STOPPED_ITSELF if isinstance(error, MillraceError) else BROKEN
                _end_after(self._settings.worker.stop_budget_seconds, getattr(error, "exit_code", broken))
            raise

    def stop(self) -> None:
        """Stop reading; finish what is under way."""
        self._stopping.set()
        for each in self._parts:
            each.source.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        try:
            await self._frame.run()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
                host, port = self._settings.health.host, self._settings.health.port
                raise SettingsError(f"health.port: {host}:{port} can't be listened on: {error.strerror}; wanted a free port") from error
            raise

    def _signalled(self) -> None:
        if self._stopping.is_set():
            log.warning("stopped at once by a second signal")
            os._exit(130)
        budget_seconds = self._settings.worker.stop_budget_seconds
        log.info("stopping budget_seconds=%.0f", budget_seconds)
        self.stop()
        # A broker or store that is away must not keep us: what is not committed by then is read again by the next owner.
        _end_after(budget_seconds + 1.0, 0)

    # --- what the stages need, then the stages ---

    def _prepare(self) -> list[Line]:
        planned = self._insist("the broker", self._plan)
        registered = self._insist("the schema registry", self._registered)
        if planned is None or registered is None:
            return []
        all_stages, topics = planned
        registry, encoder = registered
        chosen = self._chosen(all_stages)
        for stage in chosen:
            self._locks.enter_context(only_instance(stage.group(self._settings.kafka), self._settings.kafka.instance))
        if cold := cold_kernels():
            log.info("compiling %d kernels, this once: the next start is seconds faster", len(cold))
        warm_up()
        given = Given(
            bound=self._bound,
            settings=self._settings,
            stages=all_stages,
            scorer=self._scorer,
            card=self._scorer.card,
            registry=registry,
            encoder=encoder,
            topics=topics,
            hand_on=self._frame.hand_on,
        )
        parts = []
        for stage in chosen:
            store = self._insist("the state store", partial(self._open_store, stage))
            if store is None:
                return []
            parts.append(Parts(given, stage, store))
        for each in parts:
            each.health.started = True
        self._parts = parts
        if self._stopping.is_set():
            self.stop()
        return [each.line for each in parts]

    def _insist(self, what: str, ask: Callable[[], T]) -> T | None:
        """Ask until there is an answer; None when the worker is told to stop first."""
        while not self._stopping.is_set():
            try:
                return ask()
            except RetryLater as error:
                log.warning("waiting for %s: %s", what, error)
                self._stopping.wait(error.after_seconds)
        return None

    def _open_store(self, stage: Stage) -> RedisStore:
        redis = self._settings.redis
        store = RedisStore(
            redis.url.get_secret_value(),
            stage.namespace,
            connect_timeout_seconds=redis.connect_timeout_seconds,
            answer_timeout_seconds=redis.answer_timeout_seconds,
        )
        for warning in store.check_server().warnings:
            log.warning("redis: %s", warning)
        return store

    def _plan(self) -> tuple[tuple[Stage, ...], dict[str, TopicFacts]]:
        """The pipeline's stages, and what the broker says of their topics."""
        client, kafka = admin(self._settings.kafka), self._settings.kafka
        facts = facts_of(client, self._bound)
        for finding in check_topics(self._bound, facts):
            log.warning("topic %s: %s", finding.topic, finding.words)
        planned = stages(self._bound, facts[self._bound.input.name].partitions)
        if len(planned) > 1 and self._settings.worker.delivery == "at_least_once":
            raise SettingsError(several_need_exactly_once(self._bound, planned))
        commits = commits_of_workers(client, self._bound, planned, kafka)
        counts = {name: topic.partitions for name, topic in facts.items()}
        found = disagreements(self._bound, planned, kafka, commits, counts)
        for finding in check_running(found, self._settings.worker.on_conflict):
            log.warning("%s: %s", finding.topic, finding.words)
        return planned, facts

    def _chosen(self, all_stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """The stages to run here.

        Raises:
            SettingsError: the pipeline has no stage of a name that is wanted.
        """
        by_name = {stage.name: stage for stage in all_stages}
        for name in self._wanted:
            if name not in by_name:
                raise SettingsError(f"pipeline {self._bound.name!r} has no stage {name!r}; {did_you_mean(name, by_name)}")
        return tuple(stage for stage in all_stages if not self._wanted or stage.name in self._wanted)

    def _registered(self) -> tuple[Registry, Encoder]:
        """The registry, and the encoder of scored events by the schema registered for them."""
        settings, output = self._settings.registry, self._bound.output
        registry = open_registry(settings.place(self._bound.schema_folder), settings.client_keys)
        wanted = output_schema(self._bound)
        found = registry.latest(output.subject)
        if found is None or found[1].fingerprint != wanted.fingerprint:
            state = "is not registered" if found is None else f"is registered as id {found[0]} with other fields"
            raise SchemaError(f"the schema of {output.name} {state}; `millrace topics create` registers the one this pipeline writes")
        return registry, Encoder(wanted, output.framing, found[0])
