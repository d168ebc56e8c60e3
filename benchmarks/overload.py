"""Twice as much as can be done: ``python -m benchmarks.overload``.

Each case begins with full windows. How much can be done is taken first: a backlog is drained with nobody sending. Then twice
that is offered for `--seconds`.

| case | what is slow |
|---|---|
| `plain` | nothing; the worker is as fast as it is |
| `slow_key` | one key: a derived column takes a millisecond for each of its events |
| `slow_partition` | one of four partitions: the same, 0.2 ms for each event |
| `slow_redis` | Redis: each stretch of bytes to it and from it passes 20 ms later |

Held against `bounds.json`: the worker's memory, at its highest, beyond what it had before; that it keeps its partitions,
without a time-out, a revocation or a restart; that all is answered afterwards, each event once, and the features of some keys
as the slow definition says. What waits, waits in Kafka.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load.generator import Order
from benchmarks.load.session import Session
from benchmarks.load.shape import Shape
from benchmarks.load.stand import Stand, await_answered
from benchmarks.on_trial import arguments, judged, on_trial, say, told
from streams.faults.link import Link
from streams.planning.stage import stages

BOUNDS = Path(__file__).with_name("bounds.json")
TIMES = 2.0
PATIENCE_SECONDS = 600.0
REDIS_DELAY_SECONDS = 0.02
_LAST_LINE = "    return time % days(1) // hours(1) <= 6\n"
_SLOW_KEY = f"""\
    from time import sleep
    sleep(0.001 * sum(key == b"customer_id-0000000" for key in event["customer_id"]))
{_LAST_LINE}"""
_SLOW_PARTITION = f"""\
    from time import sleep
    from streams.partitioner import partitions_of
    sleep(0.0002 * int((partitions_of(event["customer_id"], 4) == 0).sum()))
{_LAST_LINE}"""


@dataclass(frozen=True)
class Case:
    """One way to be overloaded.

    Attributes:
        backlog: events that its capacity is taken over.
        partitions: of the topics.
        change: of the pipeline's text.
        delay_seconds: of each stretch of bytes to Redis and from it.
    """

    backlog: int
    partitions: int = 1
    change: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0


CASES = {
    "plain": Case(300_000),
    "slow_key": Case(60_000, change={_LAST_LINE: _SLOW_KEY}),
    "slow_partition": Case(60_000, partitions=4, change={_LAST_LINE: _SLOW_PARTITION}),
    "slow_redis": Case(60_000, delay_seconds=REDIS_DELAY_SECONDS),
}


def capacity(session: Session, backlog: int) -> float:
    """Events a second that the worker takes from a backlog, with nobody sending."""
    stand, first = session.stand, session.next_row
    session._finish(session._begin(Order(first, backlog)), PATIENCE_SECONDS)
    tenth: tuple[float, float] | None = None
    now = done = 0.0
    for now, done in await_answered(stand, session.next_row, PATIENCE_SECONDS):
        if tenth is None and done > first + backlog / 10:
            tenth = now, done
    if tenth is None or now <= tenth[0]:
        return backlog / 1.0  # it was done before the generators were
    return (done - tenth[1]) / (now - tenth[0])


def overload(session: Session, case: Case, backlog: int, seconds: float) -> dict[str, Any]:
    """Offer twice what can be done, and see what becomes of the worker."""
    worker = session.stand.workers[0]
    can = capacity(session, backlog)
    say(f"capacity {can:,.0f} events/s; offering {TIMES * can:,.0f} for {seconds:g} s")
    rss_before = worker.process.memory_info().rss / 1e6
    begun = time.monotonic()
    run = session.run(Shape("constant", TIMES * can, seconds))
    took = time.monotonic() - begun
    log = worker.log.read_text(encoding="utf-8", errors="replace")
    return {
        "capacity": round(can, 1),
        "offered": round(run["events"] / seconds, 1),
        "events": run["events"],
        "unanswered": run["unanswered"],
        "repeated": run["repeated"],
        "most_behind": max(count for _, count in run["behind"]),
        "drained_after_seconds": round(max(took - seconds, 0.0), 1),
        "rss_mb_before": round(rss_before, 1),
        "rss_mb_highest": run["rss_mb"]["worker"],
        "evictions": sum(log.count(word) for word in ("revoked at=", "lost at=", "MAXPOLL", "max.poll.interval")),
        "partitions": case.partitions * len(stages(session.stand.bound, case.partitions)),
        "assignments": log.count(" assigned at="),
        "starts_over": log.count("starting_over at="),
        "latency": run["latency"],
    }


def run_case(name: str, wanted: Any) -> dict[str, Any]:
    """One case, on services of its own."""
    case = CASES[name]
    with ExitStack() as stack:
        session = stack.enter_context(
            on_trial(wanted, case.partitions, generators=wanted.generators, changes=case.change, environment=_slowed(case, stack.callback))
        )
        stack.enter_context(session.stand.working(1))
        session.drain()
        found = overload(session, case, wanted.backlog or case.backlog, wanted.seconds)
        found["answers"] = session.check(5)
    return found


def _slowed(case: Case, at_end: Callable[..., Any]) -> Callable[[Stand], Mapping[str, str]]:
    """Settings that lead a worker to a Redis that answers late."""

    def settings(stand: Stand) -> Mapping[str, str]:
        if not case.delay_seconds:
            return {}
        link = Link(urlsplit(stand.settings.redis.url.get_secret_value()).port or 6379)
        link.slow_down(case.delay_seconds)
        at_end(link.close)
        return {"REDIS_URL": f"redis://127.0.0.1:{link.port}/0"}

    return settings


def main() -> None:
    """Run the cases, keep what was found, and fail if a floor is missed."""
    parser = arguments(__doc__, keys=10_000, live=60)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--backlog", type=int, default=0, help="events that the capacity is taken over; 0 = the case's own")
    parser.add_argument("--generators", type=int, default=1)
    parser.add_argument("--cases", default=",".join(CASES), help="some of them, with commas between")
    wanted = parser.parse_args()
    found = {}
    for name in wanted.cases.split(","):
        say(f"case {name}")
        found[name] = run_case(name, wanted)
    told("overload", wanted, {"cases": found})
    wrong = []
    for name, each in found.items():
        print(
            f"  {name:15} can {each['capacity']:9,.0f}/s, offered {each['offered']:9,.0f}/s, most behind {each['most_behind']:10,},",
            end=" ",
        )
        print(
            f"drained in {each['drained_after_seconds']:6.1f} s, RSS {each['rss_mb_before']:,.0f} to {each['rss_mb_highest']:,.0f} MB,",
            end=" ",
        )
        print(f"{each['assignments']} assignments, {each['evictions']} evictions")
        wrong += [f"{name}: {words}" for words in missed(each)]
    judged(wanted, wrong)


def missed(found: Mapping[str, Any]) -> list[str]:
    """What did not hold."""
    floors = json.loads(BOUNDS.read_text())["overload"]
    wrong = []
    if found["offered"] < floors["offered_times_capacity"] * found["capacity"]:
        wrong.append(
            f"no overload: {found['offered']:,.0f} events/s were offered, of a capacity of {found['capacity']:,.0f}; use more --generators"
        )
    if found["unanswered"] or found["repeated"]:
        wrong.append(f"{found['unanswered']:,} events unanswered, {found['repeated']:,} answered twice")
    if found["rss_mb_highest"] - found["rss_mb_before"] > floors["rss_mb_beyond"]:
        before, highest = found["rss_mb_before"], found["rss_mb_highest"]
        wrong.append(f"memory went from {before:,.0f} to {highest:,.0f} MB, the floor is {floors['rss_mb_beyond']} beyond")
    if found["evictions"] or found["assignments"] != found["partitions"]:
        wrong.append(f"{found['evictions']} evictions, {found['assignments']} assignments of {found['partitions']} partitions")
    return wrong


if __name__ == "__main__":
    main()
