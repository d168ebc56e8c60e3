"""After a worker's death: ``python -m benchmarks.recovery``.

Two things are timed, each on services of its own:

- **the first new score.** Two workers share four partitions, and both of the pipeline's stages, at `--rate` events/s; one is killed
  (kill -9). Until its partitions speak again, by a read_committed reader of the output, the session has to time out; what comes
  after that is ours, and has `bounds.json`'s seconds.
- **replay.** With no worker running, Redis loses everything. A worker then reads the whole log into its state, outputs
  suppressed; its events a second are taken between the first tenth and the last, from its own counter.

The answer is asserted: each event scored once, through the kill and the loss, and the features of some keys as the slow definition says.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from benchmarks.load.generator import Order
from benchmarks.load.reader import partitions_of
from benchmarks.load.session import Session
from benchmarks.load.shape import Shape
from benchmarks.load.stand import Worker, WorkerEnded
from benchmarks.on_trial import arguments, judged, on_trial, say, told
from streams.kafka import OFFSET_END, Consumer, plain_consumer
from streams.planning.stage import stages

BOUNDS = Path(__file__).with_name("bounds.json")
LEAD_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.25  # a page of metrics costs a worker some milliseconds
PARTITIONS = 4
REPLAYED = "millrace_records_replayed_total"


def first_new_score(session: Session, rate: float, session_seconds: float, around_seconds: float) -> dict[str, float]:
    """Kill one of two workers under a load; seconds from the kill to the first score of its partitions."""
    stand = session.stand
    shape = Shape("constant", rate, session_seconds + 2 * around_seconds)
    reader = plain_consumer(stand.settings.kafka, "millrace-bench-recovery")
    places = partitions_of(reader, stand.bound.output.name)
    for place in places:
        place.offset = OFFSET_END
    reader.assign(places)
    begin = time.time() + LEAD_SECONDS
    order = session._begin(Order(session.next_row, shape.expected_events, shape, begin))
    # Scores lie in the partitions that their inputs lie in. By partition of the killed worker: when its last score was in hand, and how
    # long after the kill the first new one came. What was committed before the kill may still be on its way to the reader then.
    last: dict[int, float] = {}
    gaps: dict[int, float] = {}
    killed_at = 0.0
    while time.time() < begin + shape.seconds or not session.generators.idle:
        first = reader.poll(0.02)
        now = time.time()
        if not killed_at and now > begin + around_seconds:
            victim = stand.workers.pop()
            victim.popen.kill()
            victim.popen.wait()
            killed_at = now = time.time()
            last = dict.fromkeys(_read_by(victim, stand.bound.input.name), killed_at)
            say(f"killed the worker of partitions {sorted(last)}, {killed_at - begin:.1f} s into the load")
        for message in () if first is None else (first, *reader.consume(10_000, 0)):
            partition = message.partition()
            if message.error() is None and partition in last:
                if partition not in gaps and now - last[partition] > session_seconds / 2:
                    gaps[partition] = now - killed_at
                last[partition] = now
        stand.look()
    reader.close()
    session._finish(order, PATIENCE_SECONDS)
    if not gaps:
        raise WorkerEnded(f"the partitions of the killed worker, {sorted(last)}, were not silent, or never spoke again")
    return {"first_score_seconds": round(min(gaps.values()), 3), "last_partition_seconds": round(max(gaps.values()), 3)}


def _read_by(worker: Worker, topic: str) -> list[int]:
    """The partitions of a topic that a worker has, by its log."""
    found: set[int] = set()
    for came, partition in re.findall(rf"(taken_over|revoked|lost) at={re.escape(topic)}\[(\d+)\]", worker.log.read_text(errors="replace")):
        (found.add if came == "taken_over" else found.discard)(int(partition))
    return sorted(found)


def replay(session: Session) -> dict[str, float]:
    """Let Redis lose everything, and read the log into the state again."""
    stand = session.stand
    with stand.redis() as client:
        client.flushall()
    say(f"Redis has lost everything; replaying {session.next_row:,} events")
    rows, begun, tenth = session.next_row, time.monotonic(), None
    with stand.working(1):
        while (done := stand.counted(REPLAYED)) < rows * 0.999:  # offsets of transactions' markers are none of ours
            stand.look()
            now = time.monotonic()
            if tenth is None and done > rows / 10:
                tenth = now, done
            if now - begun > PATIENCE_SECONDS + rows / 1_000:
                raise WorkerEnded(f"{done:,.0f} of {rows:,} events were replayed in {now - begun:.0f} s; {stand.workers[0].log_tail()}")
            time.sleep(LOOK_SECONDS)
        ended = time.monotonic()
        if tenth is None:
            tenth = begun, 0.0
    return {"replay_events": rows, "replay_events_per_second": round((done - tenth[1]) / max(ended - tenth[0], 1e-9), 1)}


def main() -> None:
    """Measure, keep the result, and fail if a floor is missed."""
    parser = arguments(__doc__, keys=10_000, live=60)
    parser.add_argument("--rate", type=float, default=5_000)
    parser.add_argument("--session-timeout-ms", type=int, default=6_000)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of load before the kill; after it comes as much, and the session's timeout"
    )
    wanted = parser.parse_args()
    environment = {"MILLRACE_KAFKA__SESSION_TIMEOUT_MS": str(wanted.session_timeout_ms)}
    found: dict[str, Any] = {}
    with on_trial(wanted, PARTITIONS, environment=lambda stand: environment) as session:
        with session.stand.working(2):
            found["drain"] = session.drain()
            found["kill"] = first_new_score(session, wanted.rate, wanted.session_timeout_ms / 1e3, wanted.seconds)
            say("waiting until all is answered")
            _caught_up(session)
        found["answers_after_kill"] = session.check(20)
    with on_trial(wanted) as session:
        with session.stand.working(1):
            session.drain()
        found["replay"] = replay(session)
        found["answers"] = session.check(20)
    result, _ = told("recovery", wanted, found)
    floors = json.loads(BOUNDS.read_text())["recovery"]
    took = found["kill"]["first_score_seconds"] - wanted.session_timeout_ms / 1e3
    speed = found["replay"]["replay_events_per_second"]
    first = f"{found['kill']['first_score_seconds']:.2f} s after kill -9 under {wanted.rate:,.0f} events/s"
    print(f"  first new score {first}: the session's timeout and {took:.2f} s")
    print(f"  the last of its partitions after {found['kill']['last_partition_seconds']:.2f} s")
    print(f"  replay into the state: {speed:,.0f} events/s over {found['replay']['replay_events']:,} events")
    print(f"  {result['answers']['answered']:,} events, each scored once")
    missed = []
    if took > floors["after_session_timeout_seconds"]:
        missed.append(
            f"the first score came {took:.2f} s after the session's timeout, the floor is {floors['after_session_timeout_seconds']}"
        )
    if speed < floors["replay_events_per_second"]:
        missed.append(f"replay is {speed:,.0f} events/s, the floor is {floors['replay_events_per_second']:,}")
    judged(wanted, missed)


def _caught_up(session: Session) -> None:
    """Wait until every stage's group has committed all there is in its log."""
    stand, end = session.stand, time.monotonic() + PATIENCE_SECONDS * 5
    for stage in stages(stand.bound, stand.partitions):
        reader = plain_consumer(stand.settings.kafka, stage.group(stand.settings.kafka))
        try:
            while behind := _behind(reader, stage.input.name):
                stand.look()
                if time.monotonic() > end:
                    raise WorkerEnded(f"{behind:,} records of {stage.input.name} are not committed; {stand.workers[0].log_tail()}")
                time.sleep(0.1)
        finally:
            reader.close()


def _behind(reader: Consumer, topic: str) -> int:
    """How many offsets a group has yet to commit."""
    found = reader.committed(partitions_of(reader, topic), ANSWER_SECONDS)
    return sum(max(reader.get_watermark_offsets(at, ANSWER_SECONDS)[1] - max(at.offset, 0), 0) for at in found)


if __name__ == "__main__":
    main()
