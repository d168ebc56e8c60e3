"""State in a real Redis Cluster: found on its node, through slots that move in mid-stream and nodes that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from schemas.errors import FenceLost, SettingsError, StoreDown
from tests.block_writes import blocks, part, whole
from tests.redis_cluster import Node, RedisCluster, running_cluster
from tests.redis_server import RedisServer
from transforms.fence import shard_key
from transforms.redis_cluster import Address, Master, masters_in, slot_of
from transforms.redis_store import RedisStore

pytestmark = pytest.mark.broker

KEYS = 40
Open = Callable[..., RedisStore]


@pytest.fixture
def open_store(cluster: RedisCluster, namespace: str) -> Iterator[Open]:
    opened: list[RedisStore] = []

    def open_one(url: str = cluster.url) -> RedisStore:
        opened.append(RedisStore(url, namespace, answer_timeout_seconds=2.0))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def fence(namespace: str, shard: str = "0") -> str:
    return shard_key(namespace, shard).decode()


def until_done(change: Callable[[], None], seconds: float = 10.0) -> int:
    """Repeat what the store may refuse for now; how often it did."""
    refused, end = 0, time.monotonic() + seconds
    while True:
        try:
            change()
            return refused
        except StoreDown:
            assert time.monotonic() < end, "it is refused for ever"
            refused += 1


def begin(store: RedisStore, shard: str = "0", position: int = 1) -> None:
    store.claim(shard, {})
    store.write(shard, (whole("customer", {n: b"%04d:00001" % n for n in range(KEYS)}),), position)
    store.settle(shard)


def other_than(cluster: RedisCluster, node: Node) -> Node:
    return next(each for each in cluster.nodes if each is not node)


# --- which node ---


def test_a_keys_slot_is_made_of_what_its_first_braces_hold() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000") == 3443
    assert slot_of(b"foo{}{bar}") == 8363  # nothing stands in the first ones: the whole key counts
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")


def test_nodes_are_read_as_a_cluster_lists_them() -> None:
    text = """\
