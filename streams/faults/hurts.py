"""Everything that is done to a pipeline. Each fault is done for a while, leaves nothing broken, and is noted with its time and address.

What becomes of workers at named points of their life is not here: each worker that begins may be given one (`Ground.drawn_fault`).
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from streams.faults.ground import LATE_ID, Ground, Slot
from streams.faults.link import Link
from streams.faults.servers import OwnKafka, OwnRedis, RedisRefused

CUT_BYTES = 200_000
STORM_TURNS = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, and how often it is chosen."""

    kind: str
    weight: float
    do: Callable[[Ground, str], None]


def worker_killed(ground: Ground, kind: str) -> None:
    """Kill -9, at any moment."""
    slot = ground.any_slot()
    if slot.child is not None:
        with ground.hurting(kind, slot.name):
            slot.child.kill()


def workers_all_killed(ground: Ground, kind: str) -> None:
    """Kill -9, all at once."""
    with ground.hurting(kind, f"{len(ground.slots)} workers"):
        for slot in ground.slots:
            if slot.child is not None and slot.child.lives:
                slot.child.kill()


def worker_terminated(ground: Ground, kind: str) -> None:
    """SIGTERM in the middle of its batches; it ends well, or when its budget is over."""
    slot = ground.any_slot()
    if slot.child is None:
        return
    with ground.hurting(kind, slot.name):
        slot.rests = True
        slot.child.expected = True
        slot.child.signal(signal.SIGTERM)
        _let_it_end(ground, slot)
        if slot.child.code not in (0, -signal.SIGKILL, -signal.SIGTERM):
            ground.ended.append(f"{slot.child.log_file.name} was terminated and ended with {slot.child.code}")
        slot.rests = False


def worker_stopped(ground: Ground, kind: str) -> None:
    """SIGSTOP for less than a session."""
    _stop_worker(ground, kind, ground.chance.uniform(0.05, 0.8))


def worker_made_a_zombie(ground: Ground, kind: str) -> None:
    """SIGSTOP past its session and its transactions, then SIGCONT: it goes on as if nothing had happened."""
    _stop_worker(ground, kind, ground.zombie_seconds)


def _stop_worker(ground: Ground, kind: str, seconds: float) -> None:
    slot = ground.any_slot()
    child = slot.child
    if child is None:
        return
    with ground.hurting(kind, slot.name):
        child.signal(signal.SIGSTOP)
        ground.meanwhile(seconds)
        if child.lives:
            child.signal(signal.SIGCONT)


def rebalance_storm(ground: Ground, kind: str) -> None:
    """Workers that come and go as fast as they can."""
    guest = Slot("guest", rests=True)
    ground.slots.append(guest)
    try:
        with ground.hurting(kind, f"{STORM_TURNS} guests"):
            for _ in range(STORM_TURNS):
                child = ground.start(guest)
                child.expected = True
                ground.meanwhile(ground.chance.uniform(0.3, 1.2))
                child.signal(ground.chance.choice((signal.SIGTERM, signal.SIGKILL)))
                _let_it_end(ground, guest)
    finally:
        ground.slots.remove(guest)


def _let_it_end(ground: Ground, slot: Slot) -> None:
    assert slot.child is not None
    for _ in range(600):
        if not slot.child.lives:
            return
        ground.meanwhile(0.02)
    slot.child.kill()


def broker_killed(ground: Ground, kind: str) -> None:
    """Kill -9 of the broker, and a start where it was."""
    with ground.hurting(kind, ground.kafka.address):
        ground.kafka.kill()
        ground.kafka.start()


def broker_frozen(ground: Ground, kind: str) -> None:
    """The broker holds still: connections stand, nothing is answered."""
    _freeze(ground, kind, ground.kafka, ground.kafka.address)


