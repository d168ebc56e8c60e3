"""What it costs to keep windows in Redis: ``python -m benchmarks.store``.

10,000 customers and 10,000 terminals with 62 records each; batches of 1,000 events, seeded. Beside each other, on one server, in turn:

- *mirror*: what the store does. The owner has the records in memory and writes what a batch added: one fenced EXEC of about 1,900
  small SETRANGEs, its answer awaited with the next;
- *mirror, silent*: the same with the server's replies switched off but for the last ones (`docs/decisions/0005-read-every-reply.md`);
- *sorted sets*: the usual way. For each event and entity ZADD, ZREMRANGEBYSCORE and ZRANGEBYSCORE in one redis-py pipeline a batch,
  the members of the longest window read back with their scores, since the shorter windows are cut from them by time;
- *Lua*: the same commands in a script in the server, one call an event and entity, which adds up each window there and sends back
  six numbers instead of the members.

The answers are asserted: every block read back equals its records laid end to end, every window read back from a sorted set has the
right members, and every count and sum of the script is right. What it takes to compute features is in none of the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.result import circumstances, command_line, keep
from schemas.columns import Ints, PackedBytes
from tests.redis_server import RedisServer, running
from transforms.redis_store import RedisStore
from transforms.resp import command, pack_writes
from transforms.store import WHOLE_BLOCK, Writes

BOUNDS = Path(__file__).with_name("bounds.json")

KEYS = 10_000
RECORDS = 62
EVENTS = 1_000  # in a batch
DAY_MS = 86_400_000
WINDOWS_MS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
WINDOW_MS = max(WINDOWS_MS)
STEP_MS = 40
ENTITIES = ("customer", "terminal")
SILENT = "0-silent"
SCRIPT = """
local now, longest = tonumber(ARGV[1]), tonumber(ARGV[5])
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - longest)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now - longest), now, 'WITHSCORES')
local sums = {0, 0, 0, 0, 0, 0}
for i = 1, #found, 2 do
    local amount = tonumber(string.match(found[i], ':(%d+)$'))
    local age = now - tonumber(found[i + 1])
    for w = 1, 3 do
        if age < tonumber(ARGV[2 + w]) then
            sums[2 * w - 1] = sums[2 * w - 1] + 1
            sums[2 * w] = sums[2 * w] + amount
        end
    end
end
return sums
"""

Batches: TypeAlias = list[tuple[tuple[Writes, ...], int]]  # what each changes, and the position after it


@dataclass(frozen=True)
class Log:
    """Events: their keys by entity, times and amounts."""

    keys: dict[str, Ints]
    times_ms: Ints
    amounts: Ints

    def batch(self, number: int) -> Log:
        """The events of one batch."""
        rows = slice(number * EVENTS, (number + 1) * EVENTS)
        return Log({entity: keys[rows] for entity, keys in self.keys.items()}, self.times_ms[rows], self.amounts[rows])


def make_log(batches: int) -> Log:
    """62 events a key to begin with, in key order; then random ones."""
    random = np.random.default_rng(20_240_501)
    old, new = KEYS * RECORDS, batches * EVENTS
    times = 1_700_000_000_000 + np.arange(old + new, dtype=np.int64) * STEP_MS
    keys = {entity: np.concatenate((np.repeat(np.arange(KEYS), RECORDS), random.integers(0, KEYS, new))) for entity in ENTITIES}
    return Log(keys, times, random.integers(1, 50_000, old + new))


def hashes(keys: Ints) -> NDArray[np.uint64]:
    """Shape (n, 2): a 128-bit hash for each key."""
    low = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.stack((low, low ^ np.uint64(0xD6E8FEB86659FD93)), axis=1)


def records(log: Log, rows: Ints) -> NDArray[np.int64]:
    """Shape (n, 3): position + 1, time and value of these events."""
    return np.stack((rows + 1, log.times_ms[rows], log.amounts[rows]), axis=1)


@dataclass
class Mirror:
    """How long each key's block is; what a batch appends."""

    log: Log
    lengths: dict[str, Ints] = field(default_factory=lambda: {entity: np.zeros(KEYS, np.int64) for entity in ENTITIES})

    def writes(self, first: int, last: int) -> tuple[Writes, ...]:
        """What the events from first to last change: one stretch a key and entity."""
        return tuple(self._writes(entity, first, last) for entity in ENTITIES)

    def _writes(self, entity: str, first: int, last: int) -> Writes:
        keys = self.log.keys[entity][first:last]
        order = np.argsort(keys, kind="stable")
        touched, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
        data = records(self.log, first + order).view(np.uint8).reshape(-1)
        lengths = self.lengths[entity]
        at = np.where(lengths[touched] == 0, WHOLE_BLOCK, lengths[touched])
        lengths[touched] += counts * 24
        return Writes(entity, hashes(touched), at, PackedBytes(data, starts * 24, (starts + counts) * 24))


