"""The letters that lie in a dead-letter topic: what each says, and which of them are meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.errors import SettingsError, TopicError
from streams.batch import Address
from streams.come_back import COUNTED
from streams.dead_letters import CONNECT, OURS, Header
from streams.definition.inlet import Inlet
from streams.kafka import (
    ANSWER_SECONDS,
    OFFSET_BEGINNING,
    Consumer,
    KafkaDown,
    KafkaException,
    Record,
    TopicPartition,
    admin,
    cause,
    next_messages,
    plain_consumer,
    topic_facts,
)
from streams.settings import KafkaSettings

READER_GROUP = "millrace-dead-letter-view"  # names the reader in the broker's log; nothing is committed
AT = re.compile(r"(?:.*\[)?(\d+)\]?@(\d+)")
_FIRST_OF_OURS = CONNECT + "topic"

Place = tuple[int, int]  # partition and offset of a letter in its topic


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter as it lies in its topic.

    Attributes:
        place: where it lies.
        key, value: the record's; None where the record had none, or the letter no room for it.
        given: the record's own headers.
        said: what Millrace added, by name.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    given: tuple[Header, ...]
    said: Mapping[str, str]

    @classmethod
    def read(cls, message: Record) -> StoredLetter:
        """From the client's record. Millrace's headers stand last, and from the last word on where it came from they are its own."""
        headers = tuple(message.headers() or ())
        names = [name for name, _ in headers]
        ours = len(names) - 1 - names[::-1].index(_FIRST_OF_OURS) if _FIRST_OF_OURS in names else len(names)
        said = {name: text_of(value) or "" for name, value in headers[ours:]}
        return cls((message.partition(), message.offset()), message.key(), message.value(), headers[:ours], said)

    @property
    def at(self) -> str:
        """Where it lies, as `dlq show` takes it."""
        return f"{self.place[0]}@{self.place[1]}"

    @property
    def source(self) -> Address | None:
        """Where its record lies; None where no worker of ours wrote it."""
        try:
            return Address(self.said[CONNECT + "topic"], int(self.said[CONNECT + "partition"]), int(self.said[CONNECT + "offset"]))
        except (KeyError, ValueError):
            return None

    @property
    def stage(self) -> str:
        """What refused the record."""
        return self.said.get(OURS + "stage", "unknown")

    @property
    def reason(self) -> str:
        """Why, in a word."""
        return self.said.get(OURS + "reason", "unknown")

    @property
    def message(self) -> str:
        """Why, in a sentence."""
        return self.said.get(CONNECT + "exception.message", "")

    @property
    def schema_id(self) -> int:
        """Of the schema it was written with; -1 where it could not be read."""
        return self._number("schema_id")

    @property
    def timestamp_ms(self) -> int:
        """The record's."""
        return self._number("timestamp_ms")

    @property
    def refused_ms(self) -> int:
        """When it was refused."""
        return self._number("first_seen_ms")

    @property
    def shortened(self) -> bool:
        """Whether the record had a value, and the letter no room for it."""
        return OURS + "value_sha256" in self.said

    @property
    def counted(self) -> bool:
        """Whether the windows hold its event: it was refused after them, now or when it came back before."""
        return self.said.get(OURS + "counted") == "true" or dict(self.given).get(COUNTED) == b"true"

    def _number(self, name: str) -> int:
        try:
            return int(self.said[OURS + name])
        except (KeyError, ValueError):
            return -1


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant: those that fit every word given.

    Attributes:
        reasons: any of these words.
        rules: any of these rules' names.
        fields: the rule that refused it looks at one of these fields, or its bytes could not be read there.
        schema_ids: its writer's schema is one of these.
        since_ms, until_ms: refused at or after, and before, milliseconds since the epoch.
        places: it lies at one of these.
    """

    reasons: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    schema_ids: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    places: frozenset[Place] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Choice()

    def takes(self, letter: StoredLetter, inlet: Inlet) -> bool:
        """Whether a letter is meant."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.rules or (letter.stage == "rule" and letter.reason in self.rules))
            and (not self.fields or bool(self.fields & fields_at_fault(letter, inlet)))
            and (not self.schema_ids or letter.schema_id in self.schema_ids)
            and (self.since_ms is None or letter.refused_ms >= self.since_ms)
            and (self.until_ms is None or letter.refused_ms < self.until_ms)
            and (not self.places or letter.place in self.places)
        )


