"""Dead letters of every framing: judged, changed and told of with their headers, and written anew as their topic has it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schemas.avro import write_value
from schemas.dress import Dress
from schemas.framing import Header
from schemas.json_record import as_it_travels
from schemas.registry import FileRegistry
from streams.dead_letters import CONNECT, OURS
from streams.definition.inlet import Inlet
from streams.dlq.fixes import AsTheyAre, ColumnFix, EditedCopies, write_copies
from streams.dlq.letters import StoredLetter
from streams.dlq.second_look import Draft, SecondLook
from streams.dlq.view import told_value
from streams.producer.send_file import dress_of
from tests.streams.test_framings import NOBODY, PAYMENT, framed

FRAMINGS = ['"confluent"', '"confluent-header"', '"bare"', '"json"', "SingleObject()", 'CloudEvents(id="payment_id", time="event_time")']
AS_THEY_ARE = AsTheyAre(NOBODY.kafka)


@dataclass(frozen=True)
class Desk:
    """A topic of one framing, and everything to judge its letters by."""

    folder: Path
    inlet: Inlet
    registry: FileRegistry
    dress: Dress

    @property
    def look(self) -> SecondLook:
        return SecondLook(self.inlet, self.registry, self.dress, 1_000_000)

    def letter(self, reason: str = "currency_one_of") -> StoredLetter:
        avro = write_value(PAYMENT, as_it_travels(self.inlet.schema))
        value, headers = self.dress(avro, [("trace", b"7")])
        said = {CONNECT + "topic": "payments", CONNECT + "partition": "0", CONNECT + "offset": "7"}
        return StoredLetter((0, 3), b"C1", value, headers, {**said, OURS + "timestamp_ms": "1500", OURS + "reason": reason})

    def told(self, value: bytes | None, headers: Sequence[Header]) -> Any:
        return told_value(self.inlet, self.registry, value, headers)


@pytest.fixture(params=FRAMINGS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    bound = framed(tmp_path, request.param)
    (tmp_path / "1-payments-value.avsc").write_text(json.dumps(bound.schema.definition))
    inlet = Inlet.of(bound, labels=False)
    return Desk(tmp_path, inlet, FileRegistry(tmp_path), dress_of(inlet, NOBODY))


def test_a_letter_is_judged_and_told_of_by_its_value_and_its_headers(desk: Desk) -> None:
    letter = desk.letter()
    verdict = desk.look([Draft(letter, letter.key, letter.value)])[0]
    assert verdict.passes, verdict
    assert (verdict.draft.value, verdict.draft.given) == (letter.value, letter.given)
    assert desk.told(letter.value, letter.given) == PAYMENT


def test_what_a_function_changed_is_in_the_value_and_wherever_else_its_framing_says_it(desk: Desk) -> None:
    later = 'def later(events):\n    return {"event_time": events["event_time"] + 1000, "payment_id": ["P2"]}\n'
    (desk.folder / "fixes.py").write_text(later)
    fix = ColumnFix(f"{desk.folder}/fixes.py:later", desk.inlet, desk.registry, desk.dress, AS_THEY_ARE)
    draft = fix([desk.letter()])[0]
    assert (draft.trouble, draft.changed) == ("", True)
    assert draft.given[0] == ("trace", b"7")
    assert len(dict(draft.given)) == len(draft.given)
    assert desk.told(draft.value, draft.given) == {**PAYMENT, "event_time": 2_500, "payment_id": "P2"}
    assert desk.look([draft])[0].passes


def test_a_copy_is_the_event_and_goes_back_as_it_was_edited(desk: Desk) -> None:
    letter, out = desk.letter(), io.StringIO()
    write_copies(desk.look([Draft(letter, letter.key, letter.value)]), desk.inlet, desk.registry, out)
    copy = json.loads(out.getvalue())
    assert copy["value"] == PAYMENT
    copy["value"] = {**PAYMENT, "amount": 9.5}
    (desk.folder / "copies.jsonl").write_text(json.dumps(copy))
    draft = EditedCopies(desk.folder / "copies.jsonl", desk.inlet, desk.dress, AS_THEY_ARE)([letter])[0]
    assert draft.changed
    assert desk.told(draft.value, draft.given) == {**PAYMENT, "amount": 9.5}
    assert desk.look([draft])[0].passes


def test_what_was_refused_for_its_schema_is_written_anew_under_the_topics_own(desk: Desk) -> None:
    letter = desk.letter("unknown_schema")
    verdict = desk.look([Draft(letter, letter.key, letter.value)])[0]
    assert verdict.passes, verdict
    assert desk.told(verdict.draft.value, verdict.draft.given) == PAYMENT
    assert (verdict.draft.value, dict(verdict.draft.given)) == (letter.value, dict(letter.given)), "its own schema is the topic's"
