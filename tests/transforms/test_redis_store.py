"""The Redis store against a real server that is cut off, killed, wiped, full, slow or somebody else's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from schemas.columns import PackedBytes
from schemas.errors import FenceLost, LostBlock, SettingsError, StoreDown
from tests.block_writes import blocks, keys_of, part, whole
from tests.redis_server import RedisServer, running
from tests.transforms.cutting_proxy import CuttingProxy, cutting_proxy
from transforms.redis_store import RedisStore
from transforms.store import WHOLE_BLOCK, Claim, Writes

pytestmark = pytest.mark.broker

EXEC = b"*1\r\n$4\r\nEXEC\r\n"
MULTI = b"*1\r\n$5\r\nMULTI\r\n"
NOTHING_EXECUTED = b"*-1\r\n"
FENCE_READ = b"*2\r\n$"  # the answer to HMGET, which stands behind an EXEC's

Open = Callable[..., RedisStore]


@pytest.fixture
def open_store(server: RedisServer, namespace: str) -> Iterator[Open]:
    """Opens stores in the test's namespace, by default on the server all tests share."""
    opened: list[RedisStore] = []

    def open_one(url: str = server.url, **options: float) -> RedisStore:
        opened.append(RedisStore(url, namespace, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> RedisStore:
    """An owner of shard 0 that stands at 5, with one block."""
    return begin(open_store())


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[CuttingProxy]:
    with cutting_proxy(server.socket) as started:
        yield started


def begin(store: RedisStore) -> RedisStore:
    store.claim("0", {"producers": "p"})
    see_through(store, (whole("customer", {1: b"at 5"}),), 5)
    return store


def see_through(store: RedisStore, changes: tuple[Writes, ...], position: int) -> None:
    store.write("0", changes, position)
    store.settle("0")


def fence(server: RedisServer, namespace: str, field: str = "o") -> bytes | None:
    found: bytes | None = server.ask("HGET", f"{{{namespace}.0}}o", field)
    return found


def cut_connection(server: RedisServer, namespace: str, shard: str = "0") -> None:
    """End the connection of a shard's owner, from the server's side."""
    name = f"name={namespace}.{shard} "
    clients = [line for line in server.ask("CLIENT", "LIST", "TYPE", "normal").decode().splitlines() if name in line]
    assert clients, "the owner has no connection"
    for line in clients:
        server.ask("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))


# --- what stands in Redis ---


def test_everything_of_a_shard_stands_under_one_hash_tag(server: RedisServer, namespace: str, store: RedisStore) -> None:
    tag = f"{{{namespace}.0}}".encode()
    hexadecimal = keys_of(1).tobytes().hex().encode()
    assert sorted(server.ask("KEYS", f"*{namespace}*")) == sorted([tag + b"o", tag + b"customer:" + hexadecimal])
    assert server.ask("GET", tag + b"customer:" + hexadecimal) == b"at 5"
    assert fence(server, namespace) == b"5"


def test_a_namespace_that_would_break_the_hash_tag_is_refused(server: RedisServer) -> None:
    for name in ("a{b", "a}b", "a b", ""):
        with pytest.raises(ValueError, match="can't stand in a key"):
            RedisStore(server.url, name)


def test_signs_that_mean_something_in_patterns_delete_no_other_shards_blocks(server: RedisServer, namespace: str) -> None:
    stores = [RedisStore(server.url, f"{namespace}.{name}") for name in ("a*", "ab", "a[b]", "a?")]
    for store in stores:
        begin(store)
    for store in (stores[0], stores[2], stores[3]):
        store.drop("0")
        assert store.claim("0", {}).position is None
        assert blocks(store, "0", "customer", 1) == [b""]
    assert blocks(stores[1], "0", "customer", 1) == [b"at 5"]
    for store in stores:
        store.close()


# --- the fence ---


def test_a_connection_that_was_cut_is_fenced_again_and_the_write_goes_through(
    server: RedisServer, namespace: str, store: RedisStore
) -> None:
    cut_connection(server, namespace)
    see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    assert fence(server, namespace) == b"6"
    cut_connection(server, namespace)
    assert blocks(store, "0", "customer", 1) == [b"at 6"]


def test_a_reconnected_owner_does_not_write_over_the_next_one(
    server: RedisServer, namespace: str, store: RedisStore, open_store: Open
) -> None:
    cut_connection(server, namespace)
    second = open_store()
    second.claim("0", {})
    second.write("0", (whole("customer", {1: b"theirs"}),), 300)
    second.settle("0")
    with pytest.raises(FenceLost, match="another owner"):
        see_through(store, (whole("customer", {1: b"zombie"}),), 200)
    assert fence(server, namespace) == b"300"
    assert blocks(second, "0", "customer", 1) == [b"theirs"]


def test_an_owner_that_gave_a_connection_up_is_fenced_on_the_next(namespace: str) -> None:
    with running() as slow:
        store = begin(RedisStore(slow.url, namespace, answer_timeout_seconds=0.1))
        with slow.held_still(), pytest.raises(StoreDown):
            blocks(store, "0", "customer", 1)
        second = begin(RedisStore(slow.url, namespace))
        with pytest.raises(FenceLost, match="another owner"):
            see_through(store, (whole("customer", {1: b"zombie"}),), 200)
        assert blocks(second, "0", "customer", 1) == [b"at 5"]
        assert fence(slow, namespace) == b"5"
        store.close()
        second.close()


def test_writes_of_one_shard_do_not_end_the_fence_of_another(
    server: RedisServer, namespace: str, store: RedisStore, open_store: Open
) -> None:
    store.claim("1", {})
    store.write("1", (whole("customer", {1: b"of 1"}),), 1)
    store.settle("1")  # on shard 0's connection this EXEC would have ended its WATCH
    second = open_store()
    second.claim("0", {})
    store.write("1", (whole("customer", {1: b"of 1"}),), 2)
    store.write("0", (whole("customer", {1: b"zombie"}),), 6)
    store.write("1", (whole("customer", {1: b"of 1"}),), 3)
    with pytest.raises(FenceLost, match="another owner"):
        store.settle("0")
    assert blocks(second, "0", "customer", 1) == [b"at 5"]
    store.settle("1")


def test_whoever_touches_the_fence_by_hand_stops_the_next_write(server: RedisServer, namespace: str, store: RedisStore) -> None:
    server.ask("HSET", f"{{{namespace}.0}}o", "o", "5")
    store.write("0", (whole("customer", {1: b"later"}),), 6)
    with pytest.raises(FenceLost, match="touched"):
        store.settle("0")
    assert fence(server, namespace) == b"5"


def test_a_wipe_between_writes_is_seen_by_the_read(store: RedisStore, server: RedisServer) -> None:
    server.ask("FLUSHALL")
    with pytest.raises(FenceLost, match="token is gone"):
        blocks(store, "0", "customer", 1)
    assert store.claim("0", {}) == Claim(None, {})


def test_a_wipe_before_a_write_leaves_nothing_of_it(server: RedisServer, namespace: str, store: RedisStore) -> None:
    server.ask("FLUSHALL")
    store.write("0", (part("customer", {1: (3, b"6")}),), 6)
    with pytest.raises(FenceLost, match="token is gone"):
        store.settle("0")
    assert server.ask("KEYS", f"*{namespace}*") == []


def test_a_wipe_while_the_connection_was_cut_is_seen(server: RedisServer, namespace: str, store: RedisStore) -> None:
    cut_connection(server, namespace)
    server.ask("FLUSHALL")
    with pytest.raises(FenceLost, match="token is gone"):
        see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    assert server.ask("KEYS", f"*{namespace}*") == []


# --- a cut in the middle of a write: whether it happened is open ---


def test_a_write_cut_before_its_end_arrived_is_sent_again(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.cut_before(EXEC)
    see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    assert proxy.is_done
    assert fence(server, namespace) == b"6"
    assert blocks(store, "0", "customer", 1) == [b"at 6"]


def test_a_write_that_happened_before_its_answer_was_cut_is_known_to_have_happened(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.cut_after(EXEC, FENCE_READ)
    see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    assert proxy.is_done
    store.write("0", (part("customer", {1: (3, b"7")}),), 7)
    assert blocks(store, "0", "customer", 1) == [b"at 7"]
    assert fence(server, namespace) == b"7"


def test_a_write_that_failed_in_part_before_its_answer_was_cut_is_noticed(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    spoil(server, namespace, 2)
    proxy.cut_after(EXEC, FENCE_READ)
    store.write("0", (part("customer", {2: (0, b"lost")}),), 6)
    with pytest.raises(LostBlock, match="WRONGTYPE"):
        store.settle("0")
    assert proxy.is_done


def test_a_write_still_on_its_way_when_it_is_repeated_executes_once(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.hold(EXEC)
    proxy.let_go_before(MULTI, FENCE_READ)  # after the new connection's fence was read, before its write
    see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    assert proxy.is_done
    assert NOTHING_EXECUTED not in proxy.late_answers[0]
    assert fence(server, namespace) == b"6"
    store.write("0", (part("customer", {1: (3, b"7")}),), 7)
    assert blocks(store, "0", "customer", 1) == [b"at 7"]


def test_a_write_that_arrives_after_its_repeat_executes_nothing(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.hold(EXEC)
    see_through(store, (part("customer", {1: (3, b"6")}),), 6)
    see_through(store, (part("customer", {1: (3, b"7")}),), 7)
    proxy.let_go(FENCE_READ)
    assert NOTHING_EXECUTED in proxy.late_answers[0]
    assert fence(server, namespace) == b"7"
    assert blocks(store, "0", "customer", 1) == [b"at 7"]


def test_a_write_that_arrives_after_another_owners_claim_executes_nothing(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.hold(EXEC)
    store.write("0", (part("customer", {1: (3, b"6")}),), 6)
    second = open_store()
    assert second.claim("0", {}).position == 5
    proxy.let_go(FENCE_READ)
    assert NOTHING_EXECUTED in proxy.late_answers[0]
    with pytest.raises(FenceLost, match="another owner"):
        store.settle("0")
    assert blocks(second, "0", "customer", 1) == [b"at 5"]


def test_a_claim_whose_answer_was_cut_still_finds_the_notes_of_the_owner_before(
    proxy: CuttingProxy, store: RedisStore, open_store: Open
) -> None:
    second = open_store(proxy.url)
    proxy.cut_after(b"HSET\r\n", b":")
    with pytest.raises(StoreDown):
        second.claim("0", {"producers": "q"})
    assert proxy.is_done
    assert second.claim("0", {"producers": "q"}) == Claim(5, {"producers": "p"})
    assert open_store().claim("0", {}) == Claim(5, {"producers": "q"})


def test_a_release_whose_answer_was_cut_is_a_release(server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open) -> None:
    store = begin(open_store(proxy.url))
    proxy.cut_after(EXEC, FENCE_READ[:3])
    store.release("0")
    assert proxy.is_done
    assert open_store().claim("0", {}) == Claim(5, {})


def test_a_drop_cut_short_is_finished_by_the_next_claim(server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open) -> None:
    store = open_store(proxy.url)
    store.claim("0", {})
    see_through(store, (whole("customer", dict.fromkeys(range(100), b"block")),), 5)
    proxy.cut_before(b"UNLINK\r\n")
    with pytest.raises((StoreDown, FenceLost)):
        store.drop("0")
    assert proxy.is_done
    assert len(server.ask("KEYS", f"*{namespace}*customer*")) == 100
    second = open_store()
    assert second.claim("0", {}) == Claim(None, {})
    assert server.ask("KEYS", f"*{namespace}*customer*") == []
    assert open_store().claim("0", {}) == Claim(None, {})


def test_a_claim_overtaken_while_it_finishes_a_drop_may_be_made_again(server: RedisServer, proxy: CuttingProxy, open_store: Open) -> None:
    store = begin(open_store(proxy.url))
    proxy.cut_before(b"UNLINK\r\n")
    with pytest.raises((StoreDown, FenceLost)):
        store.drop("0")
    proxy.do_before(b"UNLINK\r\n", lambda: open_store().claim("0", {}))
    with pytest.raises(StoreDown, match="another owner"):
        store.claim("0", {})
    assert proxy.is_done
    assert store.claim("0", {}).position is None


def test_a_drop_still_under_way_deletes_nothing_of_the_next_owners(
    server: RedisServer, namespace: str, proxy: CuttingProxy, open_store: Open
) -> None:
    store = begin(open_store(proxy.url))
    proxy.hold(b"UNLINK\r\n")
    with pytest.raises((StoreDown, FenceLost)):
        store.drop("0")
    second = begin(open_store())
    proxy.let_go(FENCE_READ)
    assert NOTHING_EXECUTED in proxy.late_answers[0]
    assert blocks(second, "0", "customer", 1) == [b"at 5"]


# --- a server that refuses ---


def spoil(server: RedisServer, namespace: str, key: int) -> None:
    """Put something that is no block where a key's block goes."""
    server.ask("RPUSH", f"{{{namespace}.0}}customer:{keys_of(key).tobytes().hex()}", "no block")


def test_a_block_that_cannot_be_written_voids_the_state(server: RedisServer, namespace: str, store: RedisStore, open_store: Open) -> None:
    spoil(server, namespace, 2)
    store.write("0", (part("customer", {1: (3, b"6"), 2: (0, b"lost"), 3: (0, b"x")}),), 6)
    with pytest.raises(LostBlock, match=r"moved to 6.*WRONGTYPE") as caught:
        store.settle("0")
    assert caught.value.shard == "0"
    with pytest.raises(LostBlock) as caught:
        blocks(store, "0", "customer", 1)
    assert caught.value.shard == "0"
    # Even if this owner dies here, the next one finds no state and rebuilds it.
    second = open_store()
    assert second.claim("0", {}).position is None
    assert blocks(second, "0", "customer", 1, 2, 3) == [b""] * 3
    assert server.ask("KEYS", f"*{namespace}*customer*") == []


def test_a_full_server_moves_nothing_and_takes_the_same_write_once_it_has_room(
    server: RedisServer, namespace: str, store: RedisStore
) -> None:
    used = int(server.ask("INFO", "memory")["used_memory"])
    with server.setting("maxmemory", str(used // 2)):
        store.write("0", (part("customer", {1: (3, b"6")}),), 6)
        for _ in range(3):
            with pytest.raises(StoreDown, match=r"refuses to move shard 0 to 6.*OOM"):
                store.settle("0")
        with pytest.raises(StoreDown, match="OOM"):
            store.write("0", (part("customer", {1: (3, b"7")}),), 7)
        with pytest.raises(StoreDown, match="OOM"):
            blocks(store, "0", "customer", 1)
        assert fence(server, namespace) == b"5"
    store.write("0", (part("customer", {1: (3, b"7")}),), 7)
    assert blocks(store, "0", "customer", 1) == [b"at 7"]
    assert fence(server, namespace) == b"7"


def test_a_full_server_refuses_a_claim_and_says_so(server: RedisServer, open_store: Open) -> None:
    with server.setting("maxmemory", "1"), pytest.raises(StoreDown, match="OOM"):
        open_store().claim("0", {})


def test_a_wrong_password_is_told_and_no_state_is_touched() -> None:
    with running("--requirepass", "right") as guarded:
        for url, words in ((f"unix://:wrong@{guarded.socket}", "invalid"), (guarded.url, "required|NOAUTH")):
            with pytest.raises(StoreDown, match=f"(?i){words}") as told:
                RedisStore(url, "n").claim("0", {})
            assert "wrong@" not in str(told.value)
        store = RedisStore(f"unix://:right@{guarded.socket}", "n")
        begin(store)
        assert blocks(store, "0", "customer", 1) == [b"at 5"]
        store.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="no address"):
        RedisStore("http://:secret@127.0.0.1", "n")


def test_a_replica_is_not_written_to(server: RedisServer, namespace: str, store: RedisStore) -> None:
    with server.setting("min-replicas-to-write", "1"):
        store.write("0", (part("customer", {1: (3, b"6")}),), 6)
        with pytest.raises(StoreDown, match="NOREPLICAS"):
            store.settle("0")
    server.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreDown, match="READONLY"):
            store.settle("0")
        with pytest.raises(StoreDown, match="replica"):
            store.check_server()
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
    store.settle("0")
    assert fence(server, namespace) == b"6"


# --- a server that is away ---


def test_a_server_killed_and_restarted_from_its_file_goes_on_where_it_stood() -> None:
    with running("--appendonly", "yes", "--appendfsync", "always") as kept:
        store = begin(RedisStore(kept.url, "n"))
        kept.kill()
        with pytest.raises(StoreDown):
            blocks(store, "0", "customer", 1)
        store.write("0", (part("customer", {1: (3, b"6")}),), 6)
        with pytest.raises(StoreDown):
            store.settle("0")
        kept.start()
        store.settle("0")
        assert blocks(store, "0", "customer", 1) == [b"at 6"]
        store.close()


def test_a_server_restarted_without_its_state_is_noticed_before_anything_is_written() -> None:
    with running() as forgetful:
        store = begin(RedisStore(forgetful.url, "n"))
        forgetful.kill()
        forgetful.start()
        store_of_read = RedisStore(forgetful.url, "n")
        with pytest.raises(FenceLost, match="token is gone"):
            see_through(store, (part("customer", {1: (3, b"6")}),), 6)
        assert forgetful.ask("DBSIZE") == 0
        assert store_of_read.claim("0", {}) == Claim(None, {})
        store.close()
        store_of_read.close()


def test_a_server_restarted_from_an_older_state_is_noticed() -> None:
    with running("--appendonly", "no") as older:
        store = begin(RedisStore(older.url, "n"))
        older.ask("SAVE")
        see_through(store, (part("customer", {1: (3, b"6")}),), 6)
        older.kill()
        older.start()
        with pytest.raises(FenceLost, match="stands at 5, not at 6"):
            blocks(store, "0", "customer", 1)
        assert store.claim("0", {}).position == 5
        store.close()


def test_a_server_that_does_not_answer_is_given_up_on_in_time_and_asked_again_later(namespace: str) -> None:
    with running() as slow:
        store = begin(RedisStore(slow.url, namespace, answer_timeout_seconds=0.2))
        with slow.held_still():
            store.write("0", (part("customer", {1: (3, b"6")}),), 6)
            begun = time.monotonic()
            with pytest.raises(StoreDown, match=r"within 0\.2 s"):
                store.settle("0")
            assert time.monotonic() - begun < 5
        store.settle("0")
        assert blocks(store, "0", "customer", 1) == [b"at 6"]
        assert fence(slow, namespace) == b"6"
        store.close()


def test_an_address_where_nobody_listens_is_a_store_that_is_down() -> None:
    for url in ("redis://127.0.0.1:1", "unix:///nowhere/redis.sock", "rediss://127.0.0.1:1"):
        with pytest.raises(StoreDown, match=r"redis at (127\.0\.0\.1:1|/nowhere/redis\.sock)"):
            RedisStore(url, "n", connect_timeout_seconds=1.0).claim("0", {})


def test_something_that_is_no_redis_is_told(proxy: CuttingProxy, open_store: Open) -> None:
    store = begin(open_store(proxy.url))
    proxy._plan.append((b"HMGET\r\n", lambda passage, _: passage.client.sendall(b"HTTP/1.1 400 Bad Request\r\n")))
    with pytest.raises(StoreDown, match="no answer: b'HTTP"):
        blocks(store, "0", "customer", 1)


# --- size ---


def test_fifty_thousand_writes_with_their_answers_pass_at_once(server: RedisServer, open_store: Open) -> None:
    store = open_store()
    store.claim("0", {})
    count, size_bytes = 50_000, 400
    keys = keys_of(*range(count))
    data = np.random.default_rng(1).integers(0, 256, count * size_bytes, dtype=np.uint8)
    ends = np.arange(1, count + 1) * size_bytes
    stretches = PackedBytes(data, ends - size_bytes, ends)
    store.write("0", (Writes("customer", keys, np.full(count, WHOLE_BLOCK, np.int64), stretches),), 1)
    store.write("0", (Writes("customer", keys, np.full(count, size_bytes, np.int64), stretches.take(slice(None, None, -1))),), 2)
    found = store.read("0", "customer", keys)
    assert list(found.ends - found.starts) == [2 * size_bytes] * count
    for row in (0, 1, 499, 500, 25_000, count - 1):
        assert found[row] == stretches[row] + stretches[count - 1 - row]


# --- what the server must be ---


def test_a_server_that_keeps_state_safely_has_no_warnings() -> None:
    with running("--appendonly", "yes") as kept:
        facts = RedisStore(kept.url, "n").check_server()
    assert (facts.warnings, facts.eviction, facts.appends) == ((), "noeviction", True)
    assert facts.used_bytes > 0


def test_a_server_that_keeps_nothing_on_disk_is_warned_of(server: RedisServer, open_store: Open) -> None:
    facts = open_store().check_server()
    assert len(facts.warnings) == 1
    assert "keeps nothing on disk" in facts.warnings[0]


def test_a_server_that_evicts_is_refused_with_the_way_out(server: RedisServer, open_store: Open) -> None:
    with (
        server.setting("maxmemory-policy", "allkeys-lru"),
        pytest.raises(SettingsError, match=r"allkeys-lru.*Wanted noeviction.*CONFIG SET"),
    ):
        open_store().check_server()


def test_a_user_without_transactions_is_refused(server: RedisServer, open_store: Open) -> None:
    server.ask("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-multi")
    try:
        with pytest.raises(SettingsError, match="MULTI"):
            open_store(f"unix://limited:secret@{server.socket}").check_server()
        server.ask("ACL", "SETUSER", "limited", "+multi", "-config")
        facts = open_store(f"unix://limited:secret@{server.socket}").check_server()
        assert facts.snapshots is None
        assert "does not say" in facts.warnings[0]
    finally:
        server.ask("ACL", "DELUSER", "limited")


def test_forgetting_a_shard_does_not_wait_for_a_call_under_way() -> None:
    with running() as slow, ThreadPoolExecutor(1) as pool:
        store = begin(RedisStore(slow.url, "n", answer_timeout_seconds=1.0))
        with slow.held_still():
            reading = pool.submit(blocks, store, "0", "customer", 1)
            while not reading.running():
                time.sleep(0.001)
            store.forget("0")
            assert reading.running()
            with pytest.raises((StoreDown, FenceLost)):
                reading.result()
        store.close()
