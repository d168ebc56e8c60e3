"""What the fault harness has found in the engine: a test for each, which failed before it was mended."""

from __future__ import annotations

from tests.live.conftest import SetUp
from tests.live.conftest import set_up as set_up
from tests.live.scene import payments


def test_a_static_member_whose_old_self_the_group_still_knows_ends_and_says_so(set_up: SetUp) -> None:
    """The broker's own group protocol frees a name only after the session; the client gives up for good, and the worker stood still."""
    scene = set_up(environment={"KAFKA__STATIC_MEMBER": "true", "KAFKA__GROUP_PROTOCOL": "consumer"})
    scene.send_payments(payments(50))
    killed = scene.worker()
    scene.drained(killed)
    killed.kill()
    again = scene.worker()
    assert again.ends() == 75, again.log
    assert "the client has given up" in again.log