def fields_at_fault(letter: StoredLetter, inlet: Inlet) -> frozenset[str]:
    """The fields that a letter was refused for: those its rule looks at, the one that could not be read, the key's."""
    if letter.reason in ("key_mismatch", "null_key"):
        return frozenset({inlet.read.key})
    for rule in inlet.read.rules:
        if rule.name == letter.reason:
            return frozenset(rule.columns)
    found = re.search(rf"{re.escape(letter.reason)}: ([\w.]+), at byte ", letter.message)
    return frozenset({found[1]}) if found else frozenset()


def place_of(text: str) -> Place:
    """A place from ``PARTITION@OFFSET``, or with the topic around it.

    Raises:
        SettingsError: it is none.
    """
    found = AT.fullmatch(text)
    if found is None:
        raise SettingsError(f"{text!r} is no place of a letter; wanted PARTITION@OFFSET, such as 0@17")
    return int(found[1]), int(found[2])


def moment_ms(text: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 time; UTC where it names no zone.

    Raises:
        SettingsError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is no time; wanted ISO 8601, such as 2026-11-21 or 2026-11-21T14:30:00+01:00") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def read_letters(inlet: Inlet, settings: KafkaSettings) -> Iterator[StoredLetter]:
    """Every letter that is in the topic when we begin, partition by partition in the order they arrive.

    Raises:
        TopicError: there is no dead-letter topic.
        KafkaDown: the broker does not answer.
    """
    return (StoredLetter.read(message) for message in read_topic(settings, inlet.topic.dead_letters))


def read_letter(inlet: Inlet, settings: KafkaSettings, place: Place) -> StoredLetter:
    """The letter that lies at a place.

    Raises:
        TopicError: there is none.
        KafkaDown: the broker does not answer.
    """
    message = read_record(settings, Address(inlet.topic.dead_letters, *place))
    if message is None:
        raise TopicError(f"no letter at {inlet.topic.dead_letters}[{place[0]}]@{place[1]}; see `millrace dlq ls`")
    return StoredLetter.read(message)


def read_topic(settings: KafkaSettings, topic: str) -> Iterator[Record]:
    """Every committed record that is in a topic when we begin.

    Raises:
        TopicError: there is no such topic.
        KafkaDown: the broker does not answer.
    """
    partitions = topic_facts(admin(settings), (topic,))[topic].partitions
    consumer = plain_consumer(settings, READER_GROUP)
    try:
        left = {}
        for partition in range(partitions):
            begin, end = _watermarks(consumer, topic, partition)
            if end > begin:
                left[partition] = end
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
        while left:
            message = next_messages(consumer, topic)[0]
            if message.error() is not None:  # its end: the last offsets may be the markers of transactions
                left.pop(message.partition(), None)
            elif message.partition() in left:
                yield message
                if message.offset() + 1 >= left[message.partition()]:
                    del left[message.partition()]
    finally:
        consumer.close()


def read_record(settings: KafkaSettings, at: Address) -> Record | None:
    """The committed record at an address; None where there is none, or not any more.

    Raises:
        TopicError: there is no such topic.
        KafkaDown: the broker does not answer.
    """
    if at.partition >= topic_facts(admin(settings), (at.topic,))[at.topic].partitions:
        return None
    consumer = plain_consumer(settings, READER_GROUP)
    try:
        begin, end = _watermarks(consumer, at.topic, at.partition)
        if not begin <= at.offset < end:
            return None
        consumer.assign([TopicPartition(at.topic, at.partition, at.offset)])
        message = next_messages(consumer, at.topic)[0]
        return message if message.error() is None and message.offset() == at.offset else None
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    try:
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS)
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what {topic}[{partition}] holds: {cause(error).str()}") from error
    return begin, end


def text_of(value: bytes | str | None) -> str | None:
    """Octets as text, whatever they are."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
