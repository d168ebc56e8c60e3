"""State that was damaged in Redis: it is noticed, rebuilt from the log, and no wrong feature goes out.

What can't be noticed is a whole block that vanished while no worker held its key: Redis then answers as for a key that never was
(hence `noeviction` is required). What was written to such a block afterwards leaves a hole, which is.
"""

from __future__ import annotations

import random

from tests.live.conftest import SetUp
from tests.live.scene import Scene, payments
from transforms.block import HEADER_BYTES


def test_a_block_that_cannot_be_written_to_is_rebuilt_from_the_log(scene: Scene) -> None:
    scene.send_payments(payments(500))
    worker = scene.worker()
    scene.drained(worker)
    with scene.redis() as client:  # the commands on it fail inside the EXEC, which moves the position all the same
        for block in scene.blocks():
            client.delete(block)
            client.rpush(block, "not a block")
    for first in (500, 514):  # few enough for the room of their blocks: one that is written whole mends it
        scene.send_payments(payments(14, first=first))
        scene.drained(worker)  # and the answer is looked at before the next write
    worker.says("state_dropped")
    scene.send_payments(payments(100, first=528))
    scene.drained(worker)
    assert worker.stop() == 0
    assert scene.faults() == []
    assert scene.positions() == scene.committed()


def test_a_block_deleted_under_its_owner_leaves_a_hole_that_is_found(set_up: SetUp) -> None:
    scene = set_up(environment={"WORKER__MAX_KEYS": "2"})  # seven customers: their blocks come and go with each batch
    customers = [f"C{n}" for n in range(7)]
    scene.send_payments(payments(20, customer_id="C0", terminal_id="T0"))
    worker = scene.worker()
    scene.drained(worker)
    first, holes = 20, 0
    with scene.redis() as client:
        while not holes:  # where a block's room is used up, the next write is whole and mends it
            for block in scene.blocks():
                client.delete(block)
            # Its key is in memory, and the write goes to where the block's records ended.
            scene.send_payments(payments(1, first=first, customer_id="C0", terminal_id="T0"))
            scene.drained(worker)
            first += 1
            holes = sum(not any(client.getrange(block, 0, HEADER_BYTES - 1)) for block in scene.blocks())
    for turn in range(4):  # others push it out of memory, so that it has to be read again
        for customer in customers:
            scene.send_payments(payments(2, first=100 * turn + 30, customer_id=customer, terminal_id=f"T{customer}"))
        scene.drained(worker)
    for turn in range(4):  # a batch without it settles the last one that had it, and lets it go
        scene.send_payments(payments(2, first=500 + 10 * turn, customer_id=f"C{5 + turn % 2}", terminal_id=f"T{5 + turn % 2}"))
        scene.drained(worker)
    scene.send_payments(payments(5, first=600, customer_id="C0", terminal_id="T0"))
    scene.drained(worker)
    worker.says("state_dropped")
    assert worker.stop() == 0
    assert scene.faults() == []


def test_bits_that_flip_in_redis_are_rebuilt_from_the_log_and_no_score_is_made_of_them(scene: Scene) -> None:
    scene.send_payments(payments(300))
    worker = scene.worker()
    scene.drained(worker)
    assert worker.stop() == 0
    chosen = random.Random(5)
    with scene.redis() as client:
        for block in scene.blocks():
            bit = chosen.randrange(8 * HEADER_BYTES, 8 * int(client.strlen(block)))
            client.setbit(block, bit, 1 - int(client.getbit(block, bit)))
    scene.send_payments(payments(100, first=300))
    again = scene.worker()
    scene.drained(again)
    again.says("its seal is broken")
    again.says("state_dropped")
    assert again.stop() == 0
    assert scene.faults() == []
    assert scene.positions() == scene.committed()
