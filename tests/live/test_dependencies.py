"""Redis and the broker away, slow, full or locked: the worker pauses, says so, commits nothing wrong, and carries on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.live.conftest import SetUp
from tests.live.scene import payments, wait_for
from tests.redis_server import RedisServer, running
from tests.services import private_services


def test_redis_slow_away_full_and_locked_only_pauses_the_worker(set_up: SetUp, own_redis: RedisServer) -> None:
    scene = set_up(redis_url=own_redis.url, environment={"REDIS__ANSWER_TIMEOUT_SECONDS": "0.3", "REDIS__CONNECT_TIMEOUT_SECONDS": "0.3"})
    scene.send_payments(payments(100))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.ready()

    @contextmanager
    def away() -> Iterator[None]:
        own_redis.kill()
        yield
        own_redis.start()

    @contextmanager
    def locked() -> Iterator[None]:
        own_redis.ask("CONFIG", "SET", "requirepass", "secret")
        own_redis.ask_as("secret", "CLIENT", "KILL", "TYPE", "normal")
        yield
        own_redis.ask_as("secret", "CONFIG", "SET", "requirepass", "")

    troubles: list[tuple[str, Callable[[], AbstractContextManager[None]]]] = [
        ("slow", own_redis.held_still),
        ("away", away),
        ("full", lambda: own_redis.setting("maxmemory", "1")),
        ("locked", locked),
    ]
    for turn, (name, trouble) in enumerate(troubles, start=1):
        over = worker.metric("millrace_starts_over_total{")
        with trouble():
            # The state's write of a batch is sent and not awaited: the next batch notices.
            scene.send_payments(payments(40, first=100 * turn))
            scene.drained(worker)
            scene.send_payments(payments(40, first=100 * turn + 40))
            wait_for(f"not ready while Redis is {name}", lambda: worker.page("/readyz")[0] == 503)
            assert worker.page("/livez")[0] == 200, "a restart would not help"
            assert worker.metric("millrace_starts_over_total{") > over
            committed, tried = scene.committed(), worker.log.count("take_over_later")
            scene.send_payments(payments(20, first=100 * turn + 80))
            worker.says("take_over_later", tried + 1)
            assert scene.committed() == committed, "it goes on only when the state can follow"
        scene.drained(worker)
        wait_for(f"ready after Redis was {name}", worker.ready)
    assert worker.stop() == 0
    assert scene.faults() == []


def test_a_worker_waits_at_its_start_for_a_redis_that_is_locked(set_up: SetUp) -> None:
    with running("--requirepass", "secret") as redis:
        scene = set_up(redis_url=redis.url)
        scene.send_payments(payments(10))
        worker = scene.worker()
        worker.says("waiting for the state store")
        assert worker.page("/readyz")[0] == 503
        redis.ask_as("secret", "CONFIG", "SET", "requirepass", "")
        scene.drained(worker)
        wait_for("ready", worker.ready)


def test_a_broker_down_at_the_start_and_killed_in_mid_stream_is_waited_for(set_up: SetUp) -> None:
    with private_services() as own:
        scene = set_up(broker=own.broker, redis_url=own.now.redis_url)
        scene.send_payments(payments(2_000))
        own.kill("kafka")
        worker = scene.worker(WORKER__BATCH_RECORDS="10")
        worker.says("waiting for the broker")
        assert worker.page("/readyz")[0] == 503
        own.start_again()
        scene.progressed(300, worker)
        own.kill("kafka")
        wait_for("not ready without a broker", lambda: worker.page("/readyz")[0] == 503)
        assert worker.page("/livez")[0] == 200
        own.start_again()
        scene.drained(worker)
        wait_for("ready", worker.ready)
        scene.send_payments(payments(100, first=2_000))
        scene.drained(worker)
        assert worker.stop() == 0
        assert scene.faults() == []
