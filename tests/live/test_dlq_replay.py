"""Dead letters come back on the real broker: once each, under their keys, through kills and repeats, and every one accounted for."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fastavro
import pytest

from streams.definition.inlet import Inlet
from streams.dlq.letters import Choice
from streams.dlq.replay import Desk, Wanted
from streams.kafka import KafkaDown, TopicPartition, plain_consumer
from tests.live.scene import ROOT, Scene, alter_topic, payment, payments, wait_for
from tests.oracles.payments import Record
from tests.streams.command_line import Done, runner

EUROS = """
def euros(events):
    return {"currency": ["EUR"] * len(events["event_time"])}
"""


Dlq = Callable[..., Done]
Facts = Callable[..., Any]


@pytest.fixture
def dlq(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dlq:
    """Runs `millrace dlq` on the scene's pipeline, in this process."""
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    run = runner(scene.folder, monkeypatch, capsys)
    return lambda verb, *arguments: run("dlq", verb, scene.file, *arguments)


@pytest.fixture
def facts(dlq: Dlq) -> Facts:
    """What a verb of `millrace dlq` says, as facts."""
    return lambda verb, *arguments: dlq(verb, *arguments, "--json").facts


def kill(scene: Scene, fault: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Replay in a process of its own, which ends as a crash does when it passes a point."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_") or name == "MILLRACE_CACHE_DIR"}
    ours = {"MILLRACE_KAFKA__BOOTSTRAP_SERVERS": scene.broker.bootstrap_servers, "PYTHONPATH": str(ROOT), "MILLRACE_FAULT": fault}
    command = [sys.executable, "-m", "millrace", "dlq", "replay", str(scene.file), *arguments]
    return subprocess.run(command, env={**kept, **ours}, capture_output=True, text=True, timeout=60, cwd=scene.folder, check=False)


def let_run(scene: Scene) -> None:
    """A worker over all there is; a transaction that is committed may still be on its way to being seen."""
    wait_for("what came back to be seen", lambda: scene.ends()[0] == last_offset(scene))
    worker = scene.worker(WORKER__UNKNOWN_SCHEMA_RETRY_SECONDS="0.3")
    scene.drained(worker)
    assert worker.stop() == 0, worker.log


def last_offset(scene: Scene) -> int:
    """Where the input ends, whatever is open."""
    reader = plain_consumer(scene.settings.kafka, "reader", read_committed=False)
    try:
        return reader.get_watermark_offsets(TopicPartition(scene.bound.input.name, 0), 10.0)[1]
    finally:
        reader.close()


def returned(scene: Scene) -> list[Record]:
    """What came back to the input."""
    return [record for record in scene.read(scene.bound.input.name) if "millrace.replay.offset" in dict(record.headers)]


def first_places(records: list[Record]) -> Counter[tuple[int, int]]:
    """By the address a record had first: how often it came back."""

    def place(headers: Mapping[str, bytes | None]) -> tuple[int, int]:
        return int(headers["millrace.replay.partition"] or b""), int(headers["millrace.replay.offset"] or b"")

    return Counter(place(dict(record.headers)) for record in records)


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_letters_come_back_once_although_the_replay_is_killed_three_times_and_repeated(scene: Scene, facts: Facts) -> None:
    scene.send_payments(payments(100))
    scene.send(((b"C0", b"?"),), headers=[("trace", b"7")])  # nothing can mend it
    wrong = payments(700, first=100, currency="USD")
    scene.send(((each["customer_id"].encode(), scene.encode(each)) for each in wrong), headers=[("trace", b"7")])
    let_run(scene)
    refused = {(letter.partition, letter.offset): letter for letter in scene.read(scene.bound.input.name)[101:]}
    fix = f"{written(scene.folder, 'fixes.py', EUROS)}:euros"

    foreseen = facts("replay", "--with", fix, "--dry-run")
    assert (foreseen["chosen"], foreseen["would_pass"], foreseen["replayed"]) == (701, 700, 0)
    assert facts("replay", "--dry-run")["would_pass"] == 0  # nothing has changed but for the function
    assert returned(scene) == []

    for fault in ("before_commit:2", "offsets_sent:1", "after_commit:1"):
        killed = kill(scene, fault, "--with", fix, "--why", "euros were meant")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert max(first_places(returned(scene)).values()) == 1
    assert 0 < len(returned(scene)) < 700, "it should have been killed in the middle"
    last = facts("replay", "--with", fix, "--why", "euros were meant", "--by", "an operator")
    assert 0 < last["replayed"] < 700
    assert facts("replay", "--with", fix)["replayed"] == 0

    back = returned(scene)
    assert first_places(back) == Counter(dict.fromkeys(refused, 1))
    for record in back:
        headers = dict(record.headers)
        original = refused[record.partition, int(headers["millrace.replay.offset"] or b"")]
        assert record.key == original.key
        assert headers["trace"] == b"7"
        assert headers["millrace.replay.topic"] == scene.bound.input.name.encode()
        assert headers["millrace.replay.counted"] == b"false"
        assert not any(name.startswith("__connect.errors.") for name in headers)

    let_run(scene)
    assert scene.faults() == []
    assert (len(scene.outputs()), len(scene.letters())) == (800, 701)
    told = facts("stats")
    assert (told["open"], told["replayed"], told["refused_again"]) == (1, 700, 0)
    assert sum(run["letters"] for run in told["runs"]) == 700
    assert {run["why"] for run in told["runs"]} == {"euros were meant"}
    assert told["runs"][-1]["by"] == "an operator"
    assert told["runs"][-1]["fix"].endswith("fixes.py:euros")


