"""A worker that leaves or dies, and the next one's first score: ``python -m benchmarks.takeover``.

One partition whose state in Redis has 10,000 customers. A second worker of the group stands by, events come all the time, and the
owner leaves (SIGTERM) or dies (kill -9). Two times are taken:

- from *assigned* (the group gave the partition to the second worker, as its log says) to the first score of it that a
  read_committed reader has in hand: the takeover itself, which reads no block before an event asks for its key;
- from *gone* (the owner's process ended) to the same score: this includes the group's clocks, with a kill the session's timeout.

The answer is asserted: every event scored once, with every feature as the slow definition says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from streams.kafka import TopicPartition, plain_consumer
from tests.live.scene import CUSTOMERS_ONLY, Scene, Worker, payment, wait_for
from tests.services import private_services

BOUNDS = Path(__file__).with_name("bounds.json")
EVENTS_A_KEY = 3
TICK_SECONDS = 0.02


def customer(number: int, keys: int) -> str:
    """Far apart in time for one customer, and in no order that a cache would like."""
    return f"C{number * 7_919 % keys:06}"


@contextmanager
def feeding(scene: Scene, first: int, keys: int, rate: int) -> Iterator[None]:
    """Send payments at a rate until the block ends."""
    enough = threading.Event()

    def feed() -> None:
        sent, began = 0, time.monotonic()
        while not enough.wait(TICK_SECONDS):
            due = int((time.monotonic() - began) * rate)
            scene.send_payments(payment(first + n, customer_id=customer(first + n, keys)) for n in range(sent, due))
            sent = due

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


class Scores(threading.Thread):
    """Counts the scores a read_committed reader has in hand; they stand in the order of their records."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self._reader = plain_consumer(scene.settings.kafka, "benchmark")
        self._reader.assign([TopicPartition(scene.bound.output.name, 0, 0)])
        self._enough = threading.Event()
        self._seen: list[tuple[int, float]] = [(0, 0.0)]  # how many, and when

    def run(self) -> None:
        while not self._enough.is_set():
            first = self._reader.poll(TICK_SECONDS)
            if first is not None:
                found = sum(each.error() is None for each in (first, *self._reader.consume(10_000, 0)))
                self._seen.append((self._seen[-1][0] + found, time.time()))
        self._reader.close()

    def seen_at(self, offset: int) -> float:
        """When the score of the record at an offset was in hand; seconds since the epoch."""
        wait_for("the score", lambda: self._seen[-1][0] > offset)
        self._enough.set()
        return next(at for count, at in self._seen if count > offset)


def said_at(worker: Worker, words: str) -> float:
    """When a worker first said these words; seconds since the epoch."""
    line = next(line for line in worker.log.splitlines() if words in line)
    return datetime.fromisoformat(line.split()[0]).timestamp()


def takeover(scene: Scene, keys: int, rate: int, killed: bool) -> dict[str, float]:
    """Let one worker follow another; seconds."""
    known = EVENTS_A_KEY * keys
    scene.send_payments(payment(n, customer_id=customer(n, keys)) for n in range(known))
    owner = scene.worker("owner", WORKER__BATCH_RECORDS="2000")
    scene.drained(owner)
    assert len(scene.blocks()) == keys
    follower = scene.worker("follower", WORKER__BATCH_RECORDS="2000")
    group = scene.stage.group(scene.settings.kafka)
    wait_for("the second member", lambda: len(_members(scene, group)) == 2)
    scores = Scores(scene)
    scores.start()
    with feeding(scene, known, keys, rate):
        scene.progressed(known + rate, owner)
        if killed:
            owner.kill()
        else:
            assert owner.stop() == 0, owner.log
        gone = time.time()
        follower.says("taken_over at=")
        from_offset = int(follower.log.split("live_from=")[1].split()[0])
        scored = scores.seen_at(from_offset)
        scene.progressed(from_offset + rate, follower)
    assigned = said_at(follower, "assigned at=")
    taken = said_at(follower, "taken_over at=")
    scene.drained(follower)
    assert follower.stop() == 0, follower.log
    faults = scene.faults()
    assert faults == [], faults
    return {"assigned_to_taken": taken - assigned, "assigned_to_first_score": scored - assigned, "gone_to_first_score": scored - gone}


def _members(scene: Scene, group: str) -> list[Any]:
    client = scene.broker.admin  # held until the answer is there
    (answer,) = client.describe_consumer_groups([group]).values()
    return list(answer.result(10).members)


def main() -> None:
    """Print the figures, and fail if a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--session-timeout-ms", type=int, default=6_000)
    parser.add_argument("--protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument("--no-floors", action="store_true", help="measure only")
    wanted = parser.parse_args()
    environment = {"KAFKA__SESSION_TIMEOUT_MS": str(wanted.session_timeout_ms), "KAFKA__GROUP_PROTOCOL": wanted.protocol}
    found: dict[str, list[dict[str, float]]] = {"leaves": [], "killed": []}
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder, private_services() as own:
        for turn in range(wanted.rounds):
            for how, figures in found.items():
                place = Path(folder) / f"{how}-{turn}"
                scene = Scene(place, own.broker, own.now.redis_url, changes=CUSTOMERS_ONLY, environment=environment)
                try:
                    figures.append(takeover(scene, wanted.keys, wanted.rate, how == "killed"))
                finally:
                    scene.close()
    print(
        f"{wanted.keys:,} keys in Redis, {wanted.rate} events/s, {wanted.protocol}, session timeout {wanted.session_timeout_ms} ms; seconds"
    )
    for how, figures in found.items():
        for name in figures[0]:
            each = [round(figure[name], 3) for figure in figures]
            print(f"  {how:7} {name:24} {sorted(each)[len(each) // 2]:7.3f}   of {each}")
    print("  every event scored once, and every feature as the definition says")
    if not wanted.no_floors:
        floor = json.loads(BOUNDS.read_text())["takeover"]["assigned_to_first_score_seconds"]
        worst = max(figure["assigned_to_first_score"] for figures in found.values() for figure in figures)
        if worst > floor:
            raise SystemExit(f"the first score came {worst:.3f} s after the assignment, the floor is {floor}")


if __name__ == "__main__":
    main()
