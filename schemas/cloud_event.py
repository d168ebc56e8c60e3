"""CloudEvents 1.0 in Kafka's binding: what the headers and the value of a record say, in binary and in structured mode."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from schemas.errors import RecordError
from schemas.framing import Header, Headers, header
from schemas.json_body import load_object
from schemas.reject import Reject

PREFIX: Final = "ce_"
CONTENT_TYPE: Final = "content-type"
VERSION: Final = "1.0"
_STRUCTURED = "application/cloudevents"
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")  # RFC 3339
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event.

    Attributes:
        id, source, type: as given, never empty.
        time: as given; None = the event says none.
        media: the type of its data, in lower case and without parameters; empty where it says none.
        data: the octets of its data; None = there are none, or `value` holds them.
        value: what the data mean, where they are JSON inside a structured event.
    """

    id: str
    source: str
    type: str
    time: str | None
    media: str
    data: bytes | None
    value: Any = None

    @property
    def is_json(self) -> bool:
        """Whether its data say that they are JSON."""
        return self.media in ("application/json", "text/json") or self.media.endswith("+json")

    @property
    def is_avro(self) -> bool:
        """Whether its data say that they are Avro."""
        return "avro" in re.split(r"[/+.-]", self.media)


def read_event(value: bytes | None, headers: Headers) -> CloudEvent:
    """The event of a record: structured if its content type says so, else binary.

    Raises:
        RecordError: it is none; its reason is ``bad_envelope``, or ``bad_json`` and ``bad_utf8`` where a structured event can't be read.
    """
    media = _media(_text(headers, CONTENT_TYPE))
    if media.startswith(_STRUCTURED):
        return _structured(value, media)
    return _binary(value, headers, media)


def _binary(value: bytes | None, headers: Headers, media: str) -> CloudEvent:
    if header(headers, PREFIX + "specversion") is None:
        found = f"content-type is {media!r}" if media else "there is no content-type"
        _refuse(f"the record is no CloudEvent: {found} and no ce_specversion; wanted ce_specversion, or content-type {_STRUCTURED}+json")
    id_, source, type_, time = _attributes(lambda name: _text(headers, PREFIX + name), PREFIX)
    return CloudEvent(id_, source, type_, time, media, value)


def _structured(value: bytes | None, media: str) -> CloudEvent:
    if media != _STRUCTURED + "+json":
        _refuse(f"content-type is {media!r}, wanted {_STRUCTURED}+json")
    if not value:
        _refuse("the value has no bytes, wanted a CloudEvent as a JSON object")
    event = load_object(value)
    id_, source, type_, time = _attributes(event.get, "")
    given = event.get("datacontenttype")
    if given is not None and not isinstance(given, str):
        _refuse(f"datacontenttype is {given!r:.60}, wanted text")
    media = _media(given) or "application/json"
    data, encoded = event.get("data"), event.get("data_base64")
    if data is not None and encoded is not None:
        _refuse("there are data and data_base64, wanted one of them")
    if encoded is not None:
        return CloudEvent(id_, source, type_, time, media, _decoded(encoded))
    made = CloudEvent(id_, source, type_, time, media, None, data)
    if made.is_json or data is None:
        return made
    if not isinstance(data, str):
        _refuse(f"data are a JSON {type(data).__name__} and datacontenttype is {media!r}, wanted data_base64")
    return CloudEvent(id_, source, type_, time, media, data.encode("utf-8", "surrogatepass"))


def _attributes(given: Callable[[str], Any], prefix: str) -> tuple[str, str, str, str | None]:
    if (version := given("specversion")) != VERSION:
        _refuse(f"{prefix}specversion is {version!r:.60}, wanted {VERSION!r}")
    found = []
    for name in ("id", "source", "type"):
        text = given(name)
        if text is None:
            _refuse(f"{prefix}{name} is missing")
        if not isinstance(text, str) or not text:
            _refuse(f"{prefix}{name} is {text!r:.60}, wanted text that is not empty")
        found.append(text)
    time = given("time")
    if time is not None and not (isinstance(time, str) and _TIME.fullmatch(time)):
        _refuse(f"{prefix}time is {time!r:.60}, wanted a time as RFC 3339 has it, such as 2026-01-31T12:00:00.5Z")
    return found[0], found[1], found[2], time


def _text(headers: Headers, name: str) -> str | None:
    value = header(headers, name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        _refuse(f"header {name} is {value[:60]!r}, which is no UTF-8")


def _media(text: str | None) -> str:
    return (text or "").partition(";")[0].strip().lower()


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RecordError(Reject.BAD_ENVELOPE.label, f"data_base64 is no base64: {error}") from error


def microseconds(time: str) -> int:
    """An event's time as microseconds since the epoch; finer parts are cut off.

    Raises:
        RecordError: no calendar has it.
    """
    try:
        return (datetime.fromisoformat(time.upper()) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError) as error:
        raise RecordError(Reject.BAD_ENVELOPE.label, f"time is {time!r}, which no calendar has: {error}") from error


def binary_headers(event: CloudEvent, given: Headers = ()) -> tuple[Header, ...]:
    """The headers of an event in binary mode. Of those given, its source and type stay, and whatever is not the event's own."""
    ours = {CONTENT_TYPE: event.media, PREFIX + "specversion": VERSION, PREFIX + "id": event.id}
    if event.time is not None:
        ours[PREFIX + "time"] = event.time
    kept = [each for each in given if each[0] not in ours]
    there = {name for name, _ in kept}
    ours |= {PREFIX + name: text for name, text in (("source", event.source), ("type", event.type)) if PREFIX + name not in there}
    return (*kept, *((name, text.encode()) for name, text in ours.items()))


def _refuse(words: str) -> NoReturn:
    raise RecordError(Reject.BAD_ENVELOPE.label, words)
