"""Ways to change refused records before they come back: not at all, by a function over columns, or by copies that somebody edited."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import numpy as np

from schemas.codec import Decoder, Encoder
from schemas.columns import PackedBytes
from schemas.dress import Dress
from schemas.errors import DefinitionError, MillraceError, RecordError, SchemaError, SettingsError
from schemas.features import Json
from schemas.framing import Headers
from schemas.json_record import as_it_travels, avro_of_record, json_of_record, record_of_json
from schemas.read_record import as_read
from schemas.registry import Registry
from streams.dead_letters import OURS
from streams.definition.inlet import Inlet
from streams.dlq.letters import Place, StoredLetter, place_of, read_record
from streams.dlq.second_look import Draft, Verdict
from streams.settings import KafkaSettings
from streams.suggestion import did_you_mean

GONE = "the letter had no room for its {what}, and its record {at} is not in the input any more"


class Fix(Protocol):
    """Makes drafts of letters."""

    @property
    def name(self) -> str:
        """For the audit record; empty where nothing is changed."""

    def takes(self, letter: StoredLetter) -> bool:
        """Whether it is about this letter at all."""

    def __call__(self, letters: Sequence[StoredLetter]) -> list[Draft]:
        """One draft for each letter, in their order."""


@dataclass(frozen=True, slots=True)
class AsTheyAre:
    """No change: what a newer schema, a newer rule or a mended dependency lets pass.

    What a letter had no room for is read from the input.
    """

    kafka: KafkaSettings
    name: str = ""

    def takes(self, letter: StoredLetter) -> bool:
        return True

    def __call__(self, letters: Sequence[StoredLetter]) -> list[Draft]:
        return [self._whole(letter) for letter in letters]

    def _whole(self, letter: StoredLetter) -> Draft:
        if letter.source is None:
            return Draft(letter, None, None, "its headers name no record: no worker of Millrace wrote it")
        if not letter.shortened:
            return Draft(letter, letter.key, letter.value)
        record = read_record(self.kafka, letter.source)
        if record is None:
            return Draft(letter, None, None, GONE.format(what="value", at=letter.source))
        for what, content in (("value", record.value()), ("key", record.key())):
            wanted = letter.said.get(f"{OURS}{what}_sha256")
            if wanted is not None and hashlib.sha256(content or b"").hexdigest() != wanted:
                return Draft(letter, None, None, GONE.format(what=what, at=letter.source))
        return Draft(letter, record.key(), record.value(), headers=tuple(record.headers() or ()))


class ColumnFix:
    """A user's function: the columns of n events, by dotted path, to those it changes.

    Args:
        place: ``FILE.py:FUNCTION``.
        inlet: where the records come in.
        registry: knows the writers' schemas.
        dress: how changed events are written.
        before: makes the drafts that are changed.

    Raises:
        DefinitionError: there is no such function.
    """

    def __init__(self, place: str, inlet: Inlet, registry: Registry, dress: Dress, before: Fix) -> None:
        self.name = place
        self._function = _function(place)
        self._before = before
        self._decoder = Decoder(inlet.schema, inlet.topic.framing, registry)
        self._encoder, self._dress = Encoder(inlet.schema, "bare"), dress

    def takes(self, letter: StoredLetter) -> bool:
        return self._before.takes(letter)

    def __call__(self, letters: Sequence[StoredLetter]) -> list[Draft]:
        """Drafts of changed events; one that can't be read can't be changed by a function of its columns.

        Raises:
            DefinitionError: the function raised, or gave what the schema can't hold.
        """
        drafts = self._before(letters)
        values = PackedBytes.pack([draft.value or b"" for draft in drafts])
        absent = np.array([draft.value is None for draft in drafts], np.bool_)
        decoded = self._decoder.decode(values, absent, {row: draft.given for row, draft in enumerate(drafts) if draft.given})
        readable = np.flatnonzero((decoded.rejected == 0) & np.array([not draft.trouble for draft in drafts], np.bool_))
        made = list(drafts)
        if len(readable):
            chosen = [drafts[row] for row in readable.tolist()]
            for row, avro in zip(readable.tolist(), self._changed(chosen), strict=True):
                made[row] = self._dressed(drafts[row], avro)
        return made

    def _dressed(self, draft: Draft, avro: bytes) -> Draft:
        try:
            value, headers = self._dress(avro, draft.given)
        except RecordError as error:
            return Draft(draft.letter, None, None, error.detail)
        return Draft(draft.letter, draft.key, value, changed=value != draft.value, headers=headers)

    def _changed(self, drafts: Sequence[Draft]) -> PackedBytes:
        """The Avro bytes of changed events."""
        values = PackedBytes.pack([draft.value or b"" for draft in drafts])
        columns = dict(self._decoder.decode(values, None, {row: draft.given for row, draft in enumerate(drafts) if draft.given}).columns)
        with _FaultsOf(self.name):
            changed = self._function(columns)
            if not isinstance(changed, Mapping):
                raise TypeError(f"it returned {type(changed).__name__}, wanted a mapping of the columns it changes")
            for name, column in changed.items():
                if name not in columns:
                    raise KeyError(f"{name!r} is no column; {did_you_mean(str(name), columns)}")
                columns[name] = _column(name, column, len(values))
            return self._encoder.encode(columns)


class EditedCopies:
    """Copies of letters in a file, a JSON object a line, as `dlq fix` writes them and somebody has edited them.

    Args:
        file: the copies.
        inlet: where the records come in.
        dress: how edited events are written.
        before: makes the drafts that are changed.

    Raises:
        SchemaError: the file can't be read, or a line of it is no copy of a letter.
    """

    def __init__(self, file: Path, inlet: Inlet, dress: Dress, before: Fix) -> None:
        self.name = file.name
        self._dress = dress
        self._before = before
        self._to_record, self._plain = record_of_json(inlet.schema), as_it_travels(inlet.schema)
        self.copies = _copies(file)

    def takes(self, letter: StoredLetter) -> bool:
        return letter.place in self.copies

    def __call__(self, letters: Sequence[StoredLetter]) -> list[Draft]:
        return [self._edited(draft) for draft in self._before(letters)]

    def _edited(self, draft: Draft) -> Draft:
        copy, letter = self.copies[draft.letter.place], draft.letter
        given = copy.get("value") is not None or "value_hex" in copy
        if letter.source is None or (draft.trouble and not given):
            return draft
        key = draft.key
        if "key_hex" in copy:
            key = bytes.fromhex(copy["key_hex"])
        elif "key" in copy:
            key = None if copy["key"] is None else str(copy["key"]).encode()
        value, headers = draft.value, draft.given
        if copy.get("value") is not None:
            try:
                value, headers = self._dress(avro_of_record(self._to_record(copy["value"]), self._plain), headers)
            except RecordError as error:
                return Draft(letter, None, None, error.detail)
        elif "value_hex" in copy:
            value = bytes.fromhex(copy["value_hex"])
        return Draft(letter, key, value, changed=(key, value) != (draft.key, draft.value), headers=headers)


def write_copies(verdicts: Sequence[Verdict], inlet: Inlet, registry: Registry, out: TextIO) -> None:
    """Write drafts as copies to be edited, a JSON object a line; what can't be read as an event goes out as its bytes."""
    told = _Telling(inlet, registry)
    for verdict in verdicts:
        out.write(json.dumps(told(verdict), ensure_ascii=False) + "\n")


