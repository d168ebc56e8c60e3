"""Events that come back: what is remembered is not remembered again, and no window holds it twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.blocks import records_of
from tests.oracles.play import SHARD, Event, assert_same_bits, columns_of, expected, play, play_labels
from tests.transforms.test_kernel import entities, logs
from transforms.aggregate import Count, RatioToMean, Sum
from transforms.entity import Entity
from transforms.fixed_point import FixedPoint
from transforms.keys import key_hashes, key_ids
from transforms.memory_store import MemoryStore
from transforms.window import Window


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_kernel_agrees_with_the_definition_of_a_log_with_events_that_came_back(data: st.DataObject) -> None:
    amount = FixedPoint("amount", 1, 5_000)
    events = data.draw(logs(5_000))
    for _ in range(data.draw(st.integers(0, 12)) if events else 0):
        first = data.draw(st.integers(0, len(events) - 1))
        again = events[first]
        refused = data.draw(st.booleans()) if again.first < 0 else again.refused
        stood = first if again.first < 0 else again.first
        events.append(replace(again, first=stood, refused=refused, usable=True, arrived=again.arrived + 20))
        events += [replace(each, t=each.t + 3) for each in events[-4:-1] if each.first < 0]
    entity = data.draw(entities(amount, "customer"))
    cuts = data.draw(st.lists(st.integers(0, len(events)), max_size=5))
    restarts = data.draw(st.lists(st.sampled_from([0, *cuts]), max_size=2))
    wanted, judged = expected(events, [entity])
    in_memory = play_labels(events, [entity], cuts, in_memory=True)
    for features, timing in (play(events, [entity], cuts, max_keys=2, restarts=restarts), (in_memory.features, in_memory.timing)):
        assert_same_bits(features, wanted, entity.feature_names)
        assert timing.tolist() == judged.tolist()


def test_an_event_that_came_back_sees_itself_once_and_is_remembered_once() -> None:
    """
    t         10      20      30      20 again    40
    count      1       2       3        2          4
    sum        1      11     111       11       1111
    """
    amount = FixedPoint("amount", 1, 5_000)
    entity = Entity("customer", "key", (Window(100),), (Count(), Sum(amount), RatioToMean(amount)), 50)
    events = [Event(1, 10, 1), Event(1, 20, 10), Event(1, 30, 100), Event(1, 20, 10, first=1), Event(1, 40, 1_000)]
    features, _ = play(events, [entity], [2])
    assert features[:, :2].tolist() == [[1, 1], [2, 11], [3, 111], [2, 11], [4, 1111]]
    assert features[3].tolist() == features[1].tolist()


def test_one_that_was_never_remembered_is_remembered_now() -> None:
    entity = Entity("customer", "key", (Window(100),), (Count(),), 50)
    events = [Event(1, 10, 1, usable=False), Event(1, 20, 1), Event(1, 10, 1, first=0), Event(1, 30, 1)]
    features, _ = play(events, [entity], [])
    assert features.ravel().tolist() == [0, 1, 1, 3]


def test_one_that_was_refused_is_not_counted_again_by_who_reads_the_log_by_laxer_rules() -> None:
    """
    t               10 refused    20    10 again    30
    as it was            -         1        1        3
    by laxer rules       1         2        1        3
    """
    entity = Entity("customer", "key", (Window(100),), (Count(),), 50)
    log = [Event(1, 10, 1, usable=False), Event(1, 20, 1), Event(1, 10, 1, first=0, refused=True), Event(1, 30, 1)]
    as_it_was, _ = play(log, [entity], [])
    assert as_it_was.ravel().tolist() == [0, 1, 1, 3]
    read_again, _ = play([replace(log[0], usable=True), *log[1:]], [entity], [])
    assert read_again.ravel().tolist() == [1, 2, 1, 3]


def test_one_that_was_refused_is_remembered_where_it_stands_now() -> None:
    entity = Entity("customer", "key", (Window(100),), (Count(),), 50)
    store = MemoryStore()
    play([Event(1, 10, 1, usable=False), Event(1, 20, 1), Event(1, 10, 1, first=0, refused=True)], [entity], [], store=store)
    (block,) = store.read(SHARD, "customer", key_hashes(key_ids(("key",), [columns_of([Event(1, 0, 0)], 1)["key"]])))
    assert [number for number, *_ in records_of(bytes(block))] == [3, 2]  # positions + 1
