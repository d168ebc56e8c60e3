"""JSON bodies: a JSON object a record, read as an Avro schema's bytes, which become columns like any other."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from schemas.avro import AvroSchema
from schemas.errors import RecordError
from schemas.json_record import WrittenNumber, as_it_travels, avro_of_record, record_of_json
from schemas.reject import Reject


class JsonBodies:
    """Turns JSON into the Avro bytes of a schema. What is taken for what says `schemas/json_record.py`."""

    def __init__(self, schema: AvroSchema) -> None:
        self._to_record, self._plain = record_of_json(schema), as_it_travels(schema)

    def of_text(self, text: bytes) -> bytes:
        """The Avro bytes of a JSON object.

        Raises:
            RecordError: it is none (``bad_json``, ``bad_utf8``), or a field of it is not what its type takes (``bad_field``).
        """
        return self.of_value(load_object(text))

    def of_value(self, value: Any) -> bytes:
        """The same of what the JSON means.

        Raises:
            RecordError: as above.
        """
        try:
            return avro_of_record(self._to_record(value), self._plain)
        except RecordError as error:
            raise RecordError(Reject.BAD_FIELD.label, error.detail) from error
        except (ArithmeticError, ValueError, RecursionError) as error:
            raise RecordError(Reject.BAD_FIELD.label, f"the event can't be written as Avro: {type(error).__name__}: {error}") from error


def load_object(text: bytes) -> dict[str, Any]:
    """What a JSON object means.

    Raises:
        RecordError: it is none.
    """
    try:
        given = json.loads(text.decode(), parse_float=WrittenNumber, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RecordError(Reject.BAD_UTF8.label, f"the body is no UTF-8: byte {error.start} is {text[error.start]:#04x}") from error
    except _Infinite as error:
        raise RecordError(Reject.BAD_JSON.label, f"the body is no JSON: {error} is no number of JSON's") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(Reject.BAD_JSON.label, f"the body is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise RecordError(Reject.BAD_JSON.label, f"the body is a JSON {_KINDS[type(given)]}, wanted an object")
    return given


_KINDS = {list: "array", str: "string", int: "number", WrittenNumber: "number", bool: "boolean", type(None): "null"}


class _Infinite(ValueError):
    """NaN and infinities, which Python reads and JSON does not have."""


def _no_constant(word: str) -> NoReturn:
    raise _Infinite(word)
