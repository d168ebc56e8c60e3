"""Labels through every store: what was set is read back, whatever left memory or was lost on the way."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contracts.conftest import Owners
from tests.oracles.labelled_logs import entities, labelled_logs
from tests.oracles.play import Event, assert_same, expected_labels, play_labels
from transforms.aggregate import Count, LabelCount, LabelRate
from transforms.entity import Entity
from transforms.window import Window

RISK = Entity("shop", "key", (Window(10, delay_ms=7),), (Count(), LabelCount(), LabelRate()), lateness_ms=5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_labels_agree_with_the_definition_over_any_store(states: Callable[[], Owners], data: st.DataObject) -> None:
    asked = data.draw(entities())
    log = data.draw(labelled_logs(asked))
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=8))
    restarts = data.draw(st.lists(st.sampled_from([0, *cuts]), max_size=3))
    store = states()()
    # One key at a time is kept in memory: every other is read from the store, where its labels must be.
    found = play_labels(log, asked, cuts, max_keys=1, restarts=restarts, held=data.draw(st.integers(0, 2)), store=store)
    store.close()
    assert_same(found, expected_labels(log, asked), [name for entity in asked for name in entity.feature_names])


def test_a_label_and_a_new_event_of_one_key_in_one_write(states: Callable[[], Owners]) -> None:
    log = [*[Event(1, t, 0, id=t) for t in range(4)], Event(1, 1, 0, id=1, label=1), Event(1, 4, 0, id=4), Event(1, 2, 0, id=2, label=1)]
    log += [Event(1, 9, 0, id=9), Event(1, 2, 0, id=2, label=0), Event(1, 9, 0, id=10)]
    found = play_labels(log, (RISK,), (4, 8, 9), restarts=(4, 8, 9), store=states()())
    assert found.features[[7, 9]].tolist() == [[3.0, 2.0, 2.0 / 3.0], [3.0, 1.0, 1.0 / 3.0]]
