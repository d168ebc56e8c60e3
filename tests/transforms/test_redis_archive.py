"""What only Redis shows of whole shards: namespaces side by side, a drop that tells how far it is, and a cluster."""

from __future__ import annotations

import pytest

from schemas.errors import StoreDown
from tests.block_writes import blocks, whole
from tests.contracts.test_archive import block
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from transforms.fence import shard_key
from transforms.redis_archive import RedisArchive
from transforms.store import Writes

pytestmark = pytest.mark.broker


def begin(store: RedisArchive, shard: str = "0", keys: int = 3) -> None:
    store.claim(shard, {})
    store.write(shard, (whole("customer", {n: block(n) for n in range(keys)}),), 10)
    store.settle(shard)


def test_a_survey_tells_namespaces_apart_and_leaves_out_what_is_not_asked_for(server: RedisServer, namespace: str) -> None:
    names = [f"{namespace}.score.00000001", f"{namespace}.score.00000002", f"{namespace}2.score.00000001"]
    stores = [RedisArchive(server.url, name) for name in names]
    for count, store in enumerate(stores, 1):
        begin(store, keys=count)
    server.ask("SET", f"{{{namespace}.not ours", "x")
    seen: list[int] = []
    found = stores[0].survey(f"{namespace}.", seen.append)
    assert {name: [(each.shard, each.keys, each.position) for each in shards] for name, shards in found.items()} == {
        names[0]: [("0", 1, 10)],
        names[1]: [("0", 2, 10)],
    }
    assert sum(seen) == 6  # blocks and hashes of both, and the key that is not ours
    assert [each.keys for each in stores[2].shards()] == [3]
    for store in stores:
        store.close()


def test_letters_that_mean_something_in_a_pattern_stand_for_themselves(server: RedisServer, namespace: str) -> None:
    one, other = RedisArchive(server.url, f"{namespace}.[ab]*"), RedisArchive(server.url, f"{namespace}.axy")
    begin(one, keys=1)
    begin(other, keys=2)
    assert [each.keys for each in one.shards()] == [1]
    dump = one.dump("0")
    assert dump is not None
    assert len(dump.keys["customer"]) == 1
    for store in (one, other):
        store.close()


def test_a_drop_tells_how_many_blocks_are_gone(server: RedisServer, namespace: str) -> None:
    store = RedisArchive(server.url, namespace)
    begin(store, keys=25_000)
    told: list[int] = []
    store.free("0", told.append)
    assert sum(told) == 25_000
    assert len(told) > 1
    assert server.ask("KEYS", f"{{{namespace}.*") == []
    store.close()


def test_shards_on_all_nodes_of_a_cluster_are_listed_dumped_and_loaded(cluster: RedisCluster, namespace: str) -> None:
    store = RedisArchive(cluster.url, namespace)
    shards = [str(n) for n in range(6)]
    for shard in shards:
        begin(store, shard)
    assert len({id(cluster.node_of(shard_key(namespace, shard).decode())) for shard in shards}) > 1
    assert [(each.shard, each.keys, each.holder) for each in store.shards()] == [(shard, 3, True) for shard in shards]
    dump = store.dump("4")
    assert dump is not None
    store.claim("new", {})
    store.load("new", [Writes.whole("customer", dump.keys["customer"], dump.blocks("customer", dump.keys["customer"]))], dump.end())
    assert blocks(store, "new", "customer", 1, 2) == [block(1), block(2)]
    dump.close()
    store.close()


def test_a_dump_of_a_slot_on_its_way_to_another_node_is_none(cluster: RedisCluster, namespace: str) -> None:
    store = RedisArchive(cluster.url, namespace)
    begin(store, keys=40)
    dump = store.dump("0")
    assert dump is not None
    key = shard_key(namespace, "0").decode()
    target = next(node for node in cluster.nodes if node is not cluster.node_of(key))
    # Nothing of it has moved yet, but any block might have, unseen.
    with cluster.moving(key, target), pytest.raises(StoreDown, match="on its way"):
        dump.end()
    store.close()