def test_letters_come_back_when_the_rule_or_the_registry_has_learned(scene: Scene, facts: Facts) -> None:
    late = 77

    def unknown(number: int) -> tuple[bytes, bytes]:
        value = scene.encode(payment(number))
        return payment(number)["customer_id"].encode(), b"\0" + struct.pack(">i", late) + value[5:]

    scene.send_payments(payments(20))
    scene.send(unknown(number) for number in range(20, 30))
    scene.send_payments(payments(10, first=30, amount=60_000.0))
    let_run(scene)
    assert facts("replay", "--dry-run")["would_pass"] == 0

    (scene.folder / "schemas" / f"{late}-late.avsc").write_text((scene.folder / "schemas" / f"1-{scene.name}-value.avsc").read_text())
    assert facts("replay", "--field", "amount", "--dry-run")["chosen"] == facts("replay", "--schema", late, "--dry-run")["chosen"] == 10
    done = facts("replay")
    assert (done["replayed"], done["by_reason"]) == (10, {"unknown_schema": 10})
    let_run(scene)  # the worker refuses that id for ever: what came back was written anew under the input's own
    assert scene.faults() == []
    assert (len(scene.outputs()), len(scene.letters())) == (30, 20)

    assert facts("discard", "--field", "amount", "--why", "test payments")["discarded"] == 10
    assert facts("discard", "--all", "--why", "again")["discarded"] == 0
    told = facts("stats")
    assert (told["letters"], told["open"], told["replayed"], told["discarded"]) == (20, 0, 10, 10)


def test_edited_copies_come_back_and_the_other_letters_stay(scene: Scene, facts: Facts) -> None:
    scene.send_payments(payments(5))
    scene.send([(b"C0", scene.encode(payment(0))[:-1]), (b"C9", scene.encode(payment(7)))])
    scene.send_payments(payments(3, first=10, currency="USD"))
    let_run(scene)
    copies = scene.folder / "copies.jsonl"
    assert facts("fix", "--out", copies)["chosen"] == 5
    lines = [json.loads(line) for line in copies.read_text().splitlines()]
    mended = {
        "truncated": lambda copy: copy | {"value": lines[2]["value"] | {"currency": "EUR", "customer_id": "C0"}},
        "key_mismatch": lambda copy: copy | {"key": "C0"},
        "currency_one_of": lambda copy: copy,
    }
    edited = [mended[line["refused"].partition(":")[0]](line) for line in lines[:3]]
    copies.write_text("".join(json.dumps(copy) + "\n" for copy in edited))
    done = facts("replay", "--edited", copies)
    assert (done["chosen"], done["replayed"]) == (3, 2)
    assert done["would_not"][0]["now"] == "currency_one_of"
    let_run(scene)
    assert scene.faults() == []
    assert (len(scene.outputs()), len(scene.letters())) == (7, 5)


