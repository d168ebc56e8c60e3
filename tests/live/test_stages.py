"""Two stages and labels, in one process and in two: every event once, every feature what the logs say."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.scene import START_MS, alter_topic, at_ms, wait_for
from tests.live.stage_scene import StageScene
from tests.oracles.payments import DAY_MS
from tests.redis_server import RedisServer
from tests.services import Broker

PAYMENTS = 2_000
SetUp = Callable[..., StageScene]


@pytest.fixture
def stage_scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[SetUp]:
    """Makes scenes of stages on the run's broker and Redis, or others."""
    made: list[StageScene] = []

    def make(**options: Any) -> StageScene:
        scene = StageScene(tmp_path / f"scene-{len(made)}", options.pop("broker", broker), options.pop("redis_url", redis_url), **options)
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.close()


def payments(count: int, first: int = 0, days_later: int = 0) -> list[dict[str, Any]]:
    """Payments ten seconds apart; some come late, some too late."""
    shift_minutes = {3: -30, 7: -180}
    return [
        {
            "payment_id": f"P{n:06}",
            "event_time": at_ms(START_MS + days_later * DAY_MS + n * 10_000 + shift_minutes.get(n % 50, 0) * 60_000),
            "customer_id": f"C{n % 17}",
            "terminal_id": f"T{n * 7 % 11}",
            "amount": (n * 37 % 20_000) / 100,
            "currency": "EUR",
        }
        for n in range(first, first + count)
    ]


def label_of(payment: dict[str, Any], fraud: bool) -> dict[str, Any]:
    return {**{name: payment[name] for name in ("payment_id", "event_time", "terminal_id")}, "fraud": fraud}


def frauds(sent: list[dict[str, Any]], *, fraud: bool = True, every: int = 5) -> list[dict[str, Any]]:
    return [label_of(payment, fraud) for payment in sent[::every]]


def test_labels_match_repeat_correct_and_miss_as_the_log_has_them(stage_scene: SetUp) -> None:
    scene = stage_scene()
    worker = scene.worker()
    early = payments(1_500)
    unborn = [{**payment, "terminal_id": "T-new"} for payment in payments(1, first=9_000)]
    scene.send_labels(frauds(unborn))
    scene.drained_stages(worker)
    scene.send_payments([*early, *unborn])
    scene.drained_stages(worker)
    scene.send_labels(frauds(early))
    scene.drained_stages(worker)
    scene.send_labels(frauds(early))  # said before
    scene.send_labels(frauds(early, fraud=False, every=10))  # corrected
    unknown = {**label_of(early[0], True), "payment_id": "nobody"}
    scene.send_labels([unknown])
    scene.drained_stages(worker)
    scene.send_payments(payments(1_000, first=1_500))
    scene.drained_stages(worker)
    scene.send_payments(payments(500, first=2_500, days_later=3))
    scene.drained_stages(worker)
    scene.send_labels(frauds(early[1:]))  # of a past that is gone
    scene.drained_stages(worker)

    assert scene.faults_of_stages() == []
    outcomes = scene.judge_of_stages.outcomes(scene.evidence_of_stages())
    assert min(outcomes[each] for each in ("matched", "repeated", "unmatched")) > 50, outcomes
    for outcome, labels in outcomes.items():
        assert worker.metric(f'millrace_labels_total{{outcome="{outcome}",stage="by-terminal"}}') == labels
    assert worker.metric("millrace_records_read_total{partition") == 3_001 * 2 + sum(outcomes.values()) * 2
    assert worker.metric("millrace_events_scored_total{") == 3_001
    assert worker.metric('millrace_records_passed_on_total{stage="by-customer"') == 3_001
    features = [scene.judge_of_stages.payments.read(record)["features"] for record in scene.outputs()]
    assert sum(each["terminal_label_rate_12h_delay_2h"] > 0 for each in features) > 100, "labels should be seen"
    assert worker.stop() == 0, worker.log


def test_a_backlog_is_put_through_as_it_came_and_no_label_passes_its_event(stage_scene: SetUp) -> None:
    scene = stage_scene()
    # Not from the first: who has no past yet is too late for nothing.
    sent = [{**payment, "customer_id": f"C{n % 17 if n % 3 else 0}"} for n, payment in enumerate(payments(4_000, first=50), 50)]
    for first in range(0, len(sent), 100):  # labels two hours after their payments
        scene.send_payments(sent[first : first + 100])
        scene.send_labels(frauds(sent[max(first - 700, 0) : max(first - 600, 0)]))
    scene.send_labels(frauds(sent[-700:]))
    routed = scene.worker("labels", "--stages", "labels")  # alone it reads them all at once, and must not
    worker = scene.worker("events", "--stages", "by-customer,by-terminal")
    scene.drained_stages(worker, routed)

    judge, evidence = scene.judge_of_stages, scene.evidence_of_stages()
    timings = Counter(judge.payments.read(record)["timing"] for record in evidence.outputs)
    assert judge.faults(evidence) == []
    assert judge.outcomes(evidence) == {"matched": 800}
    assert timings["too_late"] == 80, "those that were sent too late, and no others"
    assert worker.stop() == routed.stop() == 0


