"""The plan: what it says with and without a broker, and where it disagrees with what is running."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DefinitionError, SettingsError, StateError, TopicError
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.kafka import AdminClient, NewTopic, TopicPartition, plain_consumer
from streams.planning.disagreement import check_running, disagreements
from streams.planning.plan import plan, plan_words, refuse
from streams.planning.stage import Stage, stages
from streams.planning.topics import Finding, existing
from streams.producer.send_file import send_file
from streams.recovery import CommitNote
from streams.settings import Settings
from tests.live.scene import wait_for
from tests.services import Broker
from tests.streams.command_line import Run, runner, written
from tests.streams.staged import staged, write_staged

NOBODY = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
UNLABELLED = {"    labels=labels,\n": "", "(Count(), LabelCount(), LabelRate())": "(Count(),)"}
COUNTS = {"payments": 4, "payment-labels": 4, "fraud.by-device": 4, "fraud.by-terminal": 4}


# --- without a broker ---


def planned(bound: Bound, settings: Settings = NOBODY, partitions: int | None = None) -> Any:
    return plan(bound, settings, partitions, answer_seconds=0.1)


def test_without_a_broker_the_plan_follows_from_the_definition_and_says_so(tmp_path: Path) -> None:
    facts = planned(staged(tmp_path), partitions=4)
    assert facts["broker"]["answers"] is False
    assert [stage["stage"] for stage in facts["stages"]] == ["by-customer", "by-device", "by-terminal", "labels"]
    assert [(topic["role"], topic["topic"], topic["there"]) for topic in facts["topics"]] == [
        ("input", "payments", "unknown"),
        ("output", "payments.scored", "unknown"),
        ("dead letters", "payments.dlq", "unknown"),
        ("internal", "fraud.by-device", "unknown"),
        ("internal", "fraud.by-terminal", "unknown"),
        ("labels", "payment-labels", "unknown"),
        ("dead letters", "payment-labels.dlq", "unknown"),
    ]
    assert (facts["missing"], facts["findings"]) == ([], [])
    refuse(facts)
    words = plan_words(facts)
    assert "the broker at 127.0.0.1:1 does not answer, so this follows from the definition alone" in words
    assert "stage by-terminal: fraud.by-terminal by merchant.terminal_id -> payments.scored (scored)" in words
    assert "64 bytes a key and about 19 an event that it remembers for 14.0 days" in words
    assert "planned for 4 partitions of the input, the number on the command line" in words


def test_state_is_what_the_blocks_take(tmp_path: Path) -> None:
    facts = planned(staged(tmp_path), partitions=4)
    taken = {e["name"]: (e["key_bytes"], e["event_bytes"]) for stage in facts["stages"] for e in stage["entities"]}
    # position, time and seal take 10; then the amount; then the hash of the country; then the event id's hash and the label
    assert taken == {"customer": (64, 10 + 3), "device": (64, 10 + 8), "terminal": (64, 10 + 9)}


def test_partitions_come_from_the_definition_else_one(tmp_path: Path) -> None:
    declared = {'event_id="payment_id")\nlabels': 'event_id="payment_id", partitions=8)\nlabels'}
    facts = planned(staged(tmp_path, declared))
    assert (facts["partitions"], facts["partitions_from"]) == (8, "in the definition")
    facts = planned(staged(tmp_path))
    assert (facts["partitions"], facts["partitions_from"]) == (1, "by default")
    with pytest.raises(TopicError, match="its partitions are 8 in the definition and 4 on the command line; wanted one number"):
        planned(staged(tmp_path, declared), partitions=4)


def test_several_stages_are_refused_under_at_least_once_and_one_is_not(tmp_path: Path) -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "worker": {"delivery": "at_least_once"}})
    with pytest.raises(SettingsError, match="is at_least_once, wanted exactly_once"):
        planned(staged(tmp_path), settings, 4)
    assert len(planned(staged(tmp_path, UNLABELLED), settings, 1)["stages"]) == 1


def test_labels_can_not_be_sent_to_a_pipeline_without_any(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="pipeline 'fraud' has no labels"):
        send_file(staged(tmp_path, UNLABELLED), NOBODY, tmp_path / "labels.jsonl", labels=True)


# --- against what groups have committed ---


def commit(stage: Stage | str, topic: str, state: str = "", partitions: int = 4) -> list[TopicPartition]:
    """What a worker's group has committed in four partitions."""
    note = CommitNote(stage.state_fingerprint if isinstance(stage, Stage) else state, {}, "p", partitions).dump()
    return [TopicPartition(topic, partition, 10, note) for partition in range(4)]


def against(bound: Bound, commits: Mapping[str, Sequence[TopicPartition]], counts: Mapping[str, int] = COUNTS) -> list[Finding]:
    return disagreements(bound, stages(bound, 4), NOBODY.kafka, commits, counts)


