"""A minute of the long run, with a new seed each time: ``MILLRACE_FAULT_SEED=N`` plays it again.

What is left of it is then spoiled by hand, in each way that the checker knows, and each is found where it was done.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.faults.pipelines import pipeline_of
from schemas.errors import MissingProgram
from streams.definition.load import load_bound
from streams.faults.checker import KINDS, Finding, check
from streams.faults.log import History, Record
from streams.faults.nursery import Nursery
from streams.faults.plain_reader import PlainReader
from streams.faults.play import Played, judge, play
from streams.hop import HopSchema
from streams.planning.stage import stages
from streams.scored_event import output_schema
from tests.conftest import ALLOW_NO_BROKER
from tests.live.scene import ROOT

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SECONDS = 35.0
RATE = 300.0
HEADER_BYTES = 5


@dataclass(frozen=True)
class Minute:
    """What was played, on which pipeline."""

    file: Path
    played: Played

    @property
    def history(self) -> History:
        assert self.played.history is not None, self.again
        return self.played.history

    @property
    def schemas(self) -> Path:
        return self.played.folder / "schemas"

    @property
    def again(self) -> str:
        """How to see it again, and what was seen."""
        seen = "\n".join(str(finding) for finding in self.played.findings)
        return f"MILLRACE_FAULT_SEED={self.played.seed} plays it again; logs are in {self.played.folder}\n{seen}"


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute]:
    seed = int(os.environ.get("MILLRACE_FAULT_SEED") or random.randrange(1_000_000))
    print(f"MILLRACE_FAULT_SEED={seed}")
    base = tmp_path_factory.mktemp("faults")
    _, file = pipeline_of(seed, base / "pipeline", "two_stages")
    try:
        nursery = Nursery(python_path=[str(ROOT)])
        try:
            yield Minute(file, play(file, None, base / f"round-{seed}", nursery, seed, RATE, SECONDS))
        finally:
            nursery.close()
    except MissingProgram as error:
        if os.environ.get(ALLOW_NO_BROKER):
            pytest.skip(str(error))
        raise


def test_nothing_is_lost_twice_or_wrong_under_a_minute_of_faults(minute: Minute) -> None:
    assert minute.played.findings == [], minute.again
    verdict = judge(minute.file, None, minute.history, minute.schemas)
    assert verdict.findings == [], "\n".join([minute.again, *map(str, verdict.findings[:10])])
    assert verdict.scored > 0 and verdict.refused > 0 and minute.played.hurts, minute.again


def test_the_checker_finds_each_thing_that_is_spoiled_where_it_was_done(minute: Minute) -> None:
    bound = load_bound(minute.file)
    reader = PlainReader(output_schema(bound).definition, "bare")
    outputs, history = list(minute.history.outputs), minute.history

    def source(record: Record) -> str:
        said = reader.body((record.value or b"")[HEADER_BYTES:])
        assert said is not None
        return f"{bound.input.name}[{said['source_partition']}]@{said['source_offset']}"

    lost, doubled, wrong, early = (outputs[n * len(outputs) // 5] for n in range(1, 5))
    lanes = lanes_of(minute)
    mates = [
        each for each in outputs if each.partition == early.partition and lanes[source(each)] == lanes[source(early)] and each != early
    ]
    first, second = sorted((early, mates[-1] if mates[-1].offset > early.offset else mates[0]))
    value = bytearray(wrong.value or b"")
    value[-1] ^= 1  # the last byte of the last feature
    changed = {
        lost: [],
        doubled: [doubled, doubled._replace(offset=doubled.offset + 10_000_000)],
        wrong: [wrong._replace(value=bytes(value))],
        first: [second._replace(offset=first.offset)],
        second: [first._replace(offset=second.offset)],
    }
    (stage,) = (name for name in history.committed if name == "by-terminal")
    partition, committed = next((p, at) for p, at in history.committed[stage].items() if at)
    spoiled = replace(
        history,
        outputs=sorted(each for record in outputs for each in changed.get(record, [record])),
        letters=history.letters[1:],
        committed={**history.committed, stage: {**history.committed[stage], partition: committed - 1}},
    )
    found = check(bound, spoiled, minute.schemas).findings
    at = {kind: {finding.at for finding in found if finding.kind == kind} for kind in KINDS}
    letter = dict(history.letters[0].headers)
    refused = f"{bound.input.name}[{_said(letter, 'partition')}]@{_said(letter, 'offset')}"
    assert at["lost"] == {source(lost), refused}
    assert at["duplicated"] == {source(doubled)}
    assert at["wrong"] == {source(wrong)}
    assert at["out_of_order"], found[:10]
    assert at["offset_behind"] <= {f"{bound.name}.by-terminal[{partition}]@{offset}" for offset in range(committed - 3, committed)}
    assert at["state_ahead"] == {f"{bound.name}.by-terminal[{partition}]"}, list(map(str, found[:10]))


def lanes_of(minute: Minute) -> dict[str, int]:
    """By event, the partition of the internal topic that it came through."""
    bound = load_bound(minute.file)
    stage = next(each for each in stages(bound, minute.history.partitions) if each.kind == "hop")
    reader = PlainReader(HopSchema.of(bound, stage).schema.definition, "bare")
    found = {}
    for record in minute.history.hops[stage.name]:
        said = reader.body(record.value or b"")
        if said is not None and said["kind"] == "event":
            found[f"{bound.input.name}[{said['source_partition']}]@{said['source_offset']}"] = record.partition
    return found


def _said(headers: dict[str, bytes | None], name: str) -> str:
    return (headers[f"__connect.errors.{name}"] or b"").decode()


def test_a_finding_says_what_and_where() -> None:
    assert (
        str(Finding("lost", "payments[0]@17", "is neither scored nor a dead letter"))
        == "lost payments[0]@17: is neither scored nor a dead letter"
    )