def test_records_that_can_not_be_used_are_letters_once_with_the_bytes_they_came_with(stage_scene: SetUp) -> None:
    scene = stage_scene()
    worker = scene.worker()
    good = payments(400)
    scene.send_payments(good)
    scene.send([(b"C1", b"\x05bad"), (b"C1", None), (None, scene.encode(good[0])), (b"C2", scene.encode({**good[1], "amount": -1.0}))])
    scene.send([(b"C1", scene.encode(good[1])[:-2]), (b"C9", scene.encode(good[3]))], headers=[("traceparent", b"00-1")])
    scene.send_raw_label(b"P000001", b"nothing")
    scene.send_raw_label(b"another", scene.encode_label(label_of(good[1], True)))
    scene.send_labels([{**label_of(good[2], True), "terminal_id": ""}, *frauds(good[::4], every=3)])
    scene.drained_stages(worker)
    assert scene.faults_of_stages() == []
    assert len(scene.letters()) == 6
    assert worker.stop() == 0, worker.log


def test_what_the_last_stage_refuses_is_a_letter_of_the_input_with_the_bytes_it_came_with(stage_scene: SetUp) -> None:
    scene = stage_scene()
    alter_topic(scene.broker, scene.bound.output.name, max_message_bytes="5000")
    large = [{**payment, "payment_id": payment["payment_id"] * 1_000} for payment in payments(2, first=60)]
    first = scene.worker("first", "--stages", "by-customer")
    second = scene.worker("second", "--stages", "by-terminal")

    def send_large(payment: dict[str, Any]) -> bytes:
        value = scene.encode(payment)
        scene.send([(payment["customer_id"].encode(), value)], headers=[("trace", b"7")])
        scene.drained_of(("by-customer",), (first,))
        return value

    scene.send_payments(payments(60))
    value = send_large(large[0])
    scene.drained_of(("by-terminal",), (second,))
    (letter,) = scene.letters()
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["trace"]) == (large[0]["customer_id"].encode(), value, b"7")
    assert (headers["millrace.reason"], headers["millrace.counted"]) == (b"output_refused", b"true")
    assert headers["__connect.errors.topic"] == scene.name.encode()
    assert len(scene.outputs()) == 60, "its neighbours are scored"

    assert second.stop() == 0, second.log
    send_large(large[1])
    scene.delete_inputs()
    third = scene.worker("third", "--stages", "by-terminal")
    scene.drained_of(("by-terminal",), (third,))
    gone = next(dict(letter.headers) for letter in scene.letters() if letter.value is None)
    assert gone["millrace.original"] == b"gone"
    assert third.stop() == first.stop() == 0


@pytest.mark.parametrize("point", ["before_commit", "offsets_sent", "after_commit", "after_write"])
def test_one_process_killed_anywhere_loses_and_repeats_nothing(stage_scene: SetUp, point: str) -> None:
    scene = stage_scene()
    sent = payments(PAYMENTS)
    scene.send_payments(sent[:1_500])
    scene.send_labels(frauds(sent[:1_500]))
    for nth in (4, 9):
        killed = scene.worker(FAULT=f"{point}:{nth}", WORKER__BATCH_RECORDS="100")
        assert killed.ends() == -signal.SIGKILL, killed.log
    scene.send_payments(sent[1_500:])
    last = scene.worker(WORKER__BATCH_RECORDS="100")
    scene.drained_stages(last)
    assert last.stop() == 0, last.log
    assert scene.faults_of_stages() == []
    assert scene.state_follows()


def test_two_processes_each_with_its_stages_survive_the_killing_of_either(stage_scene: SetUp) -> None:
    scene = stage_scene(environment={"WORKER__BATCH_RECORDS": "100"})
    sent = payments(PAYMENTS)
    early = scene.worker("early", "--stages", "by-customer,labels")
    late = scene.worker("late", "--stages", "by-terminal")
    scene.send_payments(sent[:500])
    scene.drained_stages(early, late)
    assert set(early.stages()) == {"by-customer", "labels"}
    scene.send_payments(sent[500:1_500])
    scene.send_labels(frauds(sent[:500]))
    late.kill()
    scene.send_payments(sent[1_500:1_700])
    late = scene.worker("late-again", "--stages", "by-terminal")
    early.kill()
    scene.send_payments(sent[1_700:])
    early = scene.worker("early-again", "--stages", "labels,by-customer")
    scene.drained_stages(early, late)
    assert early.stop() == 0, early.log
    assert late.stop() == 0, late.log
    assert scene.faults_of_stages() == []
    assert scene.state_follows()


