from __future__ import annotations

import numpy as np
import pytest

from schemas.columns import Column, Constant, Mask, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import DefinitionError
from schemas.features import fingerprint
from schemas.reject import FIRST_RULE, STAGES, Reject, label, stage
from schemas.rules import Rule, RuleBug, check, in_range, one_of, present, valency

COLUMNS: dict[str, Column] = {
    "amount": np.array([1.0, np.nan, -0.5, 50.0]),
    "count": Nullable(np.array([1, 2, 3, 4]), np.array([True, True, False, True])),
    "currency": PackedBytes.pack([b"EUR", b"EU", b"USD", b"EUR"]),
    "kind": Symbols(np.array([0, 1, 0, 1], np.int32), ("A", "B")),
    "items": Ragged(np.arange(9), np.array([0, 0, 1, 4]), np.array([0, 1, 4, 9])),
    "fixed": Constant(7, 4),
    "word": Constant(b"EUR", 4),
}
USABLE = np.zeros(4, np.uint8)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (in_range("amount", -0.5, 50), [True, False, True, True]),
        (in_range("amount", 0, float("inf")), [True, False, False, True]),
        (in_range("count", 1, 2), [True, True, False, False]),
        (in_range("fixed", 7, 8), [True] * 4),
        (one_of("currency", ("EUR", "GBP")), [True, False, False, True]),
        (one_of("kind", ("B", "C")), [False, True, False, True]),
        (one_of("count", (1, 3, 4)), [True, False, False, True]),
        (one_of("word", ("EUR",)), [True] * 4),
        (one_of("fixed", (8,)), [False] * 4),
        (present("count"), [True, True, False, True]),
        (present("currency"), [True] * 4),
        (valency("items", 1, 3), [False, True, True, False]),
    ],
)
def test_a_rule_holds_where_its_words_say(rule: Rule, holds: list[bool]) -> None:
    assert (check((rule,), COLUMNS, USABLE) == 0).tolist() == holds


def test_the_first_broken_rule_is_the_reason_and_earlier_refusals_stand() -> None:
    rules = (in_range("amount", 0, 100), one_of("currency", ("EUR",)))
    rejected = np.array([0, 0, 0, Reject.NULL_KEY], np.uint8)
    assert check(rules, COLUMNS, rejected).tolist() == [0, FIRST_RULE, FIRST_RULE, Reject.NULL_KEY]
    assert rejected.tolist() == [0, 0, 0, Reject.NULL_KEY]
    assert check(rules[::-1], COLUMNS, USABLE).tolist() == [0, FIRST_RULE, FIRST_RULE, 0]


def test_a_row_is_explained_with_what_was_found_and_wanted() -> None:
    assert in_range("amount", 0, 50_000).explain(COLUMNS, 2) == "amount is -0.5, wanted 0 to 50000"
    assert in_range("count", 0, 9).explain(COLUMNS, 2) == "count is null, wanted 0 to 9"
    assert one_of("currency", ("EUR",)).explain(COLUMNS, 1) == "currency is 'EU', wanted one of EUR"
    assert valency("items", 1, 3).explain(COLUMNS, 3) == "items is an array of 5 items, wanted 1 to 3 items"
    assert Rule("own", lambda columns: np.ones(4, np.bool_)).explain(COLUMNS, 0) == "own does not hold"


def _raises(columns: object) -> Mask:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("own", _raises), "rule 'own' raised ZeroDivisionError: by zero"),
        (Rule("own", lambda columns: np.ones(3, np.bool_)), r"bool of shape \(3,\), wanted an array of bool of shape \(4,\)"),
        (Rule("own", lambda columns: np.ones(4, np.int64)), "int64"),
        (Rule("own", lambda columns: True), "returned bool"),  # type: ignore[arg-type,return-value]
        (in_range("nowhere", 0, 1), "rule 'nowhere_in_range' raised KeyError"),
        (in_range("currency", 0, 1), "holds no numbers"),
        (valency("amount", 0, 1), "holds no arrays"),
    ],
)
def test_a_broken_rule_function_is_named(rule: Rule, reason: str) -> None:
    with pytest.raises(RuleBug, match=reason):
        check((rule,), COLUMNS, USABLE)


def test_a_rule_no_record_could_meet_is_refused() -> None:
    with pytest.raises(DefinitionError, match="empty"):
        in_range("x", 2, 1)
    with pytest.raises(DefinitionError, match="empty"):
        in_range("x", float("nan"), 1)
    with pytest.raises(DefinitionError, match="none"):
        one_of("x", ())
    with pytest.raises(DefinitionError, match="3, 2"):
        valency("x", 3, 2)
    with pytest.raises(DefinitionError, match="a word"):
        Rule("two words", lambda columns: np.ones(1, np.bool_))
    with pytest.raises(DefinitionError, match="129 rules"):
        check((present("count"),) * 129, COLUMNS, USABLE)


def test_a_rules_description_changes_with_what_it_asks() -> None:
    rules = [
        in_range("a", 0, 1),
        in_range("a", 0, 2),
        in_range("b", 0, 1),
        in_range("a", 0, float("inf")),
        one_of("a", ("x",)),
        one_of("a", (b"x",)),
        present("a"),
        valency("a", 0, 1),
        Rule("own", lambda columns: np.ones(1, np.bool_)),
        Rule("own", lambda columns: np.ones(1, np.bool_), version=2),
    ]
    assert len({fingerprint(rule.describe()) for rule in rules}) == len(rules)
    assert in_range("a", 0, 1).describe() == in_range("a", 0, 1).describe()


def test_every_reject_has_a_word_and_a_stage() -> None:
    refusals = [reject for reject in Reject if reject is not Reject.USABLE]
    assert all(reject.stage in STAGES and reject.label.isidentifier() and reject < FIRST_RULE for reject in refusals)
    assert {reject.stage for reject in refusals} == set(STAGES)
    assert [Reject.BAD_UTF8.stage, Reject.UNKNOWN_SCHEMA.stage, Reject.KEY_MISMATCH.stage] == ["decode", "schema", "rule"]
    assert [Reject.NON_FINITE_FEATURE.stage, Reject.NON_FINITE_SCORE.stage, Reject.OUTPUT_REFUSED.stage] == ["feature", "model", "produce"]
    assert (label(FIRST_RULE + 1, ("a", "b")), label(FIRST_RULE + 9), stage(255)) == ("b", "rule_9", "rule")
    assert (label(Reject.BAD_UTF8), stage(Reject.BAD_UTF8), Reject.USABLE.stage) == ("bad_utf8", "decode", "")
