"""A worker whose state is in a Redis Cluster, while a partition's slot moves to another node."""

from __future__ import annotations

from tests.live.conftest import SetUp
from tests.live.scene import CUSTOMERS_ONLY, payment, wait_for
from tests.redis_cluster import RedisCluster

PARTITIONS = 4


def test_a_partition_whose_slot_moves_waits_and_goes_on_and_the_others_do_not_notice(set_up: SetUp, cluster: RedisCluster) -> None:
    scene = set_up(redis_url=cluster.url, partitions=PARTITIONS, changes=CUSTOMERS_ONLY)
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_000))
    worker = scene.worker()
    scene.drained(worker)
    moved = scene.fence_key(2)
    source = cluster.node_of(moved)
    target = next(node for node in cluster.nodes if node is not source)
    with cluster.moving(moved, target) as move:
        move(10)
        scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_000, 1_200))
        scene.drained(worker)
        # A batch's write is sent and not awaited: the next batch of the partition notices.
        scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_200, 1_500))
        worker.says("on its way")
        others = [p for p in range(PARTITIONS) if p != 2]
        wait_for("the other partitions' scores", lambda: all(scene.committed()[p] == scene.ends()[p] for p in others))
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(1_500, 2_000))
    scene.drained(worker)
    assert cluster.node_of(moved) is target
    assert worker.stop() == 0
    assert "state_dropped" not in worker.log
    assert scene.faults() == []
    assert scene.positions() == scene.committed()

    after = scene.worker()
    scene.send_payments(payment(n, customer_id=f"C{n % 97}") for n in range(2_000, 2_200))
    scene.drained(after)
    assert after.stop() == 0
    assert scene.faults() == []