def test_partitions_of_all_stages_move_between_two_whole_workers(stage_scene: SetUp) -> None:
    scene = stage_scene()
    sent = payments(PAYMENTS)
    first = scene.worker("first", WORKER__BATCH_RECORDS="50")
    scene.send_payments(sent[:1_000])
    first.says("taken_over", times=12)
    second = scene.worker("second", WORKER__BATCH_RECORDS="50")
    scene.send_labels(frauds(sent[:1_000]))
    second.says("taken_over", times=3)
    scene.send_payments(sent[1_000:])
    first.kill()
    scene.drained_stages(second)
    assert second.stop() == 0, second.log
    assert scene.faults_of_stages() == []
    assert scene.state_follows()


def test_a_stop_in_mid_stream_finishes_what_every_stage_has_under_way(stage_scene: SetUp) -> None:
    scene = stage_scene()
    sent = payments(PAYMENTS)
    scene.send_payments(sent)
    scene.send_labels(frauds(sent))
    stopped = scene.worker(WORKER__BATCH_RECORDS="10")
    wait_for("some records done in the last stage", lambda: stopped.metric("millrace_events_scored_total{") > 50)
    assert stopped.stop() == 0, stopped.log
    committed = scene.committed_by_stage()
    assert sum(each or 0 for each in committed["by-customer"].values()) < PAYMENTS, "it should have been stopped in the middle"
    assert scene.state_follows()
    last = scene.worker()
    scene.drained_stages(last)
    assert last.stop() == 0
    assert scene.faults_of_stages() == []


def test_a_stage_whose_state_is_wiped_is_rebuilt_from_its_own_log(stage_scene: SetUp, own_redis: RedisServer) -> None:
    scene = stage_scene(redis_url=own_redis.url)
    sent = payments(PAYMENTS)
    worker = scene.worker(WORKER__BATCH_RECORDS="50")
    scene.send_payments(sent[:1_000])
    scene.send_labels(frauds(sent[:1_000]))
    scene.drained_stages(worker)
    wiped = scene.stages["by-terminal"].namespace
    with scene.redis() as client:
        client.delete(*client.scan_iter(f"{{{wiped}.*", 10_000))
    scene.send_payments(sent[1_000:1_500])
    worker.says("starting_over")
    scene.drained_stages(worker)
    assert worker.metric('millrace_records_replayed_total{partition="0",stage="by-terminal"') > 0
    assert worker.metric('millrace_records_replayed_total{partition="0",stage="by-customer"') == 0
    assert worker.stop() == 0, worker.log
    own_redis.ask("FLUSHALL")
    after = scene.worker()
    scene.send_payments(sent[1_500:])
    scene.send_labels(frauds(sent[1_000:]))
    scene.drained_stages(after)
    # The stage of labels remembers nothing: there is nothing to read again.
    assert after.metric('millrace_records_replayed_total{partition="0",stage="labels"') == 0
    assert after.stop() == 0, after.log
    assert scene.faults_of_stages() == []
    assert scene.state_follows()


def test_the_pages_speak_for_every_stage(stage_scene: SetUp, own_redis: RedisServer) -> None:
    scene = stage_scene(redis_url=own_redis.url, environment={"REDIS__ANSWER_TIMEOUT_SECONDS": "0.3"})
    worker = scene.worker()
    sent = payments(200)
    scene.send_payments(sent)
    scene.drained_stages(worker)
    wait_for("ready", worker.ready)
    assert set(worker.stages()) == {"by-customer", "by-terminal", "labels"}
    own_redis.kill()

    def waiting() -> bool:
        scene.send_labels(frauds(sent))  # two of the three stages have something to do
        said = worker.stages()
        return bool(said["labels"]["waiting_for"] and said["by-terminal"]["waiting_for"])

    wait_for("both wait for Redis", waiting)
    assert not worker.ready()
    assert not worker.stages()["by-customer"]["waiting_for"]
    own_redis.start()
    scene.drained_stages(worker)
    wait_for("ready again", worker.ready)
    assert worker.stop() == 0, worker.log


def test_stages_nobody_has_and_a_delivery_that_repeats_are_refused(stage_scene: SetUp) -> None:
    scene = stage_scene()
    unknown = scene.worker("a", "--stages", "by-termnal")
    twice = scene.worker("b", WORKER__DELIVERY="at_least_once")
    assert unknown.ends() == 13
    assert "no stage 'by-termnal'; did you mean 'by-terminal'?" in unknown.log
    assert twice.ends() == 13
    assert "wanted exactly_once" in twice.log
