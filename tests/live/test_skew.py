"""`millrace features skew`: what a real worker served, against its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.offline.skew import skew, skew_words
from streams.offline.topic_history import Edge
from tests.live.conftest import SetUp
from tests.live.scene import Scene, payment
from tests.streams.command_line import runner

EVENTS = 600


def served(set_up: SetUp) -> Scene:
    """A scene whose worker has scored payments of some customers, a few of them late, too late or refused."""
    scene = set_up()
    late = {50: 30, 120: 400, 121: 5, 300: 0}  # at whose place in the log an older payment comes
    numbers = [late.get(place, place) for place in range(EVENTS)]
    scene.send_payments(
        {**payment(number, amount=-1.0 if place % 97 == 0 else payment(number)["amount"]), "payment_id": f"P{place}"}
        for place, number in enumerate(numbers)
    )
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    return scene


def test_what_was_served_is_computed_again_to_the_bit_and_what_was_not_is_named(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scene = served(set_up)
    refused = len(range(0, EVENTS, 97))
    facts = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {}, skew_words(facts)
    assert facts["compared"] == facts["equal"] == EVENTS - refused

    # A span in the middle: what came before it fills the windows.
    part = skew(scene.bound, scene.settings, Edge(offset=400), Edge(offset=500))
    assert (part["compared"], part["equal"], part["reasons"]) == (100 - 1, 100 - 1, {})

    # A function that changed without its version.
    scene.write_pipeline({"% days(1) // hours(1) <= 6": "% days(1) // hours(1) <= 5"})
    facts = skew(scene.bound, scene.settings)
    assert set(facts["columns"] if isinstance(facts["columns"], dict) else ()) == {"night"}
    assert isinstance(facts["reasons"], dict)
    assert list(facts["reasons"]) == ["other values"]
    words = skew_words(facts)
    assert f"{scene.bound.input.name}[0]@3" in words
    assert "night: served 1.0, computed 0.0" in words

    run = runner(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    done = run("features", "skew", scene.file)
    assert (done.code, done.err) == (1, "")
    assert "not the same" in done.out

    # Other definitions; and a rule that would refuse now what was served.
    scene.write_pipeline({"lateness_ms=hours(1),\n)\n\n# A": "lateness_ms=hours(2),\n)\n\n# A", "0, 50_000),\n": "0, 100),\n"})
    facts = skew(scene.bound, scene.settings, None, Edge(offset=300))
    assert isinstance(facts["reasons"], dict)
    assert set(facts["reasons"]) == {"other features", "served, and would be refused"}


def test_an_event_that_was_not_served_is_named(set_up: SetUp) -> None:
    scene = set_up()
    scene.send_payments(payment(number) for number in range(20))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    scene.send_payments(payment(number) for number in range(20, 25))
    facts = skew(scene.bound, scene.settings)
    assert facts["reasons"] == {"not served yet": 5}
    assert facts["compared"] == facts["equal"] == 20
