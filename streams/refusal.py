"""Why a row was refused, in words: for its dead letter."""

from __future__ import annotations

from schemas.codec import Decoder
from schemas.errors import RecordError
from schemas.reject import FIRST_RULE, Reject, label, stage
from streams.batch import Batch
from streams.extract import Read

WORDS = {
    Reject.NULL_KEY: "the record has no key; wanted the text of {key!r}, since the key decides which worker owns its state",
    Reject.TOO_LARGE: "the value has {size} bytes, more than its topic takes",
    Reject.UNKNOWN_SCHEMA: "schema {schema} is not in the registry",
    Reject.NON_FINITE_FEATURE: "a feature is not a finite number; the event is counted in later windows",
    Reject.UNMATCHED_LABEL: "no event with the label's id is remembered: it came before its event, or the event is unknown, was too late, "
    "or is too old for any window",
    Reject.NON_FINITE_SCORE: "the model's answer, or a feature as float32, is not a finite number; the event is counted in later windows",
    Reject.OUTPUT_REFUSED: "the broker does not take the scored event (its size or timestamp); the event is counted in later windows",
}

MOST_KEY_BYTES = 100


def refusal(read: Read, decoder: Decoder, batch: Batch, row: int) -> tuple[RecordError, str]:
    """What a rejected row's dead letter says, and the stage that refused it."""
    code = int(batch.rejected[row])
    names = [rule.name for rule in read.rules]
    if code >= FIRST_RULE:
        words = read.rules[code - FIRST_RULE].explain(batch.columns, row)
    elif code == Reject.KEY_MISMATCH:
        words = f"the record's key is {_short(batch.keys[row])}, its field {read.key!r} says otherwise; wanted the field's text as key"
    elif code in WORDS:
        size = int(batch.raw.ends[row] - batch.raw.starts[row])
        named = decoder.schema_words(batch.raw[row], batch.headers.get(row, ())) if code == Reject.UNKNOWN_SCHEMA else ""
        words = WORDS[Reject(code)].format(key=read.key, size=size, schema=named)
    else:
        found = decoder.explain(None if batch.absent[row] else batch.raw[row], batch.headers.get(row, ()))
        words = found.detail
    return RecordError(label(code, names), words), stage(code)


def _short(key: bytes | None) -> str:
    return repr(key) if key is None or len(key) <= MOST_KEY_BYTES else f"{key[:MOST_KEY_BYTES]!r}... ({len(key)} bytes)"