def test_what_makes_no_sense_is_one_line_and_nothing_is_sent(scene: Scene, dlq: Dlq, facts: Facts) -> None:
    scene.send_payments([*payments(3), *payments(300, first=3, currency="USD")])
    let_run(scene)
    fixes = written(
        scene.folder,
        "fixes.py",
        "def throws(events):\n    if len(events['event_time']) < 200:\n        raise RuntimeError('no')\n"
        "    return {'currency': ['EUR'] * len(events['event_time'])}\n"
        "def moves(events):\n    n = len(events['event_time'])\n    return {'currency': ['EUR'] * n, 'customer_id': ['C1'] * n}\n"
        "def short(events):\n    return {'currency': ['EUR']}\n",
    )
    for arguments, code, words in (
        (("replay", "--with", f"{fixes}:throws"), 10, "fixes.py:throws: RuntimeError: no; nothing was sent"),
        (("replay", "--with", f"{fixes}:short"), 10, "column 'currency' has 1 rows, wanted 200"),
        (("replay", "--with", f"{fixes}:thrws"), 10, "did you mean 'throws'?"),
        (("replay", "--with", "nowhere.py:f"), 10, "no function at 'nowhere.py:f'"),
        (("replay", "--edited", fixes), 11, "fixes.py:1: no copy of a letter"),
        (("replay", "--at", "here"), 13, "'here' is no place of a letter"),
        (("ls", "--since", "soon"), 13, "'soon' is no time"),
        (("discard", "--why", "all of them"), 13, "say which letters to discard"),
        (("discard", "--all"), 13, "give it with --why"),
    ):
        done = dlq(*arguments)
        assert done.code == code, done.err
        assert words in done.err and len(done.err.splitlines()) == 1, done.err
    moved = facts("replay", "--with", f"{fixes}:moves")
    assert moved["replayed"] == len(returned(scene)) == len([n for n in range(3, 303) if n % 7 == 1])
    assert moved["would_not"][0]["now"] == "key_mismatch"
    client = scene.broker.admin  # held until the answer is there
    client.delete_topics([scene.bound.input.name])[scene.bound.input.name].result()
    gone = dlq("replay")
    assert gone.code == 14
    assert f"no topic {scene.name} on the broker" in gone.err


def test_what_the_windows_hold_already_is_scored_and_not_remembered_again(scene: Scene, facts: Facts) -> None:
    output = scene.bound.output.name
    large = payment(1, customer_id="C0", terminal_id="T0", payment_id="P" * 8_000)
    worker = scene.worker()
    scene.send_payments([payment(0, customer_id="C0", terminal_id="T0")])
    scene.drained(worker)
    alter_topic(scene.broker, output, max_message_bytes="5000")  # under the running worker, which looked at it when it started
    scene.send_payments([large, payment(2, customer_id="C0", terminal_id="T0")])
    scene.drained(worker)
    assert worker.stop() == 0
    (letter,) = scene.letters()
    assert dict(letter.headers)["millrace.counted"] == b"true"

    alter_topic(scene.broker, output, max_message_bytes="1048588")
    assert facts("replay")["replayed"] == 1
    let_run(scene)
    with scene.redis() as client:  # and so it is when the log is read again
        client.delete(scene.fence_key(0), *scene.blocks())
    scene.send_payments([payment(3, customer_id="C0", terminal_id="T0")])
    let_run(scene)
    scored: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO((each.value or b"")[5:]), scene.judge.output, None) for each in scene.outputs()
    ]
    found = [(each["event_id"][:7], each["features"]["customer_count_1d"], each["timing"]) for each in scored]
    assert found == [("P000000", 1, "on_time"), ("P000002", 3, "on_time"), ("PPPPPPP", 2, "late"), ("P000003", 4, "on_time")]


def test_of_two_runs_at_a_time_the_later_one_sends_and_the_earlier_one_ends(scene: Scene) -> None:
    scene.send_payments([*payments(3), *payments(30, first=3, currency="USD")])
    let_run(scene)
    function = f"{written(scene.folder, 'fixes.py', EUROS)}:euros"
    earlier, later = (Desk(Inlet.of(scene.bound, labels=False), scene.settings, Wanted(Choice(), function)) for _ in range(2))
    with earlier.sending("replayed") as first:
        with later.sending("replayed") as second:
            assert second.every(later.letters(), later.judge, 30) == 30
        with pytest.raises(KafkaDown, match=r"fenced|Fatal error"):
            first.every(earlier.letters(), earlier.judge, 30)
    wait_for("the returns to be seen", lambda: len(returned(scene)) >= 30)
    assert set(first_places(returned(scene)).values()) == {1}
    let_run(scene)
    assert scene.faults() == []


def test_a_value_that_its_letter_had_no_room_for_is_read_from_the_input(scene: Scene, facts: Facts) -> None:
    alter_topic(scene.broker, scene.bound.input.dead_letters, max_message_bytes="5000")
    large = payment(0, payment_id="P" * 8_000, currency="USD")
    scene.send([(b"C0", scene.encode(large))], headers=[("trace", b"7")])
    let_run(scene)
    (letter,) = scene.letters()
    assert letter.value is None
    assert facts("replay", "--dry-run")["would_not"][0]["now"] == "currency_one_of"  # so its bytes were there to be judged
    assert facts("replay", "--with", f"{written(scene.folder, 'fixes.py', EUROS)}:euros")["replayed"] == 1
    let_run(scene)
    assert [fault for fault in scene.faults() if "the letter's key or value is not the record's" not in fault] == []
    (back,) = returned(scene)
    assert (back.value, dict(back.headers)["trace"]) == (scene.encode(large | {"currency": "EUR"}), b"7")
