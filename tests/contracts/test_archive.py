"""What every store promises of whole shards: one suite, in memory, on a real Redis and on a cluster of them."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator

import pytest

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, LostBlock
from tests.block_writes import blocks, keys_of, part, whole
from tests.oracles.blocks import block_of_format_2, crc16
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from transforms.archive import Archive, Dump
from transforms.memory_store import Memory, MemoryStore
from transforms.redis_archive import RedisArchive
from transforms.store import Writes

Owners = Callable[[], Archive]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.broker), pytest.param("cluster", marks=pytest.mark.broker)])
def owner(request: pytest.FixtureRequest) -> Iterator[Owners]:
    """Each call makes another owner of the same state."""
    made: list[Archive] = []
    memory, namespace = Memory(), f"test.{uuid.uuid4().hex[:12]}"
    kinds = {"memory": None, "redis": "server", "cluster": "cluster"}
    kind = kinds[request.param]
    server: RedisServer | RedisCluster | None = None if kind is None else request.getfixturevalue(kind)

    def another() -> Archive:
        made.append(MemoryStore(memory) if server is None else RedisArchive(server.url, namespace))
        return made[-1]

    yield another
    for each in made:
        each.close()


@pytest.fixture
def store(owner: Owners) -> Archive:
    """An owner that has claimed shard 0."""
    made = owner()
    made.claim("0", {})
    return made


def record(position: int) -> bytes:
    """The position counted from 0, a time of one byte, a seal that nobody looks at here."""
    return struct.pack("<HBH", position + 1, 7, 0xFFFF)


def block(*positions: int, room: int = 0, counted_from: int = 0) -> bytes:
    """A block of such records; the key's hash and id are of no concern here."""
    head = struct.pack("<8sH6s16xq22x", b"MILLRC\0\3", 2, b"\x12", counted_from)
    records = b"".join(record(position - counted_from) for position in positions)
    return head + struct.pack("<H", crc16(head)) + records + bytes(room * len(record(0)))


def old_block(*positions: int) -> bytes:
    """One of format 2."""
    return block_of_format_2(bytes(16), b"", [[position + 1, 7] for position in positions])


def seen(dump: Dump | None, entity: str = "customer") -> list[bytes]:
    """All blocks of an entity."""
    assert dump is not None
    return list(dump.blocks(entity, dump.keys[entity]))


def three(store: Archive, position: int = 10) -> None:
    """Write three customers and a terminal."""
    writes = (whole("customer", {n: block(n) for n in (1, 2, 3)}), whole("terminal", {1: block(1, 2)}))
    store.write("0", writes, position)
    store.settle("0")


def test_shards_are_listed_with_position_keys_and_size(store: Archive, owner: Owners) -> None:
    assert store.shards()[0].position is None
    three(store)
    store.claim("10", {})
    store.claim("2", {})
    store.write("2", (whole("customer", {1: block(1)}),), 4)
    store.settle("2")
    found = owner().shards()
    assert [(each.shard, each.position, each.keys) for each in found] == [("0", 10, 4), ("2", 4, 1), ("10", None, 0)]
    assert found[0].size_bytes >= 4 * len(block(1))


def test_a_shard_is_held_while_its_owner_is_there(store: Archive, owner: Owners) -> None:
    three(store)
    assert [each.holder for each in owner().shards()] == [True]
    store.release("0")
    assert [each.holder for each in owner().shards()] == [False]


def test_a_shard_without_state_has_no_dump(owner: Owners, store: Archive) -> None:
    assert owner().dump("0") is None
    assert owner().dump("nowhere") is None


def test_a_dump_of_a_shard_at_rest_is_what_the_store_has(owner: Owners, store: Archive) -> None:
    three(store)
    store.release("0")
    dump = owner().dump("0")
    assert dump is not None
    assert {entity: len(keys) for entity, keys in dump.keys.items()} == {"customer": 3, "terminal": 1}
    assert sorted(seen(dump)) == sorted(block(n) for n in (1, 2, 3))
    assert seen(dump, "terminal") == [block(1, 2)]
    assert (dump.position, dump.end()) == (10, 10)
    dump.close()


def test_keys_of_a_dump_stand_in_the_order_of_their_bytes(owner: Owners, store: Archive) -> None:
    store.write("0", (whole("customer", {n: block(1) for n in range(500)}),), 10)
    store.settle("0")
    dump = owner().dump("0")
    assert dump is not None
    names = [key.tobytes() for key in dump.keys["customer"]]
    assert names == sorted(key.tobytes() for key in keys_of(*range(500)))


def test_what_is_written_during_a_dump_is_cut_off_and_told_of(owner: Owners, store: Archive) -> None:
    three(store)
    dump = owner().dump("0")
    assert dump is not None
    changes = (part("customer", {1: (len(block(1)), record(10) + record(11))}), whole("customer", {2: block(12), 9: block(13)}))
    store.write("0", changes, 14)
    store.settle("0")
    assert sorted(seen(dump)) == sorted([block(1), b"", block(3)])
    assert (dump.position, dump.end()) == (10, 14)
    dump.close()


def test_the_room_behind_the_records_is_no_part_of_a_dump(owner: Owners, store: Archive) -> None:
    store.write("0", (whole("customer", {1: block(1, room=3), 2: block(2, 10, room=2), 3: block(10, room=2)}),), 10)
    store.settle("0")
    assert sorted(seen(owner().dump("0"))) == [b"", block(1), block(2)]