class _Telling:
    def __init__(self, inlet: Inlet, registry: Registry) -> None:
        self._decoder = Decoder(inlet.schema, inlet.topic.framing, registry)
        self._json = json_of_record(inlet.schema)

    def __call__(self, verdict: Verdict) -> dict[str, Json]:
        draft = verdict.draft
        copy: dict[str, Json] = {
            "at": draft.letter.at,
            "refused": f"{draft.letter.reason}: {draft.letter.message}",
            "now": "would pass" if verdict.passes else f"{verdict.reason}: {verdict.detail}",
        }
        try:
            copy["key"] = None if draft.key is None else draft.key.decode()
        except UnicodeDecodeError:
            copy["key_hex"] = (draft.key or b"").hex()
        event = self._event(draft.value, draft.given)
        copy["value"] = event
        if event is None and draft.value is not None:
            copy["value_hex"] = draft.value.hex()
        return copy

    def _event(self, value: bytes | None, headers: Headers) -> Json:
        if value is None or self._decoder.decode(PackedBytes.pack([value]), None, {0: headers}).rejected[0]:
            return None
        event: Json = self._json(as_read(self._decoder, value, headers))
        return event


def _copies(file: Path) -> dict[Place, Mapping[str, Any]]:
    found: dict[Place, Mapping[str, Any]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"edited copies {file} can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            copy = json.loads(line)
            place = place_of(copy["at"])
            for name in ("key_hex", "value_hex"):
                bytes.fromhex(copy.get(name, ""))
        except (ValueError, KeyError, TypeError, AttributeError, SettingsError) as error:
            raise SchemaError(
                f"{file}:{number}: no copy of a letter ({type(error).__name__}: {error}); wanted a JSON object as `dlq fix` writes it"
            ) from error
        if place in found:
            raise SchemaError(f"{file}:{number}: a second copy of the letter {copy['at']}; wanted one of each")
        found[place] = copy
    return found


def _function(place: str) -> Callable[[Mapping[str, Any]], Any]:
    path, _, name = place.rpartition(":")
    file = Path(path)
    if not path or file.suffix != ".py" or not file.is_file():
        raise DefinitionError(f"no function at {place!r}; wanted FILE.py:FUNCTION, and the file is there")
    spec = importlib.util.spec_from_file_location(f"millrace_fix_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    with _FaultsOf(str(file)):
        spec.loader.exec_module(module)
    function: Any = getattr(module, name, None)
    if not callable(function):
        raise DefinitionError(f"{file} has no function {name!r}; {did_you_mean(name, [n for n in vars(module) if not n.startswith('_')])}")
    typed: Callable[[Mapping[str, Any]], Any] = function
    return typed


def _column(name: str, column: Any, rows: int) -> Any:
    """A column as the encoder takes it; lists of text and arrays of numbers will do."""
    if isinstance(column, list | tuple) and all(isinstance(each, str | bytes) for each in column):
        column = PackedBytes.pack([each.encode() if isinstance(each, str) else each for each in column])
    elif isinstance(column, list | tuple):
        column = np.asarray(column)
    if len(column) != rows:
        raise ValueError(f"column {name!r} has {len(column)} rows, wanted {rows}")
    return column


@dataclass(frozen=True, slots=True)
class _FaultsOf:
    """The function is the user's: whatever comes of it is told under its name, and nothing is sent."""

    name: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, MillraceError):
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise DefinitionError(f"fix {self.name}: {type(error).__name__}: {said}; nothing was sent") from error
