"""Receipts: which letters have been dealt with, when, by whom and why. They are the audit record of a pipeline's dead letters.

A receipt goes out in the transaction of the records it tells of, so a letter that came back has a receipt and one without it has not.
Receipts lie in ``<input>.dlq.audit``, which keeps them for ever. They name the topic of their letters by its id as well, since a topic
that is made anew counts its offsets from 0 again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from schemas.errors import TopicError
from schemas.features import Json
from streams.definition.inlet import Inlet
from streams.dlq.letters import Place, StoredLetter, read_topic
from streams.kafka import admin, topic_id
from streams.planning.topics import FOREVER_MS, TopicPlan, create_topics, existing
from streams.settings import KafkaSettings

Action = Literal["replayed", "discarded"]

LONGEST_TOPIC_NAME = 249


@dataclass(frozen=True, slots=True)
class Run:
    """One use of `dlq replay` or `dlq discard`.

    Attributes:
        name: unlike any other run's.
        action: what it did with its letters.
        by: who.
        why: in that person's words.
        fix: what changed the records on their way: a function, an edited file, or nothing.
        pipeline: its fingerprint, as it judged the letters.
    """

    name: str
    action: Action
    by: str
    why: str
    fix: str = ""
    pipeline: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Letters of one transaction.

    Attributes:
        run: what it was part of.
        topic_id: of the letters' topic.
        at_ms: when.
        letters: by partition, stretches of offsets: first and last.
        reasons: how many letters were refused for which reason.
    """

    run: Run
    topic_id: str
    at_ms: int
    letters: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, topic: str, at_ms: int, letters: Sequence[StoredLetter]) -> Receipt:
        """For letters in the order of their topic."""
        stretches: dict[int, list[tuple[int, int]]] = {}
        for partition, offset in sorted(letter.place for letter in letters):
            known = stretches.setdefault(partition, [])
            if known and known[-1][1] + 1 == offset:
                known[-1] = known[-1][0], offset
            else:
                known.append((offset, offset))
        return cls(run, topic, at_ms, stretches, dict(Counter(letter.reason for letter in letters)))

    @property
    def count(self) -> int:
        """How many letters."""
        return sum(last - first + 1 for stretches in self.letters.values() for first, last in stretches)

    def dump(self) -> bytes:
        """As it travels: JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def load(cls, value: bytes) -> Receipt:
        """From what `dump` gave.

        Raises:
            ValueError, KeyError, TypeError: it is no receipt.
        """
        found = json.loads(value)
        letters = {int(p): [(int(first), int(last)) for first, last in stretches] for p, stretches in found["letters"].items()}
        return cls(Run(**found["run"]), found["topic_id"], int(found["at_ms"]), letters, dict(found["reasons"]))


class Ledger:
    """All receipts about one dead-letter topic."""

    def __init__(self, receipts: Iterable[Receipt]) -> None:
        self.receipts = tuple(receipts)
        self._done: dict[Place, Action] = {}
        for receipt in self.receipts:
            for partition, stretches in receipt.letters.items():
                for first, last in stretches:
                    self._done.update(((partition, offset), receipt.run.action) for offset in range(first, last + 1))

    def fate(self, place: Place) -> Action | None:
        """What became of a letter; None while it is open."""
        return self._done.get(place)

    def runs(self) -> list[Json]:
        """Each run with all it did, in their order."""
        whole: dict[str, list[Receipt]] = {}
        for receipt in self.receipts:
            whole.setdefault(receipt.run.name, []).append(receipt)
        told: list[Json] = []
        for receipts in whole.values():
            reasons: Counter[str] = Counter()
            for receipt in receipts:
                reasons.update(receipt.reasons)
            first = receipts[0]
            told.append(
                {
                    **asdict(first.run),
                    "began_ms": first.at_ms,
                    "ended_ms": receipts[-1].at_ms,
                    "letters": sum(receipt.count for receipt in receipts),
                    "reasons": dict(reasons),
                }
            )
        return told


def audit_topic(inlet: Inlet) -> str:
    """Where the receipts of an inlet's letters lie.

    Raises:
        TopicError: the broker takes no name that long.
    """
    name = f"{inlet.topic.dead_letters}.audit"
    if len(name) > LONGEST_TOPIC_NAME:
        raise TopicError(f"the receipts of {inlet.topic.dead_letters} would lie in {name}, whose {len(name)} characters are too many")
    return name


def make_audit_topic(inlet: Inlet, settings: KafkaSettings) -> None:
    """Make the topic of the receipts, unless it is there.

    Raises:
        TopicError: the broker refuses it.
        KafkaDown: the broker does not answer.
    """
    plan = TopicPlan("receipts", audit_topic(inlet), 1, {"cleanup.policy": "delete", "retention.ms": str(FOREVER_MS)})
    create_topics(admin(settings), (plan,))


def read_ledger(inlet: Inlet, settings: KafkaSettings) -> Ledger:
    """The receipts about the dead-letter topic that is there now; none where nothing was ever dealt with.

    Raises:
        TopicError: there is no dead-letter topic, or something else writes to the topic of the receipts.
        KafkaDown: the broker does not answer.
    """
    client, name = admin(settings), audit_topic(inlet)
    letters = topic_id(client, inlet.topic.dead_letters)
    if not existing(client, (name,)):
        return Ledger(())
    found = []
    for message in read_topic(settings, name):
        try:
            found.append(Receipt.load(message.value() or b""))
        except (ValueError, KeyError, TypeError) as error:
            raise TopicError(f"{name}[{message.partition()}]@{message.offset()} is no receipt: {error}") from error
    return Ledger(receipt for receipt in found if receipt.topic_id == letters)
