"""A worker whose plan is not the one that its state was made by does not start, and says the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from streams.planning.create_topics import create
from streams.planning.topics import existing
from tests.live.model import write_model
from tests.live.scene import payments, wait_for
from tests.live.stage_scene import TWO_STAGES, StageScene
from tests.services import Broker

PLAN_AGAIN = 15


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    """Two stages over two partitions that have scored forty payments."""
    scene = StageScene(tmp_path / "scene", broker, redis_url, partitions=2)
    scene.send_payments(payments(40))
    worker = scene.worker()
    scene.drained_stages(worker)
    assert worker.stop() == 0
    yield scene
    scene.close()


def test_changed_windows_a_second_owner_and_a_topic_that_is_gone_are_refused_with_the_way_out(scene: StageScene) -> None:
    scored = len(scene.outputs())

    # The same pipeline once more, as another group: its events would be in the internal topic twice.
    second = scene.worker("b", KAFKA__GROUP="blue")
    assert second.ends() == PLAN_AGAIN
    internal = f"{scene.name}.by-terminal"
    assert f"topic {internal}: group {scene.name}.by-terminal reads it as well" in second.log
    assert "Traceback" not in second.log

    # Other windows: another state, which a rebuild makes.
    declared = scene.changes
    define(scene, {**declared, TWO_WINDOWS: declared[TWO_WINDOWS].replace("(1, 12, 48)", "(1, 12, 96)")})
    changed = scene.worker("c")
    assert changed.ends() == PLAN_AGAIN
    assert "the definition of terminal changed; `millrace run PIPELINE --on-conflict rebuild` builds it anew" in changed.log
    assert len(scene.outputs()) == scored
    rebuilding = scene.worker("c", "--on-conflict", "rebuild")
    scene.send_payments(payments(10, first=40))
    scene.drained_stages(rebuilding)
    assert rebuilding.stop() == 0, rebuilding.log
    assert len(scene.outputs()) == scored + 10

    # The internal topic deleted, and then made again: the state can't be of a log that is gone.
    client = scene.broker.admin
    client.delete_topics([internal], operation_timeout=10)[internal].result()
    wait_for("the topic to be gone", lambda: not existing(client, [internal]))
    missing = scene.worker("c")
    assert missing.ends() == 14
    assert f"no topic {internal} on the broker" in missing.log
    create(scene.bound, scene.settings)
    made_again = scene.worker("c")
    assert made_again.ends() == PLAN_AGAIN
    assert "but the group has no committed offset" in made_again.log


def test_records_that_another_definition_has_sent_stop_the_new_one_until_the_old_one_has_drained_them(scene: StageScene) -> None:
    scored = len(scene.outputs())
    first = scene.worker("a", "--stages", "by-customer,labels")
    scene.send_payments(payments(30, first=40))
    scene.drained(first)
    assert first.stop() == 0, first.log

    old = dict(scene.changes)
    other = {**old, 'Derived("night", night)': 'Derived("night", night, version=2)'}
    define(scene, other)
    new = scene.worker("a")
    assert new.ends() == PLAN_AGAIN
    assert f"was written by another definition of pipeline '{scene.name}'" in new.log
    assert len(scene.outputs()) == scored

    define(scene, old)
    draining = scene.worker("a", "--stages", "by-terminal")
    scene.drained_stages(draining)
    assert draining.stop() == 0, draining.log
    define(scene, other)
    new = scene.worker("a")
    scene.send_payments(payments(10, first=70))
    scene.drained_stages(new)
    assert new.stop() == 0, new.log
    assert len(scene.outputs()) == scored + 40


def define(scene: StageScene, changes: Mapping[str, str]) -> None:
    """Another definition, with a model for it."""
    scene.write_pipeline(changes)
    write_model(scene.bound, scene.bound.model_path)
    create(scene.bound, scene.settings)


TWO_WINDOWS = next(old for old in TWO_STAGES if "windows=" in old)
