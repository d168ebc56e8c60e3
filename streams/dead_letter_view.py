"""Look at a pipeline's dead letters: how many and why, or one of them with everything it says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from schemas.avro import read_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import SettingsError, TopicError
from schemas.features import Json
from schemas.json_record import as_it_travels
from schemas.registry import Registry, open_registry
from streams.bound import Bound
from streams.dead_letters import CONNECT, OURS
from streams.kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaDown,
    KafkaError,
    KafkaException,
    Record,
    TopicPartition,
    admin,
    cause,
    plain_consumer,
    topic_facts,
)
from streams.settings import Settings

READER_GROUP = "millrace-dead-letter-view"  # names the reader in the broker's log; nothing is committed
ANSWER_SECONDS = 10.0
AT = re.compile(r"(?:.*\[)?(\d+)\]?@(\d+)")


def list_letters(bound: Bound, settings: Settings) -> dict[str, Json]:
    """Count the letters that are in the topic now, by stage and reason, with the place of the first and the last of each.

    Raises:
        TopicError: there is no dead-letter topic.
        KafkaDown: the broker does not answer.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    last: dict[tuple[str, str], str] = {}
    for message in _letters(bound, settings):
        headers = _headers(message)
        reason = (headers.get(OURS + "stage", "unknown"), headers.get(OURS + "reason", "unknown"))
        place = f"{message.partition()}@{message.offset()}"
        counts[reason] += 1
        first.setdefault(reason, place)
        last[reason] = place
    reasons: list[Json] = [
        {"stage": stage, "reason": reason, "letters": count, "first": first[stage, reason], "last": last[stage, reason]}
        for (stage, reason), count in counts.most_common()
    ]
    return {"topic": bound.input.dead_letters, "letters": counts.total(), "reasons": reasons}


def show_letter(bound: Bound, settings: Settings, at: str) -> dict[str, Json]:
    """One letter: its headers, its key, and its value as text or as the words that say why there is none.

    Raises:
        SettingsError: `at` is no place.
        TopicError: there is no letter.
        KafkaDown: the broker does not answer.
    """
    place = AT.fullmatch(at)
    if place is None:
        raise SettingsError(f"{at!r} is no place of a letter; wanted PARTITION@OFFSET, such as 0@17")
    message = _letter(bound, settings, int(place[1]), int(place[2]))
    headers = _headers(message)
    value = message.value()
    registry = open_registry(settings.registry.place(bound.schema_folder), settings.registry.client_keys)
    context = {name: text for name, text in headers.items() if name.startswith((CONNECT, OURS))}
    return {
        "at": f"{message.topic()}[{message.partition()}]@{message.offset()}",
        "record": f"{headers.get(CONNECT + 'topic')}[{headers.get(CONNECT + 'partition')}]@{headers.get(CONNECT + 'offset')}",
        "stage": headers.get(OURS + "stage"),
        "reason": headers.get(OURS + "reason"),
        "message": headers.get(CONNECT + "exception.message"),
        "key": _text(message.key()),
        "timestamp": _iso(headers.get(OURS + "timestamp_ms")),
        "value_hex": None if value is None else value.hex(),
        "value": _decoded(bound, registry, value),
        "context": context,
        "headers": {name: text for name, text in headers.items() if name not in context},
    }


def _decoded(bound: Bound, registry: Registry, value: bytes | None) -> Json:
    """What the value says: the event, or in words why its bytes are none."""
    if value is None:
        return "none: the record had no value, or the letter had no room for it"
    decoder = Decoder(bound.schema, bound.input.framing, registry)
    if decoder.decode(PackedBytes.pack([value])).rejected[0]:
        return str(decoder.explain(value).detail)
    if bound.input.framing == "bare":
        return _told(read_value(value, as_it_travels(bound.schema)))
    writer = registry.schema(int.from_bytes(value[1:5], "big")) or bound.schema
    return _told(read_value(value[5:], as_it_travels(writer)))


