"""Snapshots and rebuilds of two stages with labels: of a state that a log of hops made, events and labels in one order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.columns import PackedBytes
from streams.state.rebuild import rebuild
from streams.state.snapshot import snapshot
from tests.live.scene import wait_for
from tests.live.stage_scene import StageScene
from tests.live.test_stages import frauds, payments
from tests.services import Broker
from transforms.archive import Keys
from transforms.redis_archive import RedisDump


@pytest.fixture
def scene(broker: Broker, redis_url: str, tmp_path: Path) -> Iterator[StageScene]:
    made = StageScene(tmp_path / "scene", broker, redis_url, partitions=2)
    yield made
    made.close()


def at_rest(scene: StageScene) -> bool:
    """Whether the states have followed what was committed."""
    committed, positions = scene.committed_by_stage(), scene.positions_by_stage()
    return all(positions[name] == committed[name] for name in ("by-customer", "by-terminal"))


def wipe(scene: StageScene) -> None:
    with scene.redis() as client:
        for stage in scene.stages.values():
            keys = list(client.scan_iter(f"{{{stage.namespace}.*", 10_000))
            assert keys or not stage.entities
            if keys:
                client.delete(*keys)


def test_both_stages_come_back_with_their_labels(scene: StageScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = scene.worker()
    early = payments(1_000)
    scene.send_payments(early)
    scene.drained_stages(worker)
    scene.send_labels(frauds(early, every=3))
    scene.drained_stages(worker)
    wait_for("the states to follow", lambda: at_rest(scene))

    moved = False

    def blocks(dump: RedisDump, entity: str, keys: Keys, read: Callable[..., PackedBytes] = RedisDump.blocks) -> PackedBytes:
        nonlocal moved
        if entity == "terminal" and not moved:  # between positions and blocks come events, labels and corrected labels
            moved = True
            scene.send_payments(payments(600, first=1_000))
            scene.drained_stages(worker)
            scene.send_labels([*frauds(payments(600, first=1_000)), *frauds(early, fraud=False, every=6)])
            scene.drained_stages(worker)
            wait_for("the states to follow", lambda: at_rest(scene))
        return read(dump, entity, keys)

    with monkeypatch.context() as patched:
        patched.setattr(RedisDump, "blocks", blocks)
        done = snapshot(scene.bound, scene.settings, tmp_path / "files")
    files = done["files"]
    assert isinstance(files, list)
    assert len(files) == 4
    assert any(isinstance(each, dict) and each["complete_at"] != each["position"] for each in files)

    scene.send_payments(payments(300, first=1_600))
    scene.drained_stages(worker)
    assert worker.stop() == 0, worker.log
    for folder, first in ((tmp_path / "files", 1_900), (None, 2_200)):
        wipe(scene)
        rebuild(scene.bound, scene.settings, folder)
        assert at_rest(scene)
        worker = scene.worker()
        scene.send_payments(payments(300, first=first))
        scene.drained_stages(worker)
        scene.send_labels(frauds(payments(300, first=first)))
        scene.drained_stages(worker)
        assert worker.stop() == 0, worker.log
        assert "replay_from" in worker.log
        assert scene.faults_of_stages() == []
    outcomes = scene.judge_of_stages.outcomes(scene.evidence_of_stages())
    assert outcomes["matched"] > 300, outcomes