a1 10.0.0.1:7000@17000,one.example,shard-id=5 myself,master - 0 0 1 connected 0-5460 [93->-b2] 9000
b2 :7001@17001 master - 0 1 2 connected 5461-8999
c3 2001:db8::7:7002@17002 master,fail - 0 1 3 disconnected 9001-16383
d4 10.0.0.4:7003@17003 slave a1 0 1 1 connected
e5 10.0.0.5:7004@17004 master - 0 1 4 connected
"""
    assert masters_in(text, Address("asked", 1)) == (
        Master(Address("one.example", 7000), (range(5461), range(9000, 9001))),
        Master(Address("asked", 7001), (range(5461, 9000),)),
        Master(Address("2001:db8::7", 7002), (range(9001, 16384),)),
    )


def test_shards_are_spread_over_the_nodes_and_each_stands_on_one(cluster: RedisCluster, namespace: str, open_store: Open) -> None:
    store = open_store()
    shards = [str(n) for n in range(24)]
    for shard in shards:
        begin(store, shard)
    kept = [{key for key in node.ask("KEYS", f"{{{namespace}.*") if b":" in key} for node in cluster.nodes]
    assert sum(map(len, kept)) == len(shards) * KEYS
    assert all(len(keys) >= KEYS for keys in kept), "every node keeps some"
    for shard in shards:
        (slot,) = {slot_of(key) for keys in kept for key in keys if key.startswith(f"{{{namespace}.{shard}}}".encode())}
        assert slot == slot_of(fence(namespace, shard).encode())
        assert blocks(store, shard, "customer", 7) == [b"0007:00001"]
    for shard in shards:
        store.drop(shard)
    assert not any(node.ask("KEYS", f"{{{namespace}.*") for node in cluster.nodes)


def test_one_address_of_the_cluster_is_enough_and_a_wrong_one_is_said(cluster: RedisCluster, open_store: Open) -> None:
    one = cluster.nodes[2].port
    begin(open_store(f"redis+cluster://127.0.0.1:1,127.0.0.1:{one}"))
    assert open_store().check_server().warnings == ()
    with pytest.raises(SettingsError, match=r"redis\+cluster://"):
        RedisStore(f"redis://127.0.0.1:{one}/0", "n").check_server()
    with pytest.raises(SettingsError, match="database 3"):
        RedisStore(f"redis+cluster://127.0.0.1:{one}/3", "n")
    with pytest.raises(StoreDown, match=r"127\.0\.0\.1:1: "):
        RedisStore("redis+cluster://127.0.0.1:1", "n").claim("0", {})


def test_a_single_server_is_no_cluster(server: RedisServer) -> None:
    port = int(server.ask("CONFIG", "GET", "port")[b"port"])
    assert port == 0
    server.ask("CONFIG", "SET", "port", "21999")
    try:
        with pytest.raises(SettingsError, match="single server"):
            RedisStore("redis+cluster://127.0.0.1:21999", "n").check_server()
    finally:
        server.ask("CONFIG", "SET", "port", "0")


def test_every_master_must_keep_what_it_has(cluster: RedisCluster, open_store: Open) -> None:
    with (
        cluster.nodes[1].server.setting("maxmemory-policy", "allkeys-lru"),
        pytest.raises(SettingsError, match=f"127.0.0.1:{cluster.nodes[1].port} has maxmemory-policy allkeys-lru"),
    ):
        open_store().check_server()


# --- slots that move ---


def test_a_slot_that_moves_is_waited_for_and_followed(cluster: RedisCluster, namespace: str, open_store: Open) -> None:
    store = open_store()
    begin(store)
    source = cluster.node_of(fence(namespace))
    target = other_than(cluster, source)
    with cluster.moving(fence(namespace), target) as move:
        move(KEYS // 2)
        with pytest.raises(StoreDown, match="on its way"):
            blocks(store, "0", "customer", *range(KEYS))
        store.write("0", (whole("customer", {n: b"%04d:00002" % n for n in range(KEYS + 1)}),), 2)
        with pytest.raises(StoreDown, match="on its way"):
            store.settle("0")
    store.settle("0")
    assert cluster.node_of(fence(namespace)) is target
    assert target.ask("HGET", fence(namespace), "o") == b"2"
    assert blocks(store, "0", "customer", *range(KEYS + 1)) == [b"%04d:00002" % n for n in range(KEYS + 1)]

    successor = open_store()
    assert successor.claim("0", {}).position == 2
    store.write("0", (part("customer", {1: (0, b"9")}),), 3)
    with pytest.raises(FenceLost, match="another owner"):
        store.settle("0")


def test_a_slot_that_moved_while_its_owner_was_idle_is_followed_at_once(cluster: RedisCluster, namespace: str, open_store: Open) -> None:
    store = open_store()
    begin(store)
    for position in (2, 3):  # a read meets the move first, then a write
        with cluster.moving(fence(namespace), other_than(cluster, cluster.node_of(fence(namespace)))):
            pass
        if position == 2:
            assert blocks(store, "0", "customer", 7) == [b"0007:00001"]
        store.write("0", (part("customer", {7: (5, b"%05d" % position)}),), position)
        store.settle("0")
        assert blocks(store, "0", "customer", 7) == [b"0007:%05d" % position]


def test_writes_go_on_over_slots_that_move_and_none_is_lost_or_made_twice(cluster: RedisCluster, namespace: str, open_store: Open) -> None:
    store, expected = open_store(), {n: b"%04d:00001" % n for n in range(KEYS)}
    position, refused = 2, 0
    begin(store)

    def write() -> None:
        nonlocal position
        changed = dict.fromkeys(range(position, position + 9), b"%05d" % position)
        known = {n: (5, text) for n, text in changed.items() if n in expected}
        new = {n: b"%04d:%s" % (n, text) for n, text in changed.items() if n not in expected}
        store.write("0", (part("customer", known), whole("customer", new)), position)
        expected.update({n: b"%04d:%s" % (n, text) for n, text in changed.items()})
        position += 1

    for most in (3, 15, 50, 1_000):
        with cluster.moving(fence(namespace), other_than(cluster, cluster.node_of(fence(namespace)))) as move:
            for moved in (0, most):
                move(moved)
                try:
                    write()
                    store.settle("0")
                except StoreDown:
                    refused += 1
        for _ in range(5):
            refused += until_done(write)
    refused += until_done(lambda: store.settle("0"))
    assert refused > 0, "some of it must have met a slot on its way"
    assert blocks(store, "0", "customer", *expected) == list(expected.values())
    assert open_store().claim("0", {}).position == position - 1


def test_state_dropped_while_its_slot_moves_leaves_nothing_behind(cluster: RedisCluster, namespace: str, open_store: Open) -> None:
    store = open_store()
    begin(store)
    # The fence is the last in order of names, so it is still on the old node, and most blocks are on the new one.
    with cluster.moving(fence(namespace), other_than(cluster, cluster.node_of(fence(namespace)))) as move:
        move(KEYS - 5)
        with pytest.raises(StoreDown, match="on its way"):
            store.drop("0")
    claim = open_store().claim("0", {})
    assert claim.position is None
    left = [key for node in cluster.nodes for key in node.ask("KEYS", f"{{{namespace}.0}}*")]
    assert left == [fence(namespace).encode()]


# --- nodes that die ---


@pytest.fixture
def own_cluster() -> Iterator[RedisCluster]:
    with running_cluster() as started:
        yield started


def test_a_node_that_dies_holds_up_its_own_shards_and_a_replica_takes_its_place(own_cluster: RedisCluster, namespace: str) -> None:
    store = RedisStore(own_cluster.url, namespace, answer_timeout_seconds=2.0)
    shards = {own_cluster.node_of(fence(namespace, str(n))).port: str(n) for n in range(24)}
    assert len(shards) == 3
    first, second, third = own_cluster.nodes
    for shard in shards.values():
        begin(store, shard)

    # Without a replica: its shard waits until it is there again.
    second.server.kill()
    store.write(shards[second.port], (whole("customer", {1: b"after"}),), 2)
    with pytest.raises(StoreDown, match=f"127.0.0.1:{second.port}"):
        store.settle(shards[second.port])
    store.write(shards[third.port], (whole("customer", {1: b"after"}),), 2)
    store.settle(shards[third.port])
    second.server.start()
    until_done(lambda: store.settle(shards[second.port]))
    assert blocks(store, shards[second.port], "customer", 1, 2) == [b"after", b"0002:00001"]

    # With one: what it has is consistent, and the position says how far it came.
    own_cluster.add_replica(first)
    shard, position = shards[first.port], 2
    for position in range(2, 200):
        store.write(shard, (whole("customer", dict.fromkeys(range(5), b"%06d" % position)),), position)
    first.server.kill()
    store.forget(shard)
    positions: list[int] = []
    until_done(lambda: positions.append(store.claim(shard, {}).position or 0))
    assert 2 <= positions[-1] <= position
    assert blocks(store, shard, "customer", *range(5)) == [b"%06d" % positions[-1]] * 5
    store.close()
