"""Stages: which entities are computed where, in which order, and under which names."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DefinitionError
from streams.planning.stage import Stage, bytes_moved, computed_at_once, fed_by, hop_bytes, stages
from streams.settings import Settings
from tests.streams.staged import staged

KAFKA = Settings.model_validate({"kafka": {"instance": "w1"}}).kafka
ALL = "entities=(customer, device, terminal)"
UNLABELLED = {"    labels=labels,\n": "", "(Count(), LabelCount(), LabelRate())": "(Count(),)"}


def names(found: tuple[Stage, ...]) -> list[tuple[str, str, list[str]]]:
    return [(stage.name, stage.input.name, [entity.name for entity in stage.entities]) for stage in found]


# --- what is computed where ---


def test_over_one_partition_everything_without_labels_is_computed_at_once_under_todays_names(tmp_path: Path) -> None:
    bound = staged(tmp_path, UNLABELLED)
    (only,) = stages(bound, 1)
    assert names((only,)) == [("score", "payments", ["customer", "device", "terminal"])]
    assert (only.group(KAFKA), only.transactional_prefix(KAFKA)) == ("fraud", "fraud-score-w1")
    assert only.state_fingerprint == bound.state_fingerprint
    assert (only.is_alone, only.is_last, only.output) == (True, True, bound.output)


def test_over_several_partitions_each_further_key_costs_one_hop(tmp_path: Path) -> None:
    found = stages(staged(tmp_path, UNLABELLED), 4)
    assert names(found) == [
        ("by-customer", "payments", ["customer"]),
        ("by-terminal", "fraud.by-terminal", ["terminal"]),
        ("by-device", "fraud.by-device", ["device"]),
    ]
    assert [stage.is_last for stage in found] == [False, False, True]
    assert [stage.output.name for stage in found] == ["fraud.by-terminal", "fraud.by-device", "payments.scored"]
    assert {stage.input.partitions for stage in found[1:]} == {4}


def test_an_entity_that_counts_labels_has_a_log_of_its_own_even_over_one_partition(tmp_path: Path) -> None:
    found = stages(staged(tmp_path), 1)
    assert names(found) == [
        ("by-customer", "payments", ["customer", "device"]),
        ("by-terminal", "fraud.by-terminal", ["terminal"]),
        ("labels", "payment-labels", []),
    ]
    assert [stage.counts_labels for stage in found] == [False, True, False]


def test_an_entity_that_counts_labels_has_a_log_of_its_own_even_if_it_is_keyed_like_the_input(tmp_path: Path) -> None:
    counting = {"aggregates=(Count(), Mean(amount))": "aggregates=(Count(), LabelCount())"}
    fixed = {ALL: f'stages=("customer", "device", "terminal"),\n    {ALL}'}
    bound = staged(tmp_path, {**counting, **fixed}, {"customer_id": "int"})
    found = stages(bound, 4)
    assert [stage.name for stage in found] == ["first", "by-customer", "by-device", "by-terminal", "labels"]
    assert (found[0].entities, found[1].input.name, found[1].key) == ((), "fraud.by-customer", "customer_id")
    assert found[-1].feeds == ("by-customer", "by-terminal")
    assert [topic.name for topic in found[-1].outputs] == ["fraud.by-customer", "fraud.by-terminal"]


def test_entities_keyed_alike_share_a_hop_and_so_does_one_keyed_by_more(tmp_path: Path) -> None:
    more = (
        'pair = Entity("pair", key=("device_id", "merchant.city"), windows=(Window(days(1)),), aggregates=(Count(),))\n'
        'gadget = Entity("gadget", key="device_id", windows=(Window(days(1)),), aggregates=(Count(),))\n\npipeline = Pipeline('
    )
    bound = staged(
        tmp_path,
        {**UNLABELLED, "pipeline = Pipeline(": more, ALL: "entities=(customer, pair, device, gadget)", ", *terminal.feature_names": ""},
    )
    assert names(stages(bound, 2)) == [
        ("by-customer", "payments", ["customer"]),
        ("by-device", "fraud.by-device", ["device", "gadget", "pair"]),
    ]
    assert stages(bound, 2)[1].key_columns == ("device_id",)


def test_the_number_of_partitions_comes_from_the_definition_where_nobody_says_another(tmp_path: Path) -> None:
    four = {**UNLABELLED, 'event_id="payment_id")\nlabels': 'event_id="payment_id", partitions=4)\nlabels'}
    bound = staged(tmp_path, four)
    assert len(stages(bound)) == 3
    assert len(stages(bound, 1)) == 1
    assert [entity.name for entity in computed_at_once(bound, 4)] == ["customer"]


# --- in which order ---


def test_of_all_orders_the_one_that_moves_the_fewest_bytes_is_taken(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    here = computed_at_once(bound, 4)
    hops = [stage.entities for stage in stages(bound, 4) if stage.kind == "hop"]
    costs = {order: bytes_moved(bound, order, here) for order in permutations(hops)}
    assert costs[tuple(hops)] == min(costs.values())
    assert len(set(costs.values())) == 2  # or the choice would mean nothing


def test_an_entity_with_more_features_for_the_model_comes_later(tmp_path: Path) -> None:
    wide = {'key="device_id", windows=(Window(days(7)),)': 'key="device_id", windows=tuple(Window(days(n)) for n in range(1, 9))'}
    assert [stage.name for stage in stages(staged(tmp_path, wide), 4)][1:3] == ["by-terminal", "by-device"]
    assert [stage.name for stage in stages(staged(tmp_path), 4)][1:3] == ["by-device", "by-terminal"]


def test_a_hop_is_charged_for_what_later_stages_need_and_earlier_ones_made(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    customer, device, terminal = bound.pipeline.entities
    inputs = 4 + 8 + 4  # customer_id for the output's key; amount and rank
    first = hop_bytes(bound, [(device,), (terminal,)], [(customer,)])
    assert first == inputs + (12 + 1) + 12 + 8 * (2 + 1)  # device and country, terminal, two features of the customer, night
    assert hop_bytes(bound, [(terminal,)], [(customer,), (device,)]) == inputs + 12 + 8 * (4 + 1)


def test_the_user_may_fix_the_order(tmp_path: Path) -> None:
    bound = staged(tmp_path, {"entities=(": 'stages=("terminal", "device"),\n    entities=('})
    assert [stage.name for stage in stages(bound, 4)] == ["by-customer", "by-terminal", "by-device", "labels"]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ('("terminal",)', "stages leave out 'device', which needs one of its own"),
        ('("terminal", "devise")', "stages name 'devise', which is no entity; did you mean 'device'?"),
        ('("terminal", "terminal")', "stages name 'terminal' twice"),
        ('"terminal"', "stages should be a tuple of names, not 'terminal'"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(tmp_path: Path, order: str, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        stages(staged(tmp_path, {"entities=(": f"stages={order},\n    entities=("}), 4)
    assert words in str(caught.value)


# --- under which names ---


def test_no_two_stages_share_a_name_group_state_or_producer(tmp_path: Path) -> None:
    found = stages(staged(tmp_path), 4)
    assert [stage.group(KAFKA) for stage in found] == ["fraud.by-customer", "fraud.by-device", "fraud.by-terminal", "fraud.labels"]
    other = Settings.model_validate({"kafka": {"group": "blue"}}).kafka
    assert found[1].group(other) == "blue.by-device"
    for named in ({s.name for s in found}, {s.namespace for s in found}, {s.transactional_prefix(KAFKA) for s in found}):
        assert len(named) == len(found)
    assert [stage.index for stage in found] == [0, 1, 2, 3]


def test_a_stage_knows_who_reads_what_it_writes_and_labels_go_to_those_that_count_them(tmp_path: Path) -> None:
    found = stages(staged(tmp_path), 4)
    assert [[each.name for each in fed_by(stage, found)] for stage in found] == [["by-device"], ["by-terminal"], [], ["by-terminal"]]


def test_a_stages_retention_is_its_entities(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    assert {stage.name: stage.retention_ms for stage in stages(bound, 4)} == {
        "by-customer": bound.pipeline.entities[0].retention_ms,
        "by-device": bound.pipeline.entities[1].retention_ms,
        "by-terminal": bound.pipeline.entities[2].retention_ms,
        "labels": 0,
    }


# --- labels held against their schema ---


@pytest.mark.parametrize(
    ("changes", "label_fields", "words"),
    [
        ({"    labels=labels,\n": ""}, {}, "entity 'terminal' counts labels, and pipeline 'fraud' has none; add labels=Labels(...)"),
        ({"(Count(), LabelCount(), LabelRate())": "(Count(),)"}, {}, "reads labels from 'payment-labels', and no entity counts them"),
        ({}, {"merchant": None}, "entity 'terminal' counts labels, and its key 'merchant.terminal_id' is no field of the labels' schema"),
        (
            {"aggregates=(Count(), Mean(amount))": "aggregates=(LabelCount(),)"},
            {"customer_id": "string"},
            "key 'customer_id' of entity 'customer' is of type string, wanted int as in the event",
        ),
        ({'value="fraud"': 'value="frauds"'}, {}, "value='frauds' is no field of its schema; did you mean 'fraud'?"),
        ({}, {"fraud": "string"}, "value='fraud' is of type string, wanted boolean or int or long"),
        ({'time="label_time"': 'time="told_at"'}, {}, "time='told_at' is no field of its schema"),
        ({}, {"event_time": "long"}, "topic 'payment-labels': event_time='event_time' is of type long, wanted a long with logical type"),
        ({}, {"payment_id": "double"}, "topic 'payment-labels': key='payment_id' is of type double"),
        ({'key="payment_id", event_time': "event_time"}, {}, "labels: their topic 'payment-labels' needs key=..."),
        ({'Topic("payment-labels"': 'Topic("payments"'}, {}, "'payments' can't be its labels topic as well"),
        ({'Topic("payments.scored")': 'Topic("payment-labels.dlq")'}, {}, "'payment-labels.dlq' takes the dead letters of its labels"),
        ({'Topic("payment-labels"': 'Topic("fraud.by-label"'}, {}, "names that begin with 'fraud.by-' are internal topics'"),
        ({'Topic("payments.scored")': 'Topic("fraud.by-score")'}, {}, "names that begin with 'fraud.by-' are internal topics'"),
        ({'Topic("payments.scored")': 'Topic("payments.scored", partitions=0)'}, {}, "partitions 0, wanted 1 to 100000"),
        ({"labels=labels": "labels=customer"}, {}, "labels should be a Labels, not Entity"),
    ],
)
def test_labels_that_contradict_their_schema_or_the_entities_are_refused(
    tmp_path: Path, changes: dict[str, str], label_fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        staged(tmp_path, changes, label_fields)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_have_rules_and_the_pipelines_fingerprint_knows_them(tmp_path: Path) -> None:
    bound = staged(tmp_path, {}, {"fraud": "int"})
    assert bound.labels is not None
    assert [rule.name for rule in bound.labels.rules] == [
        "payment_id_given",
        "merchant_terminal_id_given",
        "event_time_given",
        "event_time_in_years_1_to_9999",
        "fraud_given",
        "fraud_is_0_or_1",
    ]
    assert bound.fingerprint != staged(tmp_path).fingerprint


def test_the_state_of_labels_is_another_under_another_event_id_or_another_label(tmp_path: Path) -> None:
    fields = {"disputed": "boolean", "other_id": "string"}
    before = staged(tmp_path, {}, fields)
    topic = 'schema="payment-labels.avsc", key="payment_id", event_time="event_time", event_id='
    for changes in ({'value="fraud"': 'value="disputed"'}, {f'{topic}"payment_id"': f'{topic}"other_id"'}):
        after = staged(tmp_path, changes, fields)
        same = [before.state_fingerprint_of([entity]) == after.state_fingerprint_of([entity]) for entity in before.pipeline.entities]
        assert same == [True, True, False]  # the terminal's
        assert before.describe_state(before.pipeline.entities) != after.describe_state(after.pipeline.entities)
        assert before.features.fingerprint != after.features.fingerprint


def test_a_key_that_may_be_absent_is_no_reason_to_refuse_an_event(tmp_path: Path) -> None:
    assert "device_id_given" not in [rule.name for rule in staged(tmp_path).rules]
    refusing = staged(tmp_path, {', missing_key="absent"': ""})
    assert "device_id_given" in [rule.name for rule in refusing.rules]
