"""Fixtures for tests on a real broker and Redis, and the promise that none of them is skipped in silence.

The first test that needs the services starts them, with the same code as ``millrace up``; the others, in all processes of the run, find
them running. The process that controls the run ends them when it is over, however it went.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from schemas.errors import MissingProgram
from streams.local.services import Services, down, up
from tests.redis_cluster import RedisCluster, running_cluster
from tests.redis_server import RedisServer, running
from tests.services import Broker, PrivateServices, private_services

ALLOW_NO_BROKER = "MILLRACE_ALLOW_NO_BROKER"
KEPT_VARIABLES = (ALLOW_NO_BROKER, "MILLRACE_CACHE_DIR", "MILLRACE_FAULT_SEED")
FOREIGN_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "SCHEMA_REGISTRY_URL", "LOG_LEVEL")
NEED_SERVICES = {"services", "broker", "topic", "redis_url", "own_services"}

STATE_DIR = pytest.StashKey[Path]()
SKIPPED = pytest.StashKey[list[str]]()

# In CI the same examples each time; elsewhere new ones, since that is where a new failure is of use. No deadlines: machines are shared.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def _controls(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    # What this user's shell says about brokers and settings is not what the tests are about.
    for name in list(os.environ):
        if (name.startswith("MILLRACE_") and name not in KEPT_VARIABLES) or name.removesuffix("_FILE") in FOREIGN_VARIABLES:
            del os.environ[name]
    config.stash[SKIPPED] = []
    if _controls(config):
        config.stash[STATE_DIR] = Path(tempfile.mkdtemp(prefix="millrace-tests-"))
    else:
        process_of_a_run: Any = config
        config.stash[STATE_DIR] = Path(process_of_a_run.workerinput["state_dir"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of the run where the services are."""
    node.workerinput["state_dir"] = str(node.config.stash[STATE_DIR])


def pytest_unconfigure(config: pytest.Config) -> None:
    if _controls(config) and STATE_DIR in config.stash:
        down(config.stash[STATE_DIR], erase=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the services is marked so, whether its author thought of it or not."""
    for item in items:
        if NEED_SERVICES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if not _controls(session.config) or reporter is None or os.environ.get(ALLOW_NO_BROKER):
        return
    session.config.stash[SKIPPED] = [report.nodeid for report in reporter.stats.get("skipped", ()) if "broker" in report.keywords]
    if session.config.stash[SKIPPED]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for nodeid in config.stash[SKIPPED]:
        terminalreporter.write_line(f"FAILED {nodeid}: a test on the real broker was skipped; {ALLOW_NO_BROKER}=1 allows that", red=True)


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services:
    """The broker and the Redis of the whole run."""
    try:
        return up(pytestconfig.stash[STATE_DIR])
    except MissingProgram as error:
        if os.environ.get(ALLOW_NO_BROKER):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def broker(services: Services) -> Broker:
    """The broker of the whole run: not to be stopped, and with topics of others on it."""
    return Broker(services.bootstrap_servers)


@pytest.fixture
def topic(broker: Broker) -> Callable[..., str]:
    """Makes topics with names of their own: ``topic("payments", partitions=2, retention_ms="-1")``."""
    return broker.topic


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    """The Redis of the whole run: not to be emptied or stopped; use `namespace` for keys."""
    return services.redis_url


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses: for keys in Redis, groups, transactional ids."""
    return f"test.{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    """A Redis for the tests of one process of the run, which may ask it anything; `namespace` for keys."""
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster of three nodes for the tests of one process of the run, which may move its slots; `namespace` for keys."""
    with running_cluster() as started:
        yield started


@pytest.fixture
def own_services() -> Iterator[PrivateServices]:
    """A broker and a Redis of the test's own, to kill and start again."""
    try:
        with private_services() as started:
            yield started
    except MissingProgram as error:
        if os.environ.get(ALLOW_NO_BROKER):
            pytest.skip(str(error))
        raise
