"""Letters as they lie in their topic: what they say, which are meant, what they carry when they come back, and their receipts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import SettingsError
from streams.come_back import first_offset, passed_on
from streams.dead_letters import Header
from streams.definition.inlet import Inlet
from streams.definition.load import load_bound
from streams.dlq.letters import Choice, Place, StoredLetter, moment_ms, place_of
from streams.dlq.receipts import Ledger, Receipt, Run
from streams.dlq.returning import returning_headers
from streams.dlq.second_look import Draft, Verdict
from streams.pack import first_offsets
from transforms.kernel import REFUSED

RUN = Run("r1", "replayed", "me", "why not")


class Stored:
    """A record as the client gives it."""

    def __init__(self, headers: Sequence[Header], partition: int = 1, offset: int = 7) -> None:
        self._headers, self._partition, self._offset = list(headers), partition, offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "payments"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return b"k"

    def value(self) -> bytes | None:
        return b"v"

    def headers(self) -> list[Header]:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, 2


def ours(offset: int = 42, **changes: Any) -> list[Header]:
    """What Millrace adds to a letter."""
    said = {
        "__connect.errors.topic": "payments",
        "__connect.errors.partition": 1,
        "__connect.errors.offset": offset,
        "__connect.errors.exception.message": "payments[1]@42 refused by decode: truncated: amount, at byte 9 of 30: it ends there",
        "millrace.reason": "truncated",
        "millrace.stage": "decode",
        "millrace.schema_id": 3,
        "millrace.first_seen_ms": 1_000,
        "millrace.counted": "false",
    } | {f"millrace.{name}": value for name, value in changes.items()}
    return [(name, str(value).encode()) for name, value in said.items()]


def letter(*given: Header, **changes: Any) -> StoredLetter:
    return StoredLetter.read(Stored([*given, *ours(**changes)]))


@pytest.fixture(scope="module")
def inlet() -> Inlet:
    return Inlet.of(load_bound(Path(__file__).parents[2] / "examples" / "card_fraud" / "pipeline.py"), labels=False)


def test_a_records_own_headers_are_told_from_those_of_its_letter_even_if_they_have_the_same_names() -> None:
    own: list[Header] = [("trace", None), ("__connect.errors.topic", b"elsewhere"), ("__connect.errors.offset", b"9")]
    found = letter(*own)
    assert found.given == tuple(own)
    assert str(found.source) == "payments[1]@42"
    foreign = StoredLetter.read(Stored([("trace", b"7")]))
    assert (foreign.source, foreign.reason, foreign.given) == (None, "unknown", (("trace", b"7"),))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), "abc"),
        (Choice(reasons=frozenset({"truncated", "key_mismatch"})), "ac"),
        (Choice(rules=frozenset({"amount_in_range"})), "b"),
        (Choice(rules=frozenset({"truncated"})), ""),
        (Choice(fields=frozenset({"amount"})), "ab"),
        (Choice(fields=frozenset({"customer_id"})), "c"),
        (Choice(schema_ids=frozenset({4})), "c"),
        (Choice(since_ms=2_000, until_ms=3_000), "b"),
        (Choice(places=frozenset({(1, 7)}), schema_ids=frozenset({3})), "ab"),
        (Choice(places=frozenset({(0, 7)})), ""),
    ],
)
def test_a_choice_takes_what_fits_every_word_of_it(inlet: Inlet, choice: Choice, wanted: str) -> None:
    letters = {
        "a": letter(),
        "b": letter(reason="amount_in_range", stage="rule", first_seen_ms=2_000),
        "c": letter(reason="key_mismatch", stage="rule", schema_id=4, first_seen_ms=3_000),
    }
    assert "".join(name for name, each in letters.items() if choice.takes(each, inlet)) == wanted


def test_places_and_times_are_read_or_refused_in_words() -> None:
    assert place_of("3@17") == place_of("payments.dlq[3]@17") == (3, 17)
    assert moment_ms("1970-01-01T00:00:01") == moment_ms("1970-01-01T02:00:01+02:00") == 1_000
    for bad in (lambda: place_of("3"), lambda: moment_ms("yesterday")):
        with pytest.raises(SettingsError, match="; wanted "):
            bad()


def returning(found: StoredLetter, **counted_at: Place) -> list[Header]:
    return list(returning_headers(Verdict(Draft(found, found.key, found.value), counted_at=counted_at), RUN))


def test_a_record_that_comes_back_again_keeps_its_first_address() -> None:
    first = returning(letter(("trace", b"7")))
    assert dict(first)["trace"] == b"7"
    assert dict(first)["millrace.replay.offset"] == b"42"
    again = dict(returning(letter(*first, offset=99)))
    assert (again["millrace.replay.offset"], again["millrace.replay.attempt"]) == (b"42", b"3")
    assert len(returning(letter(*first, offset=99))) == len(first)


def test_what_was_counted_stays_counted_under_the_offset_it_was_counted_at() -> None:
    refused_by_a_rule = returning(letter(offset=42))
    assert first_offset("payments", 1, refused_by_a_rule) == REFUSED - 42
    then_by_the_model = returning(letter(*refused_by_a_rule, offset=50, stage="model", counted="true"))
    assert first_offset("payments", 1, then_by_the_model) == 50
    then_by_a_rule = returning(letter(*then_by_the_model, offset=60))
    assert dict(then_by_a_rule)["millrace.replay.counted"] == b"true"
    assert first_offset("payments", 1, then_by_a_rule) == 50
    then_by_the_model_again = returning(letter(*then_by_a_rule, offset=70, stage="model", counted="true"))
    assert first_offset("payments", 1, then_by_the_model_again) == 50
    # On another partition, or of another topic, nobody holds it.
    assert first_offset("payments", 2, then_by_a_rule) == first_offset("refunds", 1, then_by_a_rule) == -1
    rows = [Stored([]), Stored(then_by_a_rule), Stored(refused_by_a_rule)]
    found = first_offsets("payments", rows)
    assert found is not None
    assert found.tolist() == [-1, 50, REFUSED - 42]
    assert first_offsets("payments", rows[:1]) is None


def test_a_record_that_later_stages_hold_says_where_and_takes_it_along_from_one_to_the_next() -> None:
    back = returning(letter(offset=50, stage="model", counted="true"), hop=(3, 41), further=(0, 7))
    assert first_offset("payments", 1, back) == 50
    at_the_hop = passed_on("hop", back)
    assert first_offset("hop", 3, at_the_hop) == 41
    assert first_offset("hop", 2, at_the_hop) == -1
    beyond = passed_on("further", at_the_hop)
    assert first_offset("further", 0, beyond) == 7
    assert passed_on("further", beyond) == passed_on("hop", returning(letter())) == ()


def test_receipts_say_what_became_of_every_letter() -> None:
    def at(partition: int, offset: int) -> StoredLetter:
        return StoredLetter.read(Stored(ours(), partition, offset))

    one = Receipt.of(RUN, "id", 5, [at(0, 3), at(1, 0), at(0, 4), at(0, 6)])
    assert one.letters == {0: [(3, 4), (6, 6)], 1: [(0, 0)]}
    assert Receipt.load(one.dump()) == one
    two = Receipt.of(Run("r2", "discarded", "you", "no use"), "id", 9, [at(0, 5)])
    ledger = Ledger([one, Receipt.of(RUN, "id", 7, [at(2, 2)]), two])
    assert [ledger.fate((0, n)) for n in range(2, 8)] == [None, "replayed", "replayed", "discarded", "replayed", None]
    first, second = (dict(run) for run in ledger.runs() if isinstance(run, dict))
    assert (first["letters"], first["reasons"], first["began_ms"], first["ended_ms"]) == (5, {"truncated": 5}, 5, 7)
    assert (second["by"], second["why"], second["letters"]) == ("you", "no use", 1)
