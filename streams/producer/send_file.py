"""Send a file of events to a pipeline's input, or of labels to their topic, keyed and framed as the pipeline reads them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from schemas.dress import Dress
from schemas.errors import RecordError
from schemas.event_file import FileEvent, read_events
from schemas.features import Json
from streams.definition.bound import Bound
from streams.definition.inlet import Inlet
from streams.kafka import KafkaDown, KafkaError, KafkaException, Message, Producer, admin, cause, plain_producer, topic_facts
from streams.producer.wire import wire
from streams.settings import Settings

TICK_SECONDS = 0.005
FLUSH_SECONDS = 30.0
SHOWN_REFUSALS = 10


def send_file(
    bound: Bound, settings: Settings, file: Path, rate: float | None = None, limit: int | None = None, *, labels: bool = False
) -> dict[str, Json]:
    """Send a file's events in order; those that can't be the input's schema are left out and counted.

    Args:
        bound: the pipeline.
        settings: for the broker and the registry.
        file: JSON lines, or an Avro container.
        rate: at most so many events a second; None = as fast as the broker takes them.
        limit: take the first events only.
        labels: the file has labels, and they go to their topic.

    Returns:
        What was read, sent and left out, and in how many seconds.

    Raises:
        DefinitionError: the pipeline has no labels.
        SchemaError: the file can't be read, or the input's schema is not registered.
        TopicError: the input topic is missing.
        KafkaDown: the broker does not take them.
    """
    inlet = Inlet.of(bound, labels)
    topic, schema = inlet.topic, inlet.written_schema
    dress = dress_of(inlet, settings)
    facts = topic_facts(admin(settings.kafka), (topic.name,))[topic.name]
    sending = _Sending(plain_producer(settings.kafka, facts.max_record_bytes), topic.name, dress)
    begun = time.monotonic()
    _paced(islice(read_events(file, schema, str(topic.key)), limit), sending.send, sending.serve, rate)
    sending.finish()
    seconds = time.monotonic() - begun
    return {
        "topic": topic.name,
        "read": sending.read,
        "sent": sending.sent,
        "not_sent": len(sending.troubles),
        "troubles": list(sending.troubles[:SHOWN_REFUSALS]),
        "seconds": round(seconds, 3),
    }


def dress_of(inlet: Inlet, settings: Settings) -> Dress:
    """How an inlet's records are written.

    Raises:
        SchemaError: its schema is not the registered one.
        RetryLater: the registry does not answer.
    """
    way_out = "`millrace topics create` registers the pipeline's"
    return wire(inlet.topic, inlet.written_schema, inlet.bound.schema_folder, settings, way_out)


class _Sending:
    """Hands events to the producer and keeps count."""

    def __init__(self, producer: Producer, topic: str, dress: Dress) -> None:
        self._producer, self._topic, self._dress = producer, topic, dress
        self.read = self.sent = 0
        self.troubles: list[str] = []
        self._failure: KafkaError | None = None

    def send(self, event: FileEvent) -> None:
        self.read += 1
        if event.value is None:
            self._note(event.number, event.trouble)
            return
        number = event.number
        try:
            value, headers = self._dress(event.value, ())
        except RecordError as error:
            self._note(number, error)
            return
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value,
                    event.key,
                    on_delivery=lambda error, message: self._delivered(number, error, message),
                    headers=list(headers),
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                if cause(error).code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise KafkaDown(f"events can't be sent: {cause(error).str()}") from error
                self.troubles.append(f"{number}: {len(value)} bytes are more than topic {self._topic} takes")
                break
        if self._failure is not None:
            raise KafkaDown(f"the broker does not take events for {self._topic}: {self._failure.str()}")

    def serve(self, seconds: float) -> None:
        self._producer.poll(seconds)

    def finish(self) -> None:
        left = self._producer.flush(FLUSH_SECONDS)
        if left or self._failure is not None:
            why = self._failure.str() if self._failure is not None else f"no answer for {FLUSH_SECONDS:.0f} seconds"
            raise KafkaDown(f"the broker did not confirm {left or 'all'} events for {self._topic}: {why}; {self.sent} were sent")

    def _delivered(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.sent += 1
        elif error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP):
            self.troubles.append(f"{number}: {error.str()}")
        else:
            self._failure = error

    def _note(self, number: int, error: RecordError | None) -> None:
        self.troubles.append(f"{number}: {error.detail if error else 'no value'}")


def _paced(events: Iterable[FileEvent], send: Callable[[FileEvent], None], serve: Callable[[float], None], rate: float | None) -> None:
    """Send at a rate, in small ticks: an event is due at its place in the file over the rate, however late the one before it was."""
    begun = time.monotonic()
    with _Progress() as shown:
        for place, event in enumerate(events):
            if rate is not None:
                while (wait := begun + place / rate - time.monotonic()) > 0:
                    serve(min(wait, TICK_SECONDS))
            send(event)
            if place % 500 == 0:
                serve(0)
                shown(place)


class _Progress:
    """A line on a terminal that says how far we are; nothing where nobody looks."""

    def __enter__(self) -> Callable[[int], None]:
        self._begun = time.monotonic()
        self._watched = sys.stderr.isatty()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._watched:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _show(self, sent: int) -> None:
        if self._watched:
            seconds = max(time.monotonic() - self._begun, 1e-9)
            print(f"\r{sent:,} events, {sent / seconds:,.0f} a second", end="", file=sys.stderr, flush=True)


def send_words(facts: Mapping[str, Any]) -> str:
    """What was sent, and the first of what was not."""
    rate = facts["sent"] / facts["seconds"] if facts["seconds"] else 0.0
    lines = [f"{facts['sent']:,} of {facts['read']:,} events sent to {facts['topic']} in {facts['seconds']:.1f} s ({rate:,.0f} a second)"]
    lines += [f"  not sent: {trouble}" for trouble in facts["troubles"]]
    more = facts["not_sent"] - len(facts["troubles"])
    return "\n".join([*lines, f"  and {more} more"] if more else lines)