def all_running(bound: Bound) -> dict[str, Sequence[TopicPartition]]:
    return {stage.group(NOBODY.kafka): commit(stage, stage.input.name) for stage in stages(bound, 4)}


def test_a_plan_agrees_with_its_own_groups(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    assert against(bound, all_running(bound)) == []
    assert against(bound, {}) == []


@pytest.mark.parametrize(
    ("group", "topic", "state", "partitions", "where", "words"),
    [
        ("fraud.by-device", "fraud.by-device", "0123456789abcdef", 4, "group fraud.by-device", "the definition of device changed"),
        ("fraud.by-device", "fraud.by-device", None, 2, "topic fraud.by-device", "has 4 partitions, and its state was made of 2"),
        (
            "fraud.by-customer",
            "orders",
            None,
            4,
            "group fraud.by-customer",
            "it has read orders, and stage by-customer is to read payments",
        ),
        ("fraud", "payments", "x", 4, "group fraud", "the plan has no such stage"),
        ("fraud.by-account", "fraud.by-account", "x", 4, "group fraud.by-account", "the plan has no such stage"),
        ("blue.by-device", "fraud.by-device", "x", 4, "topic fraud.by-device", "group blue.by-device reads it as well"),
    ],
)
def test_what_another_plan_or_pipeline_has_left_is_found_and_refused(
    tmp_path: Path, group: str, topic: str, state: str | None, partitions: int, where: str, words: str
) -> None:
    bound = staged(tmp_path)
    stage = next((each for each in stages(bound, 4) if each.group(NOBODY.kafka) == group), None)
    found = commit(stage, topic, partitions=partitions) if state is None and stage else commit("", topic, state or "", partitions)
    (finding,) = against(bound, {**all_running(bound), group: found})
    assert (finding.topic, finding.fatal) == (where, True)
    assert words in finding.words
    assert "\n" not in finding.words
    with pytest.raises(StateError, match=where):
        check_running([finding], "refuse")


def test_an_internal_topic_that_is_gone_after_it_was_read_is_no_missing_topic(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    counts = {name: count for name, count in COUNTS.items() if name != "fraud.by-device"}
    running = {group: commits for group, commits in all_running(bound).items() if group != "fraud.by-device"}  # the broker forgets them
    (finding,) = against(bound, running, counts)
    assert (finding.topic, finding.fatal) == ("topic fraud.by-device", True)
    assert "it is gone, and stage by-customer has written to it (group fraud.by-customer)" in finding.words
    assert "give the pipeline a new name" in finding.words
    assert against(bound, {}, counts) == []


def test_a_rebuild_puts_a_changed_definition_right_and_nothing_else(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    changed = against(bound, {**all_running(bound), "fraud.by-device": commit("", "fraud.by-device", "0123456789abcdef")})
    assert check_running(changed, "rebuild") == tuple(changed)
    foreign = against(bound, {**all_running(bound), "blue.by-device": commit("", "fraud.by-device", "x")})
    with pytest.raises(StateError, match="where each would count twice"):
        check_running(foreign, "rebuild")


def test_a_pipeline_of_one_stage_builds_a_changed_state_anew_by_itself(tmp_path: Path) -> None:
    bound = staged(tmp_path, UNLABELLED)
    (only,) = stages(bound, 1)
    found = disagreements(bound, (only,), NOBODY.kafka, {"fraud": commit("", "payments", "0123456789abcdef")}, {"payments": 4})
    assert [finding.fatal for finding in found] == [False]
    assert "the next start builds it anew" in found[0].words
    assert check_running(found, "refuse") == tuple(found)


def test_groups_that_are_named_alike_but_read_something_else_are_nobodys_business(tmp_path: Path) -> None:
    bound = staged(tmp_path)
    others = {"fraud.by-x": commit("", "orders", "x"), "frauds": commit("", "payments", "x"), "fraud-by-x": commit("", "payments", "x")}
    assert against(bound, {**all_running(bound), **others}) == []


# --- on the broker ---


@pytest.fixture
def millrace(broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command line in a folder of its own, on the test run's broker."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    return runner(tmp_path, monkeypatch, capsys)


def named(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A pipeline file whose names no other test has, and what it changed."""
    name = f"p{uuid.uuid4().hex[:8]}"
    changes = {
        'Pipeline(\n    "fraud"': f'Pipeline(\n    "{name}"',
        'Topic("payments"': f'Topic("{name}-payments"',
        'Topic("payment-labels"': f'Topic("{name}-labels"',
        'Topic("payments.scored"': f'Topic("{name}.scored"',
    }
    return write_staged(tmp_path, changes), changes


def commit_as_worker(broker: Broker, stage: Stage, group: str | None = None, **note: Any) -> None:
    """Commit as a stage's worker would."""
    settings = broker.settings
    reader = plain_consumer(settings, group or stage.group(settings))
    text = CommitNote(**{"state": stage.state_fingerprint, "pipeline": "p", "partitions": 3, **note}).dump()
    try:
        reader.commit(offsets=[TopicPartition(stage.input.name, partition, 0, text) for partition in range(3)], asynchronous=False)
    finally:
        reader.close()


def test_what_create_makes_is_what_plan_wants_and_each_disagreement_is_refused(millrace: Run, broker: Broker, tmp_path: Path) -> None:
    file, changes = named(tmp_path)
    bound = load_bound(file)

    before = millrace("plan", file, "--partitions", "3", "--json").facts
    assert before["broker"]["answers"] is True
    assert before["missing"] == [topic["topic"] for topic in before["topics"]]
    assert len(before["missing"]) == 7
    made = millrace("topics", "create", file, "--partitions", "3", "--json").facts
    assert [(topic["role"], topic["topic"]) for topic in made["topics"]] == [(each["role"], each["topic"]) for each in before["topics"]]
    assert made["findings"] == []
    assert {schema["subject"] for schema in made["schemas"]} == {f"{bound.name}{end}-value" for end in ("-payments", "-labels", ".scored")}

    after = millrace("plan", file, "--json").facts
    assert (after["missing"], after["findings"], after["partitions"], after["partitions_from"]) == ([], [], 3, "on the broker")
    assert {topic["there"]["partitions"] for topic in after["topics"]} == {3}

    lags = millrace("status", file, "--json").facts["stages"]
    assert [(lag["stage"], len(lag["partitions"])) for lag in lags] == [(stage["stage"], 3) for stage in after["stages"]]

    told = [{"payment_id": f"p{n}", "event_time": 1_700_000_000_000, "merchant": {"terminal_id": "t"}, "fraud": n > 0} for n in range(3)]
    file_of_labels = written(tmp_path / "labels.jsonl", *({**each, "label_time": 1_700_600_000_000} for each in told), {"payment_id": "p4"})
    sent = millrace("send", file, file_of_labels, "--labels", "--json").facts
    assert (sent["topic"], sent["sent"], sent["not_sent"]) == (f"{bound.name}-labels", 3, 1)

    customer, device, terminal, labels = stages(bound, 3)
    for stage in (customer, device, terminal, labels):
        commit_as_worker(broker, stage)
    assert millrace("plan", file, "--json").facts["findings"] == []

    # another number of partitions than the input has, asked for and declared
    done = millrace("plan", file, "--partitions", "5")
    assert done.code == 14
    assert "its partitions are 3 on the broker and 5 on the command line" in done.err

    # another definition of an entity
    write_staged(tmp_path, {**changes, 'key="device_id", windows=(Window(days(7)),)': 'key="device_id", windows=(Window(days(9)),)'})
    done = millrace("plan", file)
    assert done.code == 15
    assert f"WRONG  group {bound.name}.by-device: its state is {device.state_fingerprint}" in done.out
    assert "--on-conflict rebuild" in done.err
    assert done.err.count("\n") == 1

    # an entity less: its stage's group goes on
    write_staged(tmp_path, {**changes, "(customer, device, terminal)": "(customer, terminal)", "*device.feature_names, ": ""})
    done = millrace("plan", file)
    assert done.code == 15
    assert f"group {bound.name}.by-device: it has read {bound.name}.by-device, and the plan has no such stage" in done.err

    # a state that was made of other partitions
    write_staged(tmp_path, changes)
    commit_as_worker(broker, terminal, partitions=2)
    done = millrace("plan", file)
    assert done.code == 15
    assert f"topic {terminal.input.name}: it has 3 partitions, and its state was made of 2" in done.err
    commit_as_worker(broker, terminal)

    # a second pipeline on the same internal topic
    commit_as_worker(broker, device, group=f"blue-{bound.name}")
    done = millrace("plan", file)
    assert f"group blue-{bound.name} reads it as well" in done.err
    client = broker.admin
    client.delete_consumer_groups([f"blue-{bound.name}"])[f"blue-{bound.name}"].result()

    # an internal topic that was made for another plan
    made_anew(client, device.input.name, 2)
    done = millrace("plan", file)
    assert done.code == 14
    assert f"topic {device.input.name}: it has 2 partitions and {bound.input.name} 3" in done.err

    # one that is gone
    made_anew(client, device.input.name, 0)
    done = millrace("plan", file)
    assert done.code == 15
    assert f"missing on the broker: {device.input.name}; `millrace topics create` makes them" in done.out
    assert f"topic {device.input.name}: it is gone, and stage by-customer has written to it" in done.err


def made_anew(client: AdminClient, topic: str, partitions: int) -> None:
    """Delete a topic, and make it with so many partitions; with none, leave it at that."""
    client.delete_topics([topic], operation_timeout=10)[topic].result()
    wait_for("the topic to be gone", lambda: not existing(client, [topic]))
    if partitions:
        client.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=10)[topic].result()
        wait_for("the topic to be there", lambda: existing(client, [topic]))
