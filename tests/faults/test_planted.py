"""The checker finds every mistake that could be made in the commit protocol, planted one at a time; and nothing where there is none.

Each scene hurts a worker at the one moment at which its mistake shows. The sound worker goes through the same, and holds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.stand import Stand
from tests.live.scene import payments, wait_for

RECORDS = 1_000
StandOf = Callable[..., Stand]


def begun(stand: Stand, count: int = RECORDS) -> Stand:
    stand.scene.send_payments(payments(count))
    return stand


@pytest.mark.parametrize(("bug", "found"), [("swap_the_commit_and_the_write", {"state_ahead"})])
def test_state_written_before_its_transaction_is_ahead_of_the_log(stand_of: StandOf, bug: str, found: set[str]) -> None:
    stand = begun(stand_of())
    stand.ends_at(stand.worker("a", bug, "offsets_sent:4"), -signal.SIGKILL)
    assert stand.kinds(at_rest=False) == found


@pytest.mark.parametrize(("bug", "found"), [("commit_offsets_early", {"lost"})])
def test_offsets_committed_before_their_outputs_lose_them(stand_of: StandOf, bug: str, found: set[str]) -> None:
    stand = begun(stand_of())
    stand.ends_at(stand.worker("a", bug, "before_commit:4"), -signal.SIGKILL)
    assert stand.kinds(at_rest=False) == found


@pytest.mark.parametrize(("bug", "found"), [("freeze_late", {"wrong"})])
def test_blocks_packed_when_they_are_sent_hold_rows_of_later_batches(stand_of: StandOf, bug: str, found: set[str]) -> None:
    stand = begun(stand_of())
    for times in (4, 6):
        stand.ends_at(stand.worker("a", bug, f"after_write:{times}"), -signal.SIGKILL)
    stand.worker("a", bug)
    stand.drained()
    assert stand.kinds() == found


@pytest.mark.parametrize(("bug", "found"), [("drop_the_fence", {"wrong"}), ("", set())])
def test_a_zombie_that_writes_after_its_successor_spoils_the_state(stand_of: StandOf, bug: str, found: set[str]) -> None:
    """It sleeps between its transaction and its write."""
    stand = begun(stand_of())
    zombie = stand.worker("a", bug, "after_commit:4:stop")
    zombie.stops()
    # Of a key that is in its batch, its write may put the whole block back, to be counted on from there as if nothing had been.
    stand.scene.send_payments(payments(20, first=RECORDS, customer_id="Z"))
    successor = stand.worker("b", bug)
    stand.drained()
    end = stand.scene.committed()[0] or 0
    zombie.signal(signal.SIGCONT)
    if bug:
        stand.falls_back("the zombie's write", end)
    else:
        wait_for("the zombie to find out", lambda: "lost at=" in zombie.log or "starting_over" in zombie.log)
        assert stand.scene.positions()[0] == end
    zombie.kill()
    successor.kill()
    stand.scene.send_payments(payments(200, first=RECORDS + 20) + payments(5, first=RECORDS + 220, customer_id="Z"))
    stand.worker("c", bug)
    stand.drained()
    assert stand.kinds() == found


@pytest.mark.parametrize(("bug", "found"), [("reconnect_without_a_claim", {"wrong"}), ("", set())])
def test_a_new_connection_that_is_not_a_claim_goes_on_over_what_the_store_has_lost(stand_of: StandOf, bug: str, found: set[str]) -> None:
    """The store comes back as it was a while ago, as after a crash, and every connection to it is a new one."""
    stand = begun(stand_of(), 480)
    stand.scene.send_payments(payments(20, first=480, customer_id="Y"))
    first = stand.worker("a", bug)
    stand.drained()
    wait_for("the state to follow", lambda: stand.scene.positions() == stand.scene.committed())
    with stand.scene.redis() as client:
        before = {key: client.get(key) for key in stand.scene.blocks()}
        position = client.hget(stand.scene.fence_key(0), "o")
        stand.scene.send_payments(payments(300, first=500, customer_id="X"))
        stand.drained()
        wait_for("the state to follow", lambda: stand.scene.positions() == stand.scene.committed())
        client.delete(*stand.scene.blocks())
        client.mset(before)
        client.hset(stand.scene.fence_key(0), "o", position)
        ours = [each["id"] for each in client.client_list() if str(each["name"]).startswith(stand.scene.stage.namespace)]
        for each in ours:
            client.client_kill_filter(_id=each)
    for number in (800, 900):
        stand.scene.send_payments(payments(100, first=number, customer_id="Y"))
        stand.drained()
    wait_for("the state to follow", lambda: stand.scene.positions() == stand.scene.committed())
    first.kill()
    stand.worker("b", bug)
    stand.scene.send_payments(payments(50, first=1_000, customer_id="X"))
    stand.drained()
    assert stand.kinds() == found


@pytest.mark.parametrize(("bug", "found"), [("read_offsets_without_waiting", {"duplicated"}), ("", set())])
def test_offsets_read_while_a_transaction_is_open_are_scored_twice(stand_of: StandOf, bug: str, found: set[str]) -> None:
    stand = begun(stand_of())
    zombie = stand.worker("a", bug, "offsets_sent:4:stop", KAFKA__TRANSACTION_TIMEOUT_MS="60000")
    zombie.stops()
    stand.worker("b", bug, KAFKA__TRANSACTION_TIMEOUT_MS="60000")
    wait_for("the successor to go on", lambda: stand.hastily_committed() >= RECORDS)
    zombie.signal(signal.SIGCONT)
    stand.drained()
    wait_for("the zombie to have tried", lambda: any(words in zombie.log for words in ("lost at=", "starting_over")))
    assert stand.kinds() & {"duplicated", "lost", "wrong"} == found


@pytest.mark.parametrize(("bug", "found"), [("read_blocks_without_the_fence", {"wrong"}), ("", set())])
def test_blocks_read_without_a_look_at_the_fence_may_be_of_a_store_that_was_emptied(stand_of: StandOf, bug: str, found: set[str]) -> None:
    stand = begun(stand_of())
    first = stand.worker("a")
    stand.drained()
    first.signal(signal.SIGTERM)
    stand.ends_at(first, 0)
    second = stand.worker("a", bug)  # it remembers nothing yet
    wait_for("the takeover", lambda: "taken_over at=" in second.log)
    with stand.scene.redis() as client:
        client.delete(stand.scene.fence_key(0), *stand.scene.blocks())
    stand.scene.send_payments(payments(200, first=RECORDS))
    stand.drained()
    assert stand.kinds() == found


@pytest.mark.parametrize(("bug", "found"), [("read_the_member_at_commit", {"duplicated"}), ("", set())])
def test_a_batch_committed_as_whoever_the_worker_is_by_then_repeats_what_another_has_scored(
    stand_of: StandOf, tmp_path: Path, bug: str, found: set[str]
) -> None:
    """It waits before its commit, is taken for dead meanwhile, and is a member again by the time it goes on."""
    stall = tmp_path / "stall"
    stall.touch()
    stand = begun(stand_of())
    slow = stand.worker("a", bug, stall=str(stall))
    wait_for("a batch", lambda: "waiting before a commit" in slow.log)
    slow.signal(signal.SIGSTOP)
    stand.worker("b", "end_nothing" if bug else "")
    stand.drained()
    slow.signal(signal.SIGCONT)
    wait_for("it to know", lambda: "lost at=" in slow.log)
    wait_for("both in the group", lambda: stand.members() == 2)
    stall.unlink()
    if bug:
        wait_for("its commit", lambda: (stand.scene.committed()[0] or 0) < RECORDS)
    else:
        slow.signal(signal.SIGTERM)
        stand.ends_at(slow, 0)
    assert stand.kinds(at_rest=not bug) & {"duplicated", "lost", "wrong"} == found
