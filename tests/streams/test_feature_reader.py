"""Other services read what workers keep: numbers of one position, whatever is written meanwhile, and clear words where there are none."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from millrace import FeatureReader
from schemas.columns import Columns, PackedBytes
from schemas.errors import SettingsError, StateError, StoreDown, UnknownKey
from streams.definition.bound import Bound
from streams.partitioner import partitions_of
from streams.planning.stage import Stage, stages
from streams.settings import Settings
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.streams.payment import bound_pipeline
from transforms.redis_store import RedisStore
from transforms.shard import ShardState
from transforms.window import days, hours

ROOT = Path(__file__).parents[2]
START_MS = 1_700_000_000_000
NOW_MS = START_MS + hours(1)
ENTITIES = {
    "entities=(customer,)": (
        "entities=(customer, Entity('both', key=('customer_id', 'terminal_id'), windows=(Window(days(1)),), aggregates=(Count(),)), "
        "Entity('store', key='store_id', windows=(Window(days(1)),), aggregates=(Count(),)))"
    )
}
FIELDS = {"store_id": "long"}


class Keeper:
    """A worker's end of the state: takes events and writes blocks."""

    def __init__(self, bound: Bound, url: str, stage: Stage, shard: int = 0) -> None:
        self.shard = str(shard)
        self.store = RedisStore(url, stage.namespace)
        self.store.claim(self.shard, {})
        self._state = ShardState(self.shard, stage.entities, self.store, bound.event_time.column, 1_000)
        self.position = 0

    def take(self, customers: Sequence[str], times: Sequence[int], terminals: Sequence[str] | None = None) -> None:
        """Events in the order of the log, and the state after them in Redis."""
        n = len(customers)
        columns: Columns = {
            "customer_id": PackedBytes.pack([each.encode() for each in customers]),
            "terminal_id": PackedBytes.pack([each.encode() for each in terminals or ["T"] * n]),
            "store_id": np.arange(n, dtype=np.int64) - 1,
            "event_time": np.array(times, np.int64),
            "amount": np.ones(n),
        }
        done = self._state.advance(columns, np.ones(n, np.bool_), np.arange(self.position, self.position + n))
        self.position += n
        self.store.write(self.shard, done.writes, self.position)
        self.store.settle(self.shard)


def settings_of(url: str) -> Settings:
    """Of a Redis; there is no broker."""
    return Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "redis": {"url": url, "answer_timeout_seconds": 0.5}})


@pytest.fixture
def bound(tmp_path: Path, namespace: str) -> Bound:
    name = namespace.replace(".", "_")
    return bound_pipeline(tmp_path, {'"payments",\n    input': f'"{name}",\n    input', **ENTITIES}, FIELDS)


@pytest.fixture
def keeper(bound: Bound, server: RedisServer) -> Iterator[Keeper]:
    (stage,) = stages(bound, 1)
    made = Keeper(bound, server.url, stage)
    yield made
    made.store.close()


@pytest.fixture
def reader(bound: Bound, server: RedisServer) -> Iterator[FeatureReader]:
    with FeatureReader(bound, settings_of(server.url), partitions=1, now_ms=lambda: NOW_MS) as opened:
        yield opened