def broker_disk_full(ground: Ground, kind: str) -> None:
    """No file of the broker may grow any more: it gives its log up and ends; with room again it is started."""
    with ground.hurting(kind, ground.kafka.address):
        _limit_files(ground.kafka.pid, 1)
        ground.meanwhile(ground.chance.uniform(0.3, 1.5))
        ground.kafka.kill()
        ground.kafka.start()


def redis_killed(ground: Ground, kind: str) -> None:
    """Kill -9 of Redis, and a start where it was."""
    with ground.hurting(kind, f"port {ground.redis.port}"):
        ground.redis.kill()
        ground.meanwhile(ground.chance.choice((0.0, 0.0, 0.5)))
        ground.redis.start()


def redis_cut_short(ground: Ground, kind: str) -> None:
    """Kill -9 of Redis, the end of its file lost at a random byte, and a start with what is left."""
    with ground.hurting(kind, f"port {ground.redis.port}"):
        packed_bytes = ground.redis.packed_bytes()
        ground.redis.kill()
        ground.redis.cut_its_file(ground.chance, ground.chance.choice((2_000, CUT_BYTES, 100 * CUT_BYTES)), packed_bytes)
        ground.redis.start()


def redis_flushed(ground: Ground, kind: str) -> None:
    """All of Redis is gone at once, while it is in use."""
    with ground.hurting(kind, f"port {ground.redis.port}"), suppress(OSError):
        ground.redis.ask("FLUSHALL")


def redis_frozen(ground: Ground, kind: str) -> None:
    """Redis holds still: connections stand, nothing is answered."""
    _freeze(ground, kind, ground.redis, f"port {ground.redis.port}")


def redis_full(ground: Ground, kind: str) -> None:
    """Redis has no memory for more: it refuses writes."""
    with ground.hurting(kind, f"port {ground.redis.port}"):
        try:
            ground.redis.ask("CONFIG", "SET", "maxmemory", "1mb")
            ground.meanwhile(ground.chance.uniform(0.2, 1.5))
        finally:
            with suppress(OSError, RedisRefused):
                ground.redis.ask("CONFIG", "SET", "maxmemory", "0")


def redis_disk_full(ground: Ground, kind: str) -> None:
    """Redis can't write its file any more: it refuses writes, until there is room."""
    with ground.hurting(kind, f"port {ground.redis.port}"):
        pid = ground.redis.pid
        _limit_files(pid, 1)
        ground.meanwhile(ground.chance.uniform(0.5, 2.0))
        with suppress(ProcessLookupError):
            _limit_files(pid, resource.RLIM_INFINITY)


def redis_promoted(ground: Ground, kind: str) -> None:
    """The master dies, and a replica that may lack its last writes takes over."""
    with ground.hurting(kind, f"port {ground.redis.port}"):
        ground.promote()


def redis_clients_ended(ground: Ground, kind: str) -> None:
    """Redis ends every connection to it."""
    with ground.hurting(kind, f"port {ground.redis.port}"), suppress(OSError, RedisRefused):
        ground.redis.ask("CLIENT", "KILL", "TYPE", "normal")


def _freeze(ground: Ground, kind: str, server: OwnKafka | OwnRedis, where: str) -> None:
    with ground.hurting(kind, where):
        server.signal(signal.SIGSTOP)
        try:
            ground.meanwhile(ground.chance.choice((0.1, 0.4, 1.2, 3.0)))
        finally:
            server.signal(signal.SIGCONT)


def link_cut(ground: Ground, kind: str) -> None:
    """Connections end, some or all."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.cut(reset=False, share=ground.chance.choice((0.1, 0.5, 1.0)))


def link_reset(ground: Ground, kind: str) -> None:
    """Connections are reset, some or all."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.cut(reset=True, share=ground.chance.choice((0.1, 0.5, 1.0)))


