"""State outside the worker: snapshots beside it, rebuilds where the log has forgotten, a new definition built while the old one runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.columns import PackedBytes
from schemas.errors import SettingsError, StateError
from streams.kafka import TopicPartition
from streams.state.namespaces import drop_state, list_state
from streams.state.rebuild import rebuild
from streams.state.snapshot import snapshot
from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, ROOT, START_MS, Scene, at_ms, payment, wait_for
from tests.oracles.payments import Record
from transforms.archive import Keys
from transforms.redis_archive import RedisDump

HOUR_MS = 3_600_000
LONGER = {"Window(days(30)))": "Window(days(30)), Window(days(60)))"}
MODELS = "*customer.feature_names, *terminal.feature_names"  # what the model is given, whatever other windows there are
SHORTER = {"Window(days(30)))": "Window(days(20)))"}
ONE_MORE = {"windows=(Window(days(1)), Window(days(7)), Window(days(30)))": "windows=tuple(Window(days(n)) for n in (1, 3, 7, 30))"}


def hourly(count: int, first: int = 0, customers: int = 7) -> Iterator[dict[str, Any]]:
    """A payment an hour: some hundred reach over every window's edges."""
    for n in range(first, first + count):
        yield payment(n, event_time=at_ms(START_MS + n * HOUR_MS), customer_id=f"C{n * n % 97 % customers}")


def run_to_the_end(scene: Scene, count: int, first: int = 0) -> None:
    """Score some payments, and stop."""
    scene.send_payments(hourly(count, first))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0, worker.log


def forget(scene: Scene, before: Mapping[int, int]) -> list[Record]:
    """Let the broker delete the input's records below these offsets; all records, as they were."""
    kept = scene.read(scene.bound.input.name)
    wanted = [TopicPartition(scene.bound.input.name, partition, offset) for partition, offset in before.items()]
    client = scene.broker.admin  # held until the answer is there
    for done in client.delete_records(wanted).values():
        done.result(20)
    return kept


def wipe(scene: Scene) -> None:
    """Let Redis lose this definition's state."""
    with scene.redis() as client:
        keys = list(client.scan_iter(f"{{{scene.stage.namespace}.*", 10_000))
        assert keys
        client.delete(*keys)


def faults(scene: Scene, gone: list[Record]) -> list[str]:
    """What is wrong, given the input as it was before a part of it was deleted."""
    there = scene.read(scene.bound.input.name)
    seen = {(each.partition, each.offset) for each in there}
    inputs = [*(each for each in gone if (each.partition, each.offset) not in seen), *there]
    evidence = replace(scene.evidence(), inputs=sorted(inputs, key=lambda each: (each.partition, each.offset)))
    return [str(fault) for fault in scene.judge.faults(evidence)[:10]]