def test_a_key_is_what_its_events_say_now_and_at_another_time(keeper: Keeper, reader: FeatureReader) -> None:
    keeper.take(["C1", "C1", "C2", "C1"], [START_MS, START_MS + 60_000, START_MS, START_MS + 30_000], ["T1", "T1", "T1", "T2"])
    found = reader.get("customer", "C1")
    assert found.features == {"customer_count_1d": 3.0, "customer_amount_mean_1d": 1.0}
    assert (found.events, found.last_event_ms, found.age_ms) == (3, START_MS + 60_000, hours(1) - 60_000)
    assert (found.asked_ms, found.evaluated_ms, found.position, found.partition, found.is_known) == (NOW_MS, NOW_MS, 4, 0, True)
    later = reader.get("customer", "C1", at=START_MS + days(1) + 30_000)
    assert later.features["customer_count_1d"] == 1.0
    assert reader.get("customer", "C1", at=datetime.fromtimestamp(START_MS / 1_000 + 45, UTC)).features["customer_count_1d"] == 2.0
    early = reader.get("customer", "C1", at=START_MS - days(9))
    assert early.evaluated_ms == START_MS + 60_000 - hours(1), "no further back than the lateness"

    both = reader.get_many("both", [("C1", "T2"), ("C1", "T1"), ("C1", "T2")])
    assert [each.features["both_count_1d"] for each in both] == [1.0, 2.0, 1.0]
    assert [each.key for each in both] == [("C1", "T2"), ("C1", "T1"), ("C1", "T2")]
    assert reader.get("store", -1).features == reader.get("store", "2").features == {"store_count_1d": 1.0}
    assert [each.features["store_count_1d"] for each in reader.get_many("store", [2, "2", 1])] == [1.0, 1.0, 1.0]
    assert reader.get_many("customer", []) == []
    assert reader.entities == ("customer", "both", "store")


def test_what_there_is_not_is_said(keeper: Keeper, reader: FeatureReader, bound: Bound, server: RedisServer) -> None:
    keeper.take(["C1"], [START_MS])
    with pytest.raises(UnknownKey, match=r"no event of customer key 'C9' is remembered in test_\w+\.score\.[0-9a-f]{8}$"):
        reader.get("customer", "C9")
    with pytest.raises(UnknownKey, match="2 keys 'C8', 'C9'"):
        reader.get_many("customer", ["C8", "C1", "C9"])
    new = reader.get("customer", "C9", unknown="empty")
    assert (new.is_known, new.events, new.last_event_ms, new.age_ms) == (False, 0, None, None)
    assert new.features == {"customer_count_1d": 0.0, "customer_amount_mean_1d": 0.0}
    questions: list[tuple[Callable[[], object], str]] = [
        (lambda: reader.get("custmer", "C1"), "has no entity 'custmer'; did you mean 'customer'"),
        (lambda: reader.get("both", "C1"), "has 1 parts, wanted customer_id, terminal_id"),
        (lambda: reader.get("store", "four"), "store's store_id is of type long: invalid literal"),
        (lambda: reader.get("customer", 4), "customer's customer_id is of type string: 4 is no text"),
        (lambda: reader.get("customer", "C1", at=datetime(2026, 1, 1)), "has no time zone"),
    ]
    for ask, words in questions:
        with pytest.raises(SettingsError, match=words):
            ask()
    with (
        FeatureReader(bound, settings_of("redis://127.0.0.1:1"), partitions=1) as nowhere,
        pytest.raises(StoreDown, match=r"127\.0\.0\.1:1"),
    ):
        nowhere.get("customer", "C1")


def test_a_state_that_is_not_there_or_not_of_this_version_is_told_apart(
    bound: Bound, keeper: Keeper, reader: FeatureReader, server: RedisServer
) -> None:
    (stage,) = stages(bound, 1)
    keeper.take(["C1"], [START_MS])
    server.ask("HDEL", f"{{{stage.namespace}.0}}o", "o", "e")
    with pytest.raises(StateError, match=r"no state of payments\[0\] in namespace .* no worker of this definition"):
        reader.get("customer", "C1")
    server.ask("HSET", f"{{{stage.namespace}.0}}o", "d", "1", "e", "x")
    with pytest.raises(StoreDown, match="is being built anew"):
        reader.get("customer", "C1")
    server.ask("HDEL", f"{{{stage.namespace}.0}}o", "d")
    assert reader.get("customer", "C1").position == 0, "a worker has come, and put nothing out yet"
    (block,) = list(server.ask("KEYS", f"{{{stage.namespace}.0}}customer:*"))
    server.ask("SETRANGE", block, 7, b"\xff")
    with pytest.raises(StateError, match=r"another format: it begins with .*, in .*another version of Millrace wrote it"):
        reader.get("customer", "C1")
    with pytest.raises(UnknownKey):
        reader.get("customer", "C2")


