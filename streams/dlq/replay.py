"""Dead letters come back: each once, under its own key, on the partition it came from, with its first address in its headers."""

from __future__ import annotations

import getpass
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from schemas.dress import Dress
from schemas.errors import SettingsError
from schemas.features import Json
from schemas.registry import open_registry
from streams.come_back import REPLAY
from streams.definition.inlet import Inlet
from streams.dlq.fixes import AsTheyAre, ColumnFix, EditedCopies, Fix, write_copies
from streams.dlq.letters import Choice, StoredLetter, read_letters
from streams.dlq.passages import Passages
from streams.dlq.receipts import Action, Ledger, Run, read_ledger
from streams.dlq.returning import Sending, chunks
from streams.dlq.second_look import SecondLook, Verdict
from streams.kafka import TopicFacts, admin, topic_facts
from streams.producer.send_file import dress_of
from streams.settings import Settings

RETURN_BYTES = 1_024  # that the headers of a return take, at most, with the record's own frame
STAGE_BYTES = 320  # likewise, for each further stage whose windows hold it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is to do.

    Attributes:
        choice: with which letters.
        function: ``FILE.py:FUNCTION`` that changes them; None = none.
        edited: a file of edited copies; None = none.
        why: in somebody's words.
        by: who; empty = the user of this machine.
    """

    choice: Choice
    function: str | None = None
    edited: Path | None = None
    why: str = ""
    by: str = ""


class Desk:
    """The letters of an inlet, and everything to judge them by."""

    def __init__(self, inlet: Inlet, settings: Settings, wanted: Wanted) -> None:
        if wanted.function and wanted.edited:
            raise SettingsError("a function and edited copies at once; wanted one of them, and the other in a second run")
        self.inlet, self.settings, self.wanted = inlet, settings, wanted
        self.topic: TopicFacts = topic_facts(admin(settings.kafka), (inlet.topic.name,))[inlet.topic.name]
        self.registry = open_registry(settings.registry.place(inlet.bound.schema_folder), settings.registry.client_keys)

    @cached_property
    def _dress(self) -> Dress:
        return dress_of(self.inlet, self.settings)

    @cached_property
    def look(self) -> SecondLook:
        """What judges."""
        return SecondLook(self.inlet, self.registry, self._dress, self.topic.max_record_bytes)

    @cached_property
    def fix(self) -> Fix:
        """What changes letters before they are judged."""
        as_they_are = AsTheyAre(self.settings.kafka)
        if self.wanted.function:
            return ColumnFix(self.wanted.function, self.inlet, self.registry, self._dress, as_they_are)
        if self.wanted.edited:
            return EditedCopies(self.wanted.edited, self.inlet, self._dress, as_they_are)
        return as_they_are

    def letters(self) -> Iterator[StoredLetter]:
        """All of them."""
        return read_letters(self.inlet, self.settings.kafka)

    def meant(self, letter: StoredLetter, ledger: Ledger) -> bool:
        """Whether the run is about a letter: an open one that was chosen."""
        return ledger.fate(letter.place) is None and self.wanted.choice.takes(letter, self.inlet) and self.fix.takes(letter)

    def judge(self, letters: Sequence[StoredLetter]) -> list[Verdict]:
        """What would become of letters now, changed as the run wants it."""
        return self._traced([self._placed(verdict) for verdict in self.look(self.fix(letters))]) if letters else []

    @cached_property
    def _passages(self) -> Passages:
        return Passages(self.inlet.bound, self.settings, self.topic)

    def _placed(self, verdict: Verdict) -> Verdict:
        """Stays where its topic has no room for it."""
        source = verdict.draft.letter.source
        if not verdict.passes or source is None:
            return verdict
        if source.topic != self.inlet.topic.name:
            return Verdict(verdict.draft, "not_replayable", f"its record is {source}, wanted one of {self.inlet.topic.name}")
        if source.partition >= self.topic.partitions:
            words = f"its record is {source}, and {self.topic.name} has {self.topic.partitions} partitions now"
            return Verdict(verdict.draft, "not_replayable", words)
        draft = verdict.draft
        size = len(draft.value or b"") + len(draft.key or b"") + sum(len(name) + len(text or b"") for name, text in draft.given)
        size += RETURN_BYTES + (STAGE_BYTES * len(self._passages.hops) if draft.counted else 0)
        if size > self.topic.max_record_bytes:
            words = f"with the headers of its return it has about {size} bytes, and {self.topic.name} takes "
            return Verdict(draft, "not_replayable", f"{words}{self.topic.max_record_bytes}")
        return verdict

    def _traced(self, verdicts: list[Verdict]) -> list[Verdict]:
        """Those that windows hold, with what later stages have to know; one of which that can't be known stays."""
        rows = [row for row, verdict in enumerate(verdicts) if verdict.passes and verdict.draft.counted]
        if not rows or not self._passages.hops:
            return verdicts
        traced = list(verdicts)
        for row, passage in zip(rows, self._passages([verdicts[row].draft.letter for row in rows]), strict=True):
            traced[row] = replace(verdicts[row], counted_at=passage.counted_at)
            if passage.trouble:
                traced[row] = Verdict(verdicts[row].draft, "not_replayable", passage.trouble)
        return traced

    def sending(self, action: Action) -> Sending:
        """Begins a run."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        by = self.wanted.by or f"{getpass.getuser()}@{socket.gethostname()}"
        run = Run(name, action, by, self.wanted.why, self.fix.name, self.inlet.bound.fingerprint)
        return Sending(self.inlet, self.settings.kafka, self.topic, run)


@dataclass(slots=True)
class Tally:
    """What a run found, and what it did."""

    chosen: int = 0
    passing: int = 0
    passed: Counter[str] = field(default_factory=Counter)  # by the reason they were refused for
    stuck: Counter[tuple[str, str]] = field(default_factory=Counter)  # by the reason then, and the reason now
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def note(self, verdicts: Iterable[Verdict]) -> None:
        """Count verdicts."""
        for verdict in verdicts:
            self.chosen += 1
            letter = verdict.draft.letter
            if verdict.passes:
                self.passing += 1
                self.passed[letter.reason] += 1
            else:
                reasons = letter.reason, verdict.reason
                self.stuck[reasons] += 1
                self.examples.setdefault(reasons, f"{letter.at}: {verdict.detail}")

    def told(self) -> dict[str, Json]:
        """As facts."""
        return {
            "chosen": self.chosen,
            "would_pass": self.passing,
            "by_reason": dict(self.passed),
            "would_not": [
                {"refused": then, "now": now, "letters": count, "example": self.examples[then, now]}
                for (then, now), count in self.stuck.most_common()
            ],
        }


def replay(inlet: Inlet, settings: Settings, wanted: Wanted, dry_run: bool = False) -> dict[str, Json]:
    """Send the chosen letters that would pass now back to where they came in; the others stay.

    All are judged before the first is sent: a function that raises stops the run with nothing done.

    Raises:
        TopicError: a topic is missing.
        SettingsError, DefinitionError, SchemaError: the run, its function or its edited copies make no sense.
        RetryLater: broker or registry do not answer; the same run again goes on where it was.
    """
    desk = Desk(inlet, settings, wanted)
    if dry_run:
        return {**_survey(desk, read_ledger(inlet, settings.kafka)).told(), "dry_run": True, "replayed": 0}
    with desk.sending("replayed") as sending:
        tally, ledger = _survey(desk, sending.ledger), sending.ledger

        def passing(letters: list[StoredLetter]) -> list[Verdict]:
            return [verdict for verdict in desk.judge([letter for letter in letters if desk.meant(letter, ledger)]) if verdict.passes]

        done = sending.every(desk.letters(), passing, tally.passing)
    return {**tally.told(), "dry_run": False, "replayed": done, "run": sending.run.name}


def discard(inlet: Inlet, settings: Settings, wanted: Wanted, dry_run: bool = False) -> dict[str, Json]:
    """Close the chosen letters for good: they stay where they are, and no replay takes them.

    Raises:
        TopicError: a topic is missing.
        KafkaDown: the broker does not answer.
    """
    desk = Desk(inlet, settings, wanted)
    ledger = read_ledger(inlet, settings.kafka)
    chosen = Counter(letter.reason for letter in desk.letters() if desk.meant(letter, ledger))
    facts: dict[str, Json] = {"chosen": chosen.total(), "by_reason": dict(chosen), "dry_run": dry_run, "discarded": 0}
    if not dry_run:
        with desk.sending("discarded") as sending:
            meant = sending.ledger

            def chosen_ones(letters: list[StoredLetter]) -> list[StoredLetter]:
                return [letter for letter in letters if desk.meant(letter, meant)]

            done = sending.every(desk.letters(), chosen_ones, chosen.total())
        facts |= {"discarded": done, "run": sending.run.name}
    return facts


def copies(inlet: Inlet, settings: Settings, wanted: Wanted, out: Path) -> dict[str, Json]:
    """Write the chosen letters to a file, to be edited and given to `replay`; a function, if there is one, has changed them.

    Raises:
        SettingsError: the file is there already, or can't be written.
    """
    desk, tally = Desk(inlet, settings, wanted), Tally()
    ledger = read_ledger(inlet, settings.kafka)
    try:
        with out.open("x", encoding="utf-8") as file:
            for letters in chunks(letter for letter in desk.letters() if desk.meant(letter, ledger)):
                verdicts = desk.judge(letters)
                tally.note(verdicts)
                write_copies(verdicts, inlet, desk.registry, file)
    except OSError as error:
        raise SettingsError(f"{out} can't be written: {error.strerror}; wanted a file that is not there yet") from error
    return {**tally.told(), "file": str(out)}


def stats(inlet: Inlet, settings: Settings, choice: Choice) -> dict[str, Json]:
    """What there is, what became of it, and the runs that did it.

    Raises:
        TopicError: there is no dead-letter topic.
        KafkaDown: the broker does not answer.
    """
    ledger = read_ledger(inlet, settings.kafka)
    fates: dict[tuple[str, str], Counter[str]] = {}
    again = 0
    first_ms, last_ms = 0, 0
    schemas: Counter[int] = Counter()
    for letter in read_letters(inlet, settings.kafka):
        if not choice.takes(letter, inlet):
            continue
        fates.setdefault((letter.stage, letter.reason), Counter())[ledger.fate(letter.place) or "open"] += 1
        schemas[letter.schema_id] += 1
        again += any(name.startswith(REPLAY) for name, _ in letter.given)
        if letter.refused_ms > 0:
            first_ms = min(first_ms or letter.refused_ms, letter.refused_ms)
            last_ms = max(last_ms, letter.refused_ms)
    words = ("open", "replayed", "discarded")
    return {
        "topic": inlet.topic.dead_letters,
        "letters": sum(count.total() for count in fates.values()),
        **{word: sum(count[word] for count in fates.values()) for word in words},
        "refused_again": again,
        "first_refused_ms": first_ms,
        "last_refused_ms": last_ms,
        "reasons": [
            {"stage": stage, "reason": reason, "letters": count.total(), **{word: count[word] for word in words}}
            for (stage, reason), count in sorted(fates.items(), key=lambda each: -each[1].total())
        ],
        "schema_ids": {str(schema_id): count for schema_id, count in schemas.most_common()},
        "runs": ledger.runs(),
    }


def _survey(desk: Desk, ledger: Ledger) -> Tally:
    tally = Tally()
    for letters in chunks(letter for letter in desk.letters() if desk.meant(letter, ledger)):
        tally.note(desk.judge(letters))
    return tally