@dataclass
class Cost:
    """What batches cost, one entry each."""

    wall_us: list[float] = field(default_factory=list)
    client_us: list[float] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)
    sent_bytes: list[float] = field(default_factory=list)

    def cpu_us(self) -> list[float]:
        """Client and server together."""
        return [client + server for client, server in zip(self.client_us, self.server_us, strict=True)]

    def per_event(self) -> dict[str, float]:
        """Medians, an event."""
        return {name: round(statistics.median(values) / EVENTS, 3) for name, values in vars(self).items()}


def ratio(ones: list[float], others: list[float]) -> float:
    """The median over the rounds: what ran in one round ran under one load."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def measured(server: redis.Redis, cost: Cost, batches: int, run: Callable[[], None]) -> None:
    """Run some batches at once, and count what they cost."""
    before = facts(server)
    wall, client = time.perf_counter(), time.process_time()
    run()
    wall, client = time.perf_counter() - wall, time.process_time() - client
    after = facts(server)
    cost.wall_us.append(wall * 1e6 / batches)
    cost.client_us.append(client * 1e6 / batches)
    cost.server_us.append((after["cpu"] - before["cpu"]) * 1e6 / batches)
    cost.sent_bytes.append((after["bytes"] - before["bytes"]) / batches)


def facts(server: redis.Redis) -> dict[str, float]:
    """CPU seconds used, bytes received, memory used."""
    found = server.info("all")
    assert isinstance(found, dict)
    return {
        "cpu": float(found["used_cpu_user"]) + float(found["used_cpu_sys"]),
        "bytes": float(found["total_net_input_bytes"]),
        "memory": float(found["used_memory"]),
    }


def silent_writer(store: RedisStore, namespace: str) -> Callable[[tuple[Writes, ...], int], None]:
    """Writes as the store does, but only the last replies are sent: those that say where the fence stands."""
    wire = store._open(SILENT)
    tag = f"{{{namespace}.{SILENT}}}"
    key = f"{tag}o".encode()
    token = b"f" * 16
    fence = command(b"WATCH", key) + command(b"HMGET", key, b"o", b"e")
    wire.ask(command(b"HSET", key, b"e", token) + fence, 3)

    def write(writes: tuple[Writes, ...], position: int) -> None:
        if wire.is_waiting:
            found = wire.receive()
            assert found[len(found) - 1] == token
        parts = [pack_writes(f"{tag}{each.entity}:".encode(), each) for each in writes]
        head = command(b"CLIENT", b"REPLY", b"OFF") + command(b"MULTI")
        tail = command(b"HSET", key, b"o", b"%d" % position) + command(b"EXEC") + command(b"CLIENT", b"REPLY", b"ON") + fence
        wire.send(np.concatenate([np.frombuffer(head, np.uint8), *parts, np.frombuffer(tail, np.uint8)]), 3)

    return write


Window = list[tuple[bytes, float]]  # members with their times


def sorted_sets(client: redis.Redis, log: Log, first: int, last: int) -> list[Window]:
    """The usual way: what each event's windows hold, customer and terminal in turn."""
    pipeline = client.pipeline(transaction=False)
    for row in range(first, last):
        time_ms = int(log.times_ms[row])
        member = b"%d:%d" % (row, log.amounts[row])
        for entity in ENTITIES:
            key = f"z:{entity}:{log.keys[entity][row]}"
            pipeline.zadd(key, {member: time_ms})
            pipeline.zremrangebyscore(key, "-inf", time_ms - WINDOW_MS)
            pipeline.zrangebyscore(key, f"({time_ms - WINDOW_MS}", time_ms, withscores=True)
    return list(pipeline.execute()[2::3])