def millrace(scene: Scene, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command a user runs."""
    variables = {"MILLRACE_KAFKA__BOOTSTRAP_SERVERS": scene.broker.bootstrap_servers, "MILLRACE_REDIS__URL": scene.redis_url}
    return subprocess.run(
        [sys.executable, "-m", "millrace", "state", *arguments],
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=scene.folder,
    )


def test_a_state_that_redis_and_the_log_have_lost_comes_back_from_a_snapshot(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    scene.send_payments(hourly(900))
    worker = scene.worker()
    scene.drained(worker)
    taken = millrace(scene, "snapshot", str(scene.file), "--to", str(folder), "--json")  # the worker goes on
    assert taken.returncode == 0, taken.stderr
    (file,) = json.loads(taken.stdout)["files"]
    assert (file["position"], file["keys"]) == (scene.committed()[0], {"customer": 7, "terminal": 3})
    scene.send_payments(hourly(300, 900))
    scene.drained(worker)
    assert worker.stop() == 0
    gone = forget(scene, {0: file["position"] - 10})
    wipe(scene)

    refused = scene.worker()
    assert refused.ends() == 15
    assert "state rebuild PIPELINE --from FOLDER" in refused.log
    assert "the log begins at" in refused.log
    with pytest.raises(StateError, match="--accept-short-log"):
        rebuild(scene.bound, scene.settings, None)

    built = millrace(scene, "rebuild", str(scene.file), "--from", str(folder), "--json")
    assert built.returncode == 0, built.stderr
    (partition,) = json.loads(built.stdout)["partitions"]
    assert (partition["keys_loaded"], partition["replayed_from"]) == (10, file["position"])
    assert scene.positions() == scene.committed()
    run_to_the_end(scene, 300, 1_200)
    assert faults(scene, gone) == []


def test_a_worker_makes_do_with_a_short_log_when_told_to(scene: Scene) -> None:
    run_to_the_end(scene, 300)
    forget(scene, {0: 100})
    wipe(scene)
    worker = scene.worker("a", "--on-conflict", "rebuild")
    worker.says("log_is_short")
    wait_for("the state to be rebuilt", lambda: scene.positions() == scene.committed())
    assert worker.stop() == 0
    wipe(scene)
    with pytest.raises(StateError, match="the log begins at 100"):
        rebuild(scene.bound, scene.settings, None)
    assert rebuild(scene.bound, scene.settings, None, accept_short_log=True)["partitions"]
    assert scene.positions() == scene.committed()


def test_a_log_that_has_its_beginning_gives_a_lost_state_back(set_up: SetUp) -> None:
    scene = set_up(partitions=3, changes=CUSTOMERS_ONLY)
    run_to_the_end(scene, 600)
    before = {partition: scene.blocks(partition) for partition in range(3)}
    wipe(scene)
    done = rebuild(scene.bound, scene.settings, None)
    assert [each["replayed_from"] for each in partitions_of(done)] == [0, 0, 0]
    assert {partition: scene.blocks(partition) for partition in range(3)} == before
    worker = scene.worker()
    worker.says("taken_over", 3)
    ends = scene.ends()
    assert all(f"at={scene.bound.input.name}[{p}] replay_from={ends[p]} live_from={ends[p]}" in worker.log for p in range(3))
    scene.send_payments(hourly(300, 600))
    scene.drained(worker)
    assert worker.stop() == 0
    assert scene.faults() == []


def partitions_of(done: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = done["partitions"]
    return found


def test_a_snapshot_taken_while_a_worker_writes_gives_the_state_with_the_log_after_it(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.send_payments(hourly(600))
    worker = scene.worker()
    scene.drained(worker)

    def blocks(dump: RedisDump, entity: str, keys: Keys, read: Callable[..., PackedBytes] = RedisDump.blocks) -> PackedBytes:
        if scene.positions()[0] == dump.position:  # between position and blocks, the worker writes
            scene.send_payments(hourly(400, 600))
            scene.drained(worker)
            wait_for("the state to follow", lambda: scene.positions() == scene.committed())
        return read(dump, entity, keys)

    with monkeypatch.context() as patched:
        patched.setattr(RedisDump, "blocks", blocks)
        (file,) = files_of(snapshot(scene.bound, scene.settings, tmp_path))
    assert file["position"] < file["complete_at"] == scene.committed()[0]
    assert worker.stop() == 0
    gone = forget(scene, {0: file["position"]})
    wipe(scene)
    rebuild(scene.bound, scene.settings, tmp_path)
    run_to_the_end(scene, 300, 1_000)
    assert faults(scene, gone) == []


def files_of(done: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = done["files"]
    return found


def test_snapshots_of_one_state_are_equal_byte_for_byte(scene: Scene, tmp_path: Path) -> None:
    run_to_the_end(scene, 200)
    for name in ("a", "b"):
        snapshot(scene.bound, scene.settings, tmp_path / name)
    (name,) = (each.name for each in (tmp_path / "a").iterdir())
    assert name == f"{scene.stage.name}-0.parquet"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_rebuild_refuses_what_does_not_fit_and_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    run_to_the_end(scene, 300)
    snapshot(scene.bound, scene.settings, tmp_path / "good")
    before, position = scene.blocks(), scene.positions()
    (whole,) = (tmp_path / "good").iterdir()

    def refused(folder: Path, words: str) -> None:
        with pytest.raises(StateError, match=words):
            rebuild(scene.bound, scene.settings, folder)
        assert (scene.blocks(), scene.positions()) == (before, position)

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no snapshot in")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / whole.name).write_bytes(whole.read_bytes()[:-100])
    refused(tmp_path / "cut", "no whole snapshot")
    (tmp_path / "bad").mkdir()
    content = bytearray(whole.read_bytes())
    content[len(content) // 4] ^= 1
    (tmp_path / "bad" / whole.name).write_bytes(content)
    refused(tmp_path / "bad", "not what was written|no whole snapshot")
    run_to_the_end(scene, 100, 300)
    before, position = scene.blocks(), scene.positions()
    scene.commit_offset(100)
    refused(tmp_path / "good", "ahead of the committed offset 100")
    scene.commit_offset(400)
    forget(scene, {0: 350})
    refused(tmp_path / "good", "the records between are gone")
    scene.write_pipeline(LONGER)
    with pytest.raises(StateError, match=r"holds another state .*customer"):
        rebuild(scene.bound, scene.settings, tmp_path / "good")


def test_a_rebuild_refuses_while_a_worker_holds_the_state(scene: Scene) -> None:
    scene.send_payments(hourly(100))
    worker = scene.worker()
    scene.drained(worker)
    with pytest.raises(StateError, match="a worker is at work on"):
        rebuild(scene.bound, scene.settings, None)
    with pytest.raises(StateError, match="a worker is at work on"):
        drop_state(scene.bound, scene.settings, scene.stage.namespace, even_current=True)
    worker.kill()  # its claim is left behind, and holds nothing up
    wait_for("its connection gone", lambda: namespaces(scene)[scene.stage.namespace]["held"] == [])
    rebuild(scene.bound, scene.settings, None)
    assert scene.positions() == scene.committed()


def namespaces(scene: Scene) -> dict[str, Any]:
    found: Any = list_state(scene.bound, scene.settings)["namespaces"]
    return {each["namespace"]: each for each in found}


def test_a_longer_window_is_built_beside_the_old_worker_and_takes_over_at_its_offset(scene: Scene) -> None:
    scene.send_payments(hourly(500))
    old = scene.worker()
    scene.drained(old)
    old_name = scene.stage.namespace
    scene.write_pipeline({**LONGER, MODELS: "*(n for n in customer.feature_names if '_60d' not in n), *terminal.feature_names"})
    new_name = scene.stage.namespace
    assert new_name != old_name
    rebuild(scene.bound, scene.settings, None)
    assert scene.positions() == {0: 500}
    listed = namespaces(scene)
    assert [(listed[name]["current"], listed[name]["positions"], listed[name]["held"]) for name in (old_name, new_name)] == [
        (False, {"0": 500}, ["0"]),
        (True, {"0": 500}, []),
    ]
    assert listed[old_name]["keys"] == listed[new_name]["keys"] == 10
    with pytest.raises(StateError, match="a worker is at work on"):
        drop_state(scene.bound, scene.settings, old_name)

    scene.send_payments(hourly(100, 500))  # scored by the old one
    scene.drained(old)
    at = scene.committed()[0]
    assert old.stop() == 0
    new = scene.worker()
    new.says(f"replay_from=500 live_from={at}")
    scene.send_payments(hourly(100, 600))
    scene.drained(new)
    assert new.stop() == 0

    dropped = drop_state(scene.bound, scene.settings, old_name)
    assert (dropped["keys"], dropped["dropped"]) == (10, old_name)
    with scene.redis() as client:
        assert not list(client.scan_iter(f"{{{old_name}.*", 10_000))
    assert namespaces(scene).keys() == {new_name}
    with pytest.raises(StateError, match="--even-current"):
        drop_state(scene.bound, scene.settings, new_name)
    with pytest.raises(SettingsError, match="no namespace of pipeline"):
        drop_state(scene.bound, scene.settings, "another.score.00000000")
    with pytest.raises(SettingsError, match="there is no namespace"):
        drop_state(scene.bound, scene.settings, old_name)
    assert drop_state(scene.bound, scene.settings, new_name, even_current=True)["keys"] == 10


def test_one_more_window_within_what_is_kept_goes_on_with_the_state_there_is(scene: Scene) -> None:
    run_to_the_end(scene, 400)
    namespace = scene.stage.namespace
    forget_nothing = scene.committed()[0]
    scene.write_pipeline({**ONE_MORE, MODELS: "*(n for n in customer.feature_names if '_3d' not in n), *terminal.feature_names"})
    assert scene.stage.namespace == namespace
    scene.send_payments(hourly(300, 400))
    worker = scene.worker()
    worker.says(f"replay_from={forget_nothing} live_from={forget_nothing}")
    scene.drained(worker)
    assert worker.stop() == 0
    assert scene.faults() == []


def test_shorter_windows_begin_with_a_snapshot_of_the_longer_ones(scene: Scene, tmp_path: Path) -> None:
    run_to_the_end(scene, 800)
    snapshot(scene.bound, scene.settings, tmp_path)
    old_name = scene.stage.namespace
    scene.write_pipeline({**SHORTER, "entities=(customer, terminal)": "entities=(customer,)", ", *terminal.feature_names": ""})
    assert scene.stage.namespace != old_name
    done = rebuild(scene.bound, scene.settings, tmp_path)
    assert [(each["keys_loaded"], each["replayed_from"]) for each in partitions_of(done)] == [(7, 800)]
    assert len(scene.blocks()) == 7
    found = scene.positions()
    wipe(scene)
    rebuild(scene.bound, scene.settings, None)
    assert scene.positions() == found
