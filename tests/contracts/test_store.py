"""What every store promises to the owner of a shard: one suite, in memory, on a real Redis and on a cluster of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.columns import PackedBytes
from schemas.errors import FenceLost
from tests.block_writes import blocks, keys_of, part, whole
from tests.contracts.conftest import Owners
from transforms.store import WHOLE_BLOCK, Claim, Store, Writes


@pytest.fixture
def owner(states: Callable[[], Owners]) -> Owners:
    return states()


@pytest.fixture
def store(owner: Owners) -> Store:
    """An owner that has claimed shard 0."""
    made = owner()
    made.claim("0", {})
    return made


def test_a_new_shard_has_no_position_and_no_notes(owner: Owners) -> None:
    assert owner().claim("0", {}) == Claim(None, {})


def test_what_was_written_is_read_in_the_order_asked_for(store: Store) -> None:
    store.write("0", (whole("customer", {1: b"one", 2: b"", 3: b"three"}),), 3)
    assert blocks(store, "0", "customer", 3, 4, 1, 2, 3) == [b"three", b"", b"one", b"", b"three"]


def test_the_next_owner_finds_position_and_blocks(owner: Owners, store: Store) -> None:
    store.write("0", (whole("customer", {1: b"one"}),), 7)
    store.write("0", (whole("terminal", {1: b"eins"}),), 9)
    store.release("0")
    after = owner()
    assert after.claim("0", {}) == Claim(9, {})
    assert blocks(after, "0", "customer", 1) + blocks(after, "0", "terminal", 1) == [b"one", b"eins"]


def test_bytes_of_any_value_and_blocks_of_any_size_come_back_as_they_were(store: Store) -> None:
    some = {1: bytes(range(256)), 2: b"\r\n$3\r\n", 3: b"*1\r\n-ERR", 4: bytes(1_000_000), 5: b"+OK\r\n" * 40_000}
    store.write("0", (whole("customer", some),), 1)
    assert blocks(store, "0", "customer", *some) == list(some.values())


def test_a_part_replaces_its_own_bytes_and_no_others(store: Store) -> None:
    store.write("0", (whole("customer", {1: b"0123456789", 2: b"abc"}),), 1)
    store.write("0", (part("customer", {1: (3, b"xyz"), 2: (3, b"def")}),), 2)
    assert blocks(store, "0", "customer", 1, 2) == [b"012xyz6789", b"abcdef"]


def test_a_part_beyond_the_end_leaves_zeros_before_it(store: Store) -> None:
    store.write("0", (part("customer", {1: (4, b"late"), 2: (0, b"new")}),), 1)
    assert blocks(store, "0", "customer", 1, 2) == [b"\0\0\0\0late", b"new"]


def test_a_whole_block_replaces_a_longer_one(store: Store) -> None:
    store.write("0", (whole("customer", {1: b"a long block"}),), 1)
    store.write("0", (whole("customer", {1: b"short"}),), 2)
    assert blocks(store, "0", "customer", 1) == [b"short"]


def test_changes_of_one_write_follow_each_other_in_order(store: Store) -> None:
    twice = (part("customer", {1: (0, b"bbb")}), part("customer", {1: (1, b"c")}))
    store.write("0", (whole("customer", {1: b"aaaa"}), *twice), 1)
    assert blocks(store, "0", "customer", 1) == [b"bcba"]


def test_a_write_is_frozen_when_it_is_given(store: Store) -> None:
    data = np.frombuffer(b"as it was", np.uint8).copy()
    whole_block = np.array([WHOLE_BLOCK], np.int64)
    change = Writes("customer", keys_of(1), whole_block, PackedBytes(data, np.array([0]), np.array([9])))
    store.write("0", (change,), 1)
    data[:] = 0
    whole_block[0] = 5
    assert blocks(store, "0", "customer", 1) == [b"as it was"]


def test_entities_and_shards_do_not_meet_in_one_key(owner: Owners, store: Store) -> None:
    store.claim("1", {})
    store.write("0", (whole("customer", {1: b"customer"}), whole("terminal", {1: b"terminal"})), 1)
    store.write("1", (whole("customer", {1: b"elsewhere"}),), 5)
    assert blocks(store, "0", "customer", 1) + blocks(store, "0", "terminal", 1) == [b"customer", b"terminal"]
    assert blocks(store, "1", "customer", 1) == [b"elsewhere"]
    store.release("0")
    assert owner().claim("0", {}).position == 1


def test_keys_that_share_half_their_hash_are_two_keys(store: Store) -> None:
    keys = np.array([[1, 2], [1, 3], [3, 2]], np.uint64)
    store.write("0", (Writes("customer", keys, np.full(3, WHOLE_BLOCK, np.int64), PackedBytes.pack([b"a", b"b", b"c"])),), 1)
    assert list(store.read("0", "customer", keys)) == [b"a", b"b", b"c"]


def test_a_write_without_blocks_moves_the_position(owner: Owners, store: Store) -> None:
    store.write("0", (), 12)
    store.settle("0")
    assert owner().claim("0", {}).position == 12


def test_the_position_never_moves_back(owner: Owners, store: Store) -> None:
    store.write("0", (whole("customer", {1: b"at 10"}),), 10)
    with pytest.raises(ValueError, match="stands at 10"):
        store.write("0", (whole("customer", {1: b"at 9"}),), 9)
    store.write("0", (part("customer", {1: (0, b"AT")}),), 10)
    assert blocks(store, "0", "customer", 1) == [b"AT 10"]
    assert owner().claim("0", {}).position == 10


def test_reading_no_keys_gives_no_blocks(store: Store) -> None:
    assert blocks(store, "0", "customer") == []


def test_settling_without_a_write_is_allowed(store: Store) -> None:
    store.settle("0")
    store.settle("0")


def test_a_second_owner_refuses_the_first_ones_write(owner: Owners, store: Store) -> None:
    store.write("0", (whole("customer", {1: b"mine"}),), 5)
    store.settle("0")
    second = owner()
    assert second.claim("0", {}).position == 5
    store.write("0", (whole("customer", {1: b"zombie"}),), 6)
    with pytest.raises(FenceLost, match="another owner"):
        store.settle("0")
    assert blocks(second, "0", "customer", 1) == [b"mine"]
    second.write("0", (whole("customer", {1: b"theirs"}),), 8)
    second.settle("0")
    assert owner().claim("0", {}).position == 8


def test_a_second_owner_refuses_the_first_ones_read(owner: Owners, store: Store) -> None:
    store.write("0", (whole("customer", {1: b"mine"}),), 5)
    store.settle("0")
    owner().claim("0", {})
    with pytest.raises(FenceLost, match="another owner"):
        blocks(store, "0", "customer", 1)


def test_a_second_owner_refuses_the_first_ones_release_and_drop(owner: Owners, store: Store) -> None:
    store.claim("1", {})
    store.write("0", (whole("customer", {1: b"mine"}),), 5)
    store.write("1", (whole("customer", {1: b"mine"}),), 5)
    store.settle("0")
    store.settle("1")
    second = owner()
    second.claim("0", {"producers": "p"})
    second.claim("1", {"producers": "p"})
    with pytest.raises(FenceLost):
        store.release("0")
    with pytest.raises(FenceLost):
        store.drop("1")
    for shard in ("0", "1"):
        assert blocks(second, shard, "customer", 1) == [b"mine"]
        assert owner().claim(shard, {}) == Claim(5, {"producers": "p"})


def test_a_lost_shard_stays_lost_until_it_is_claimed_again(owner: Owners, store: Store) -> None:
    second = owner()
    second.claim("0", {})
    with pytest.raises(FenceLost):
        blocks(store, "0", "customer", 1)
    second.release("0")
    with pytest.raises(FenceLost):
        blocks(store, "0", "customer", 1)
    with pytest.raises(FenceLost):
        store.release("0")
    with pytest.raises(FenceLost):
        store.drop("0")
    assert store.claim("0", {}) == Claim(None, {})
    store.write("0", (whole("customer", {1: b"back"}),), 1)
    assert blocks(store, "0", "customer", 1) == [b"back"]


def test_a_write_that_was_sent_is_there_for_the_next_owner_or_reported(owner: Owners, store: Store) -> None:
    store.write("0", (whole("customer", {1: b"sent"}),), 4)
    second = owner()
    position = second.claim("0", {}).position
    found = blocks(second, "0", "customer", 1)
    assert (position, found) in [(4, [b"sent"]), (None, [b""])]
    if position is None:
        with pytest.raises(FenceLost):
            store.settle("0")


def test_notes_go_to_the_next_owner_and_are_replaced_by_its_own(owner: Owners, store: Store) -> None:
    store.claim("0", {"producers": "a, b", "refused": '{"7": 12}'})
    assert owner().claim("0", {"producers": "ç"}) == Claim(None, {"producers": "a, b", "refused": '{"7": 12}'})
    assert owner().claim("0", {}) == Claim(None, {"producers": "ç"})
    assert owner().claim("0", {}) == Claim(None, {})


def test_a_clean_release_clears_the_notes_and_keeps_the_state(owner: Owners, store: Store) -> None:
    store.claim("0", {"producers": "a"})
    store.write("0", (whole("customer", {1: b"kept"}),), 3)
    store.release("0")
    with pytest.raises(FenceLost, match="not claimed"):
        blocks(store, "0", "customer", 1)
    assert store.claim("0", {}) == Claim(3, {})
    assert blocks(store, "0", "customer", 1) == [b"kept"]


def test_claiming_again_goes_on_where_the_state_stands(store: Store) -> None:
    store.write("0", (whole("customer", {1: b"kept"}),), 3)
    store.settle("0")
    assert store.claim("0", {"producers": "a"}).position == 3
    assert store.claim("0", {}) == Claim(3, {"producers": "a"})
    store.write("0", (whole("customer", {2: b"more"}),), 4)
    assert blocks(store, "0", "customer", 1, 2) == [b"kept", b"more"]


def test_a_forgotten_shard_has_to_be_claimed_again(owner: Owners, store: Store) -> None:
    store.forget("0")
    store.forget("0")
    for call in (
        lambda: blocks(store, "0", "customer", 1),
        lambda: store.write("0", (), 1),
        lambda: store.settle("0"),
        lambda: store.drop("0"),
    ):
        with pytest.raises(FenceLost, match="not claimed"):
            call()
    assert store.claim("0", {}).position is None


def test_a_drop_deletes_a_shards_position_and_blocks_and_leaves_the_others(store: Store) -> None:
    store.claim("1", {})
    for shard in ("0", "1"):
        store.write(shard, (whole("customer", dict.fromkeys(range(50), b"block")), whole("terminal", {1: b"block"})), 5)
    store.drop("0")
    with pytest.raises(FenceLost, match="not claimed"):
        blocks(store, "0", "customer", 1)
    assert store.claim("0", {}) == Claim(None, {})
    assert set(blocks(store, "0", "customer", *range(50))) == {b""}
    assert blocks(store, "0", "terminal", 1) == [b""]
    assert set(blocks(store, "1", "customer", *range(50))) == {b"block"}
    store.write("0", (whole("customer", {1: b"again"}),), 1)
    assert blocks(store, "0", "customer", 1) == [b"again"]


def test_a_closed_store_holds_no_shard(store: Store) -> None:
    store.close()
    with pytest.raises(FenceLost, match="not claimed"):
        store.settle("0")


def test_one_thread_may_read_while_another_writes(store: Store) -> None:
    store.write("0", (whole("customer", dict.fromkeys(range(20), b"%08d" % 0)),), 0)
    torn: list[list[bytes]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = blocks(store, "0", "customer", *range(20))
            if len(set(found)) != 1:
                torn.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for position in range(1, 100):
        store.write("0", (part("customer", dict.fromkeys(range(20), (0, b"%08d" % position))),), position)
    done.set()
    reader.join()
    assert torn == []
    assert blocks(store, "0", "customer", 7) == [b"%08d" % 99]


Change = tuple[str, int, int, bytes]  # entity, key, where (or WHOLE_BLOCK), what
CHANGES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(WHOLE_BLOCK, 30), st.binary(max_size=20)), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(CHANGES, max_size=6))
def test_any_sequence_of_writes_leaves_what_a_dictionary_would_hold(states: Callable[[], Owners], batches: list[list[Change]]) -> None:
    store = states()()
    store.claim("0", {})
    held: dict[tuple[str, int], bytes] = {}
    for position, changes in enumerate(batches):
        store.write("0", tuple(whole(e, {k: d}) if at < 0 else part(e, {k: (at, d)}) for e, k, at, d in changes), position)
        for entity, key, at, data in changes:
            before = held.get((entity, key), b"")
            if at < 0:
                held[entity, key] = data
            elif data:
                held[entity, key] = before[:at].ljust(at, b"\0") + data + before[at + len(data) :]
    for entity in "ab":
        assert blocks(store, "0", entity, *range(6)) == [held.get((entity, key), b"") for key in range(6)]
    store.close()