def scripted(client: redis.Redis, sha: str, log: Log, first: int, last: int) -> list[list[int]]:
    """Counts and sums of each event's three windows, by the script; customer and terminal in turn."""
    pipeline = client.pipeline(transaction=False)
    for row in range(first, last):
        member = b"%d:%d" % (row, log.amounts[row])
        for entity in ENTITIES:
            pipeline.evalsha(sha, 1, f"l:{entity}:{log.keys[entity][row]}", int(log.times_ms[row]), member, *WINDOWS_MS)
    return list(pipeline.execute())


def load_sorted_sets(client: redis.Redis, log: Log, prefix: str) -> None:
    """The events every key begins with."""
    for entity in ENTITIES:
        pipeline = client.pipeline(transaction=False)
        for key in range(KEYS):
            rows = range(key * RECORDS, (key + 1) * RECORDS)
            pipeline.zadd(f"{prefix}:{entity}:{key}", {b"%d:%d" % (row, log.amounts[row]): int(log.times_ms[row]) for row in rows})
            if key % 1_000 == 999:
                pipeline.execute()


def check_blocks(store: RedisStore, shard: str, log: Log, last: int) -> None:
    """Every block is its records, end to end."""
    for entity in ENTITIES:
        keys = log.keys[entity][:last]
        order = np.argsort(keys, kind="stable")
        touched, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
        wanted = records(log, order).tobytes()
        found = store.read(shard, entity, hashes(touched))
        for row, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            assert found[row] == wanted[start * 24 : (start + count) * 24], f"the block of {entity} {touched[row]} is wrong"


def check_windows(log: Log, first: int, windows: list[Window], members: dict[str, list[Window]]) -> None:
    """Every window read back holds its key's events so far."""
    for number, window in enumerate(windows):
        row, entity = first + number // 2, ENTITIES[number % 2]
        held = members[entity][log.keys[entity][row]]
        held.append((b"%d:%d" % (row, log.amounts[row]), float(log.times_ms[row])))
        assert sorted((bytes(member), float(score)) for member, score in window) == sorted(held), (
            f"the window of {entity} at event {row} is wrong"
        )


def check_sums(windows: list[Window], sums: list[list[int]]) -> None:
    """What the script adds up is what the windows hold."""
    for number, (window, found) in enumerate(zip(windows, sums, strict=True)):
        now = max(score for _, score in window)
        inside = [[int(m.split(b":")[1]) for m, score in window if now - score < length] for length in WINDOWS_MS]
        assert found == [fact for amounts in inside for fact in (len(amounts), sum(amounts))], f"the script's sums {number} are wrong"


def run(rounds: int, batches: int) -> dict[str, object]:
    """Measure, rounds times, `batches` of the mirror and one of the sorted sets and of the script, in turn."""
    old = KEYS * RECORDS
    log = make_log(rounds * batches)
    with running() as server, redis.Redis(unix_socket_path=str(server.socket)) as client:
        return _run(server, client, log, old, rounds, batches)


