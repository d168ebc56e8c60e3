"""A worker that is stuck says so on /livez, however well its threads are; and one whose agent dies in silence is no worker any more."""

from __future__ import annotations

from pathlib import Path

from tests.live.conftest import SetUp
from tests.live.scene import payment, payments, wait_for
from tests.live.stall import STALLING, breaking

# A cancelled task is no failure to Faust: its agent would be gone, all threads would be there, and every batch would wait for ever.
_CANCELLED = breaking("from asyncio import CancelledError; raise CancelledError")


def test_a_step_that_hangs_fails_livez_until_it_goes_on_and_an_agent_that_dies_ends_the_worker(set_up: SetUp, tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    ((line, stalling),) = STALLING.items()
    changes = {line: stalling.removesuffix(line) + _CANCELLED[line]}
    scene = set_up(changes=changes, environment={"TEST_STALL": str(stall), "HEALTH__LIVEZ_STALLED_SECONDS": "1.5"})
    scene.send_payments(payments(50))
    worker = scene.worker()
    scene.drained(worker)
    wait_for("a /livez that is well", lambda: worker.page("/livez")[0] == 200)

    stall.touch()
    scene.send_payments(payments(50, first=50))
    wait_for("a failing /livez that names the partition", lambda: '"stalled_seconds": {"0": ' in worker.page("/livez")[1])
    assert worker.page("/livez")[0] == 503
    stall.unlink()
    scene.drained(worker)
    wait_for("a /livez that is well again", lambda: worker.page("/livez")[0] == 200)

    scene.send_payments([payment(100, amount=13.37)])
    assert worker.ends() != 0
    assert scene.committed() == {0: 100}
    assert [fault for fault in scene.faults() if "[0]@100" not in fault] == []
