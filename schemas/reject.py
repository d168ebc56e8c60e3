"""Why a row can't be used, as one octet a row.

0          usable
1 .. 127   refused by a part of Millrace: `Reject`
128 ..     refused by the pipeline's rule number ``code - 128``
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

FIRST_RULE = 128
MOST_RULES = 128

STAGES = ("decode", "schema", "rule", "feature", "model", "produce")


class Reject(IntEnum):
    """The reasons Millrace itself has for refusing a row. The numbers are kept: kernels and tools may store them."""

    USABLE = 0

    # decode: the bytes are not what their schema says
    TOMBSTONE = 1  # the record has no value at all
    EMPTY_VALUE = 2  # the value has no bytes
    BAD_MAGIC = 3  # the first byte is not the wire format's zero, or the four of the schema id are not there
    TRUNCATED = 4  # the bytes end inside a field
    MALFORMED = 5  # a varint too long for its type, a negative length, an array's block that can't be
    TRAILING_BYTES = 6  # the record ends before its bytes do
    BAD_UTF8 = 7  # a string is not UTF-8
    BAD_ENUM = 8  # an enum's index has no symbol
    BAD_UNION = 9  # a union's index has no branch
    BAD_BOOLEAN = 10  # a boolean is neither 0 nor 1
    TOO_LARGE = 11  # the value is above the size limit
    OUT_OF_RANGE = 12  # a decimal's unscaled value, or a number inside a union, needs more than 64 bits
    BAD_JSON = 13  # a JSON body is no JSON object
    BAD_ENVELOPE = 14  # a CloudEvent's attribute is missing, or not what it must be

    # schema: the bytes may be right, but they can't become what the reader's schema says
    UNKNOWN_SCHEMA = 20  # no schema has this id
    UNREADABLE_SCHEMA = 21  # the writer's schema can't be resolved to the reader's
    UNKNOWN_SYMBOL = 22  # the writer's symbol is not one of the reader's, and the reader has no default
    WRONG_BRANCH = 23  # the writer's branch of a union is none of the reader's; a null for a field that takes none
    BAD_FIELD = 24  # a field of a JSON body is missing, or not what its Avro type takes
    UNKNOWN_FINGERPRINT = 25  # single-object Avro of a schema that the topic does not name

    # rule: what every pipeline asks of its records
    NULL_KEY = 30
    KEY_MISMATCH = 31  # the record's key disagrees with the key field of its value

    # feature, model, produce
    NON_FINITE_FEATURE = 40
    UNMATCHED_LABEL = 41  # no remembered event has the label's id
    NON_FINITE_SCORE = 50
    OUTPUT_REFUSED = 60  # the broker does not take the scored event: its size or its timestamp

    @property
    def label(self) -> str:
        """A word for metrics, logs and headers: one of a small fixed set."""
        return self.name.lower()

    @property
    def stage(self) -> str:
        """Which of `STAGES` refuses rows for this reason."""
        if self is Reject.USABLE:
            return ""
        if self < Reject.UNKNOWN_SCHEMA:
            return "decode"
        if self < Reject.NULL_KEY:
            return "schema"
        if self < Reject.NON_FINITE_FEATURE:
            return "rule"
        if self < Reject.NON_FINITE_SCORE:
            return "feature"
        return "model" if self < Reject.OUTPUT_REFUSED else "produce"


def label(code: int, rule_names: Sequence[str] = ()) -> str:
    """The word for any code of a row: a `Reject`'s label, or the name of the broken rule."""
    if code < FIRST_RULE:
        return Reject(code).label
    rule = code - FIRST_RULE
    return rule_names[rule] if rule < len(rule_names) else f"rule_{rule}"


def stage(code: int) -> str:
    """The stage that refuses rows with this code."""
    return "rule" if code >= FIRST_RULE else Reject(code).stage