def test_a_read_is_of_one_position_while_a_worker_writes(keeper: Keeper, reader: FeatureReader) -> None:
    names = ["C0", "C1", "C2"]
    random = np.random.default_rng(0)
    # Late ones make whole blocks move.
    log = [(names[random.integers(3)], START_MS + n * 1_000 - int(random.integers(0, 2)) * 500_000) for n in range(20_000)]
    keeper.take([name for name, _ in log[:3]], [time for _, time in log[:3]])
    counts = {name: np.cumsum([0, *(each == name for each, _ in log)]) for name in names}
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set() and keeper.position < len(log) - 40:
            some = log[keeper.position : keeper.position + int(random.integers(1, 40))]
            keeper.take([name for name, _ in some], [time for _, time in some])

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[int] = set()
    try:
        while writer.is_alive() and len(seen) < 100:
            found = reader.get_many("customer", names, at=START_MS + hours(10), unknown="empty")
            positions = {each.position for each in found}
            assert len(positions) == 1
            (position,) = positions
            seen.add(position)
            for each in found:
                (name,) = each.key
                assert each.features["customer_count_1d"] == counts[str(name)][position], (name, position)
    finally:
        enough.set()
        writer.join()
    assert len(seen) > 20, "the worker should have gone on meanwhile"


def test_a_reader_goes_on_when_its_connection_is_cut(keeper: Keeper, reader: FeatureReader, server: RedisServer) -> None:
    keeper.take(["C1"], [START_MS])
    before = reader.get("customer", "C1")
    for line in str(server.ask("CLIENT", "LIST"), "utf-8").splitlines():
        if ".reader " in line:
            server.ask("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    assert reader.get("customer", "C1") == before


def test_each_key_is_read_in_its_partition_wherever_its_producer_put_it(bound: Bound, server: RedisServer) -> None:
    (stage, *_) = stages(bound, 4)
    keepers = [Keeper(bound, server.url, stage, shard) for shard in range(4)]
    names = [f"C{n}" for n in range(40)]
    places = partitions_of(PackedBytes.pack([name.encode() for name in names]), 4).tolist()
    assert set(places) == {0, 1, 2, 3}
    places[7] = (places[7] + 1) % 4  # another producer's partitioner
    for name, place in zip(names, places, strict=True):
        keepers[place].take([name], [START_MS])
    with FeatureReader(bound, settings_of(server.url), partitions=4, now_ms=lambda: NOW_MS) as reader:
        found = reader.get_many("customer", names)
        assert [each.partition for each in found] == places
        assert [each.position for each in found] == [keepers[place].position for place in places]
        assert all(each.features["customer_count_1d"] == 1.0 for each in found)
        with pytest.raises(UnknownKey, match="'nobody'"):
            reader.get_many("customer", ["C1", "nobody"])
        assert reader.stage_of("store").name == "by-store"
    for each in keepers:
        each.store.close()


def test_a_cluster_is_read_node_by_node(bound: Bound, cluster: RedisCluster) -> None:
    (stage, *_) = stages(bound, 4)
    keepers = [Keeper(bound, cluster.url, stage, shard) for shard in range(4)]
    names = [f"C{n}" for n in range(20)]
    for name, place in zip(names, partitions_of(PackedBytes.pack([name.encode() for name in names]), 4).tolist(), strict=True):
        keepers[place].take([name], [START_MS])
    with FeatureReader(bound, settings_of(cluster.url), partitions=4, now_ms=lambda: NOW_MS) as reader:
        assert [each.features["customer_count_1d"] for each in reader.get_many("customer", names)] == [1.0] * 20
    for each in keepers:
        each.store.close()


def test_reading_features_needs_neither_tables_nor_pages() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['jinja2'] = None; "
        "import streams.commands.online, streams.online.feature_reader, streams.online.lookup, streams.explain.moment"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