def link_slow(ground: Ground, kind: str) -> None:
    """Every stretch of bytes is late."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.slow_down(ground.chance.choice((0.01, 0.05, 0.2)))
        ground.meanwhile(ground.chance.uniform(0.3, 1.5))
        link.heal()


def link_frozen(ground: Ground, kind: str) -> None:
    """Nothing passes, then all of it, or a reset."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.freeze(True)
        ground.meanwhile(ground.chance.choice((0.2, 0.8, 2.5)))
        if ground.chance.random() < 0.5:
            link.cut(reset=True)
        link.heal()


def link_half_open(ground: Ground, kind: str) -> None:
    """What is asked arrives and is done; the answers are lost with the connections."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.swallow_answers(True)
        ground.meanwhile(ground.chance.choice((0.05, 0.3, 1.2)))
        link.cut(reset=True)
        link.heal()


def link_refuses(ground: Ground, kind: str) -> None:
    """All connections end, and no new one is taken for a while."""
    link, name = _link(ground)
    with ground.hurting(kind, name):
        link.refuse(True)
        link.cut(reset=True)
        ground.meanwhile(ground.chance.uniform(0.1, 1.0))
        link.heal()


def _link(ground: Ground) -> tuple[Link, str]:
    return ground.chance.choice(((ground.kafka_link, "to the broker"), (ground.redis_link, "to redis")))


def poison(ground: Ground, kind: str) -> None:
    """Many records that nothing can be made of, among good ones."""
    with ground.hurting(kind, ground.bound.input.name):
        for _ in range(20):
            ground.feeder.send(3, broken=True)
            ground.feeder.send(3)


def schema_late(ground: Ground, kind: str) -> None:
    """Records of a schema that is registered later: too late for some of them, and for all after these."""
    with ground.hurting(kind, ground.bound.input.name):
        schema_id = LATE_ID + len(list(ground.schemas.glob(f"{LATE_ID // 1_000}*-*.avsc")))
        ground.feeder.send(20, schema_id=schema_id)
        ground.meanwhile(ground.chance.choice((0.0, 0.1, 0.7)))
        (known,) = ground.schemas.glob(f"{ground.events.schema_id}-{ground.bound.input.subject}.avsc")
        unfinished = ground.schemas / f".{schema_id}.part"
        unfinished.write_text(known.read_text(encoding="utf-8"), encoding="utf-8")
        unfinished.replace(ground.schemas / f"{schema_id}-{ground.bound.input.subject}.avsc")
        ground.feeder.send(20, schema_id=schema_id)


def _limit_files(pid: int, size_bytes: int) -> None:
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, most))


FAULTS: tuple[Fault, ...] = (
    Fault("worker_killed", 14, worker_killed),
    Fault("workers_all_killed", 3, workers_all_killed),
    Fault("worker_terminated", 6, worker_terminated),
    Fault("worker_stopped", 6, worker_stopped),
    Fault("worker_made_a_zombie", 4, worker_made_a_zombie),
    Fault("rebalance_storm", 1.5, rebalance_storm),
    Fault("broker_killed", 2, broker_killed),
    Fault("broker_frozen", 3, broker_frozen),
    Fault("broker_disk_full", 1, broker_disk_full),
    Fault("redis_killed", 4, redis_killed),
    Fault("redis_cut_short", 6, redis_cut_short),
    Fault("redis_flushed", 3, redis_flushed),
    Fault("redis_frozen", 3, redis_frozen),
    Fault("redis_full", 3, redis_full),
    Fault("redis_disk_full", 2, redis_disk_full),
    Fault("redis_promoted", 3, redis_promoted),
    Fault("redis_clients_ended", 5, redis_clients_ended),
    Fault("link_cut", 6, link_cut),
    Fault("link_reset", 6, link_reset),
    Fault("link_slow", 4, link_slow),
    Fault("link_frozen", 4, link_frozen),
    Fault("link_half_open", 6, link_half_open),
    Fault("link_refuses", 4, link_refuses),
    Fault("poison", 3, poison),
    Fault("schema_late", 2, schema_late),
)