def _letters(bound: Bound, settings: Settings) -> Iterator[Record]:
    """Every letter that is in the topic when we begin."""
    topic = bound.input.dead_letters
    partitions = topic_facts(admin(settings.kafka), (topic,))[topic].partitions
    consumer = plain_consumer(settings.kafka, READER_GROUP)
    try:
        left = {}
        for partition in range(partitions):
            begin, end = _watermarks(consumer, topic, partition)
            if end > begin:
                left[partition] = end
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
        while left:
            message = _next(consumer, topic)
            error = message.error()
            # A partition's last offsets may be the markers of transactions, which no reader sees: its end tells.
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                left.pop(message.partition(), None)
            elif message.partition() in left:
                yield message
                if message.offset() + 1 >= left[message.partition()]:
                    del left[message.partition()]
    finally:
        consumer.close()


def _letter(bound: Bound, settings: Settings, partition: int, offset: int) -> Record:
    topic = bound.input.dead_letters
    partitions = topic_facts(admin(settings.kafka), (topic,))[topic].partitions
    nothing = TopicError(f"no letter at {topic}[{partition}]@{offset}; see `millrace dlq ls`")
    if partition >= partitions:
        raise nothing
    consumer = plain_consumer(settings.kafka, READER_GROUP)
    try:
        begin, end = _watermarks(consumer, topic, partition)
        if not begin <= offset < end:
            raise nothing
        consumer.assign([TopicPartition(topic, partition, offset)])
        message = _next(consumer, topic)
        if message.error() is not None or message.offset() != offset:
            raise nothing
        return message
    finally:
        consumer.close()


def _next(consumer: Consumer, topic: str) -> Record:
    """The next record, or the end of a partition."""
    found = consumer.poll(ANSWER_SECONDS)
    if found is None:
        raise KafkaDown(f"the broker gives nothing of {topic} for {ANSWER_SECONDS:.0f} seconds")
    message = cast("Record", found)
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise KafkaDown(f"{topic} can't be read: {error.str()}")
    return message


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    try:
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS)
    except KafkaException as error:
        raise KafkaDown(f"the broker does not say what {topic}[{partition}] holds: {cause(error).str()}") from error
    return begin, end


def _headers(message: Record) -> dict[str, str]:
    """By name; of several with one name the last, which is the one Millrace added."""
    return {name: _text(value) or "" for name, value in message.headers() or ()}


def _text(value: bytes | str | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _iso(milliseconds: str | None) -> str | None:
    try:
        return datetime.fromtimestamp(int(milliseconds or "") / 1_000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return milliseconds


def _told(value: Any) -> Json:
    """What fastavro read, as JSON has it: bytes as text of the characters U+0000 to U+00FF."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    plain: Json = value
    return plain


def list_words(facts: Mapping[str, Any]) -> str:
    """A line for each reason."""
    lines = [f"{facts['letters']:,} letters in {facts['topic']}"]
    lines += [
        f"{each['letters']:>10,}  {each['stage']:8} {each['reason']:32} {each['first']} .. {each['last']}" for each in facts["reasons"]
    ]
    return "\n".join(lines)


def show_words(facts: Mapping[str, Any]) -> str:
    """A letter on a page."""
    value = facts["value"] if isinstance(facts["value"], str) else json.dumps(facts["value"], indent=2)
    lines = [
        f"letter    {facts['at']}",
        f"record    {facts['record']}, timestamp {facts['timestamp']}",
        f"refused   by {facts['stage']}: {facts['reason']}",
        f"because   {facts['message']}",
        f"key       {facts['key']}",
        f"value     {value}",
        *(f"context   {name} = {text}" for name, text in sorted(facts["context"].items())),
        *(f"header    {name} = {text}" for name, text in sorted(facts["headers"].items())),
    ]
    return "\n".join(lines)