def test_positions_are_cut_wherever_they_are_counted_from(owner: Owners, store: Archive) -> None:
    store.write("0", (whole("customer", {1: block(7, 10, 9, 11, counted_from=5), 2: block(8, 9), 3: block(10, counted_from=10)}),), 10)
    store.settle("0")
    assert sorted(seen(owner().dump("0"))) == sorted([b"", block(7, 9, counted_from=5), block(8, 9)])


def test_blocks_of_the_format_before_are_cut_as_well(owner: Owners, store: Archive) -> None:
    store.write("0", (whole("customer", {1: old_block(1, 2), 2: old_block(3, 10, 4), 3: old_block(12)}),), 10)
    store.settle("0")
    assert sorted(seen(owner().dump("0"))) == [b"", old_block(1, 2), old_block(3, 4)]


def test_the_owner_does_not_notice_a_dump(owner: Owners, store: Archive) -> None:
    three(store)
    dump = owner().dump("0")
    assert seen(dump)
    store.write("0", (whole("customer", {1: block(10)}),), 11)
    store.settle("0")
    assert blocks(store, "0", "customer", 1) == [block(10)]


@pytest.mark.parametrize("change", ["claim", "release", "drop", "drop and build again", "load"])
def test_a_dump_of_a_state_that_ends_meanwhile_is_none(owner: Owners, store: Archive, change: str) -> None:
    three(store)
    dump = owner().dump("0")
    assert dump is not None
    if change == "claim":
        owner().claim("0", {})
    elif change == "release":
        store.release("0")
    elif change == "load":
        store.load("0", [whole("customer", {1: block(1)})], 20)
    else:
        store.drop("0")
    if change == "drop and build again":
        store.claim("0", {})
        three(store, 20)
    with pytest.raises(FenceLost):
        dump.end()


def test_a_damaged_block_is_not_dumped(owner: Owners, store: Archive) -> None:
    store.write("0", (whole("customer", {1: block(1)}), part("terminal", {1: (len(block(1)), record(5))})), 10)
    store.settle("0")
    dump = owner().dump("0")
    assert seen(dump) == [block(1)]
    with pytest.raises(LostBlock, match="hole of zeros"):
        seen(dump, "terminal")
    store.write("0", (whole("terminal", {1: block(1)[:-3]}),), 11)
    store.settle("0")
    with pytest.raises(LostBlock, match="no header and whole records"):
        seen(owner().dump("0"), "terminal")
    store.write("0", (whole("terminal", {1: block(1)[:32] + b"\7" + block(1)[33:]}),), 12)
    store.settle("0")
    with pytest.raises(LostBlock, match="header that isn't what was written"):
        seen(owner().dump("0"), "terminal")


def test_a_load_replaces_all_there_was(owner: Owners, store: Archive) -> None:
    three(store)
    store.load("0", [whole("customer", {7: block(70), 8: block(80)}), whole("terminal", {1: block(71)})], 100)
    assert blocks(store, "0", "customer", 1, 7, 8) == [b"", block(70), block(80)]
    assert blocks(store, "0", "terminal", 1) == [block(71)]
    store.write("0", (part("customer", {7: (len(block(70)), record(100))}),), 101)
    store.release("0")
    after = owner()
    assert after.claim("0", {}).position == 101
    assert blocks(after, "0", "customer", 7) == [block(70, 100)]


def test_a_load_may_begin_at_the_beginning(owner: Owners, store: Archive) -> None:
    store.load("0", [], 0)
    store.release("0")
    assert owner().claim("0", {}).position == 0


def test_a_load_cut_short_leaves_no_state(owner: Owners, store: Archive) -> None:
    def cut_short() -> Iterator[Writes]:
        yield whole("customer", {7: block(70)})
        raise KeyboardInterrupt

    three(store)
    with pytest.raises(KeyboardInterrupt):
        store.load("0", cut_short(), 100)
    assert owner().dump("0") is None
    assert owner().shards()[0].position is None
    after = owner()
    assert after.claim("0", {}).position is None
    assert blocks(after, "0", "customer", 1, 7) == [b"", b""]


def test_a_load_of_a_shard_that_is_not_ours_any_more_changes_nothing(owner: Owners, store: Archive) -> None:
    three(store)
    after = owner()
    after.claim("0", {})
    with pytest.raises(FenceLost):
        store.load("0", [whole("customer", {1: block(70)})], 100)
    assert blocks(after, "0", "customer", 1) == [block(1)]


def test_another_owner_ends_a_load_under_way(owner: Owners, store: Archive) -> None:
    three(store)
    after = owner()

    def taken_away() -> Iterator[Writes]:
        yield whole("customer", {7: block(70)})
        assert after.claim("0", {}).position is None
        yield whole("customer", {8: block(80)})

    with pytest.raises(FenceLost):
        store.load("0", taken_away(), 100)
    assert blocks(after, "0", "customer", 1, 7, 8) == [b"", b"", b""]
    after.write("0", (whole("customer", {1: block(1)}),), 5)
    after.settle("0")
    assert blocks(after, "0", "customer", 1) == [block(1)]


def test_a_dump_can_be_loaded_into_another_shard(owner: Owners, store: Archive) -> None:
    three(store)
    dump = owner().dump("0")
    assert dump is not None
    store.claim("1", {})

    def all_of_it() -> Iterator[Writes]:
        for entity, keys in dump.keys.items():
            found: PackedBytes = dump.blocks(entity, keys)
            yield Writes.whole(entity, keys, found)

    store.load("1", all_of_it(), dump.end())
    assert blocks(store, "1", "customer", 1, 2, 3) == [block(1), block(2), block(3)]
    assert blocks(store, "1", "terminal", 1) == [block(1, 2)]