def _run(server: RedisServer, client: redis.Redis, log: Log, old: int, rounds: int, batches: int) -> dict[str, object]:
    store = RedisStore(server.url, "bench")
    mirrors = {"0": Mirror(log), SILENT: Mirror(log)}
    empty = facts(client)["memory"]
    store.claim("0", {})
    store.write("0", mirrors["0"].writes(0, old), old)
    store.settle("0")
    fresh = facts(client)["memory"]
    store.claim(SILENT, {})
    store.write(SILENT, mirrors[SILENT].writes(0, old), old)
    store.settle(SILENT)
    store.forget(SILENT)
    silent = silent_writer(store, "bench")
    before_sets = facts(client)["memory"]
    load_sorted_sets(client, log, "z")
    sets_bytes = facts(client)["memory"] - before_sets
    load_sorted_sets(client, log, "l")
    sha = str(client.script_load(SCRIPT))
    begun = [(b"%d:%d" % (row, log.amounts[row]), float(log.times_ms[row])) for row in range(old)]
    members = {entity: [begun[key * RECORDS : (key + 1) * RECORDS] for key in range(KEYS)] for entity in ENTITIES}
    costs = {"mirror": Cost(), "mirror, silent": Cost(), "sorted sets": Cost(), "Lua": Cost()}
    for number in range(rounds):
        first = old + number * batches * EVENTS
        prepared = {shard: list(_prepare(mirror, first, batches)) for shard, mirror in mirrors.items()}

        jobs = [
            ("mirror", partial(_mirrored, store, prepared["0"])),
            ("mirror, silent", partial(_each, silent, prepared[SILENT])),
        ]
        for name, job in jobs[:: 1 if number % 2 else -1]:
            measured(client, costs[name], batches, job)
        windows: list[Window] = []
        peer_first = old + number * EVENTS
        measured(client, costs["sorted sets"], 1, lambda at=peer_first, out=windows: out.extend(sorted_sets(client, log, at, at + EVENTS)))  # type: ignore[misc]
        check_windows(log, peer_first, windows, members)
        sums: list[list[int]] = []
        measured(client, costs["Lua"], 1, lambda at=peer_first, out=sums: out.extend(scripted(client, sha, log, at, at + EVENTS)))  # type: ignore[misc]
        check_sums(windows, sums)
    check_blocks(store, "0", log, old + rounds * batches * EVENTS)
    store.claim(SILENT, {})
    check_blocks(store, SILENT, log, old + rounds * batches * EVENTS)
    store.close()
    figures: dict[str, object] = {name: cost.per_event() for name, cost in costs.items()}
    mirror, quiet_cost, sets, lua = costs.values()
    figures["times_faster_than_sorted_sets"] = round(ratio(sets.wall_us, mirror.wall_us), 1)
    figures["times_less_cpu_than_sorted_sets"] = round(ratio(sets.cpu_us(), mirror.cpu_us()), 1)
    figures["times_faster_than_lua"] = round(ratio(lua.wall_us, mirror.wall_us), 1)
    figures["times_less_cpu_than_lua"] = round(ratio(lua.cpu_us(), mirror.cpu_us()), 1)
    figures["reading_every_reply_costs"] = {
        "wall": round(ratio(mirror.wall_us, quiet_cost.wall_us) - 1, 3),
        "cpu": round(ratio(mirror.cpu_us(), quiet_cost.cpu_us()) - 1, 3),
    }
    figures["redis_bytes_per_key"] = {"mirror": round((fresh - empty) / (2 * KEYS)), "sorted sets": round(sets_bytes / (2 * KEYS))}
    return figures


def _each(write: Callable[[tuple[Writes, ...], int], None], todo: Batches) -> None:
    for writes, position in todo:
        write(writes, position)


def _mirrored(store: RedisStore, todo: Batches) -> None:
    _each(partial(store.write, "0"), todo)
    store.settle("0")


def _prepare(mirror: Mirror, first: int, batches: int) -> Iterator[tuple[tuple[Writes, ...], int]]:
    for number in range(batches):
        start = first + number * EVENTS
        yield mirror.writes(start, start + EVENTS), start + EVENTS


def main() -> None:
    arguments = argparse.ArgumentParser(description="The Redis mirror beside sorted sets and a script.")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batches", type=int, default=20, help="of the mirror in a round")
    arguments.add_argument("--record", action="store_true", help="keep the figures in benchmarks/results")
    given = arguments.parse_args()
    figures = run(given.rounds, given.batches)
    print(json.dumps(figures, indent=2))
    if given.record:
        keep("store", circumstances(command_line()) | figures)
    for name, floor in json.loads(BOUNDS.read_text())["store"].items():
        found = figures[name]
        assert isinstance(found, float)
        assert found >= floor, f"{name} is {found}, wanted at least {floor}"


if __name__ == "__main__":
    main()
