"""Registries: which schema an id stands for, and which id is a subject's latest.

A registry is a server with Confluent's API, ``mock://`` in its place, or a folder of files. An id means one schema for ever, so
what was found once is kept; what was not found is asked for again.

Whoever asks by id decodes records, and gets the same verdict on them whenever he asks: a file half written, two files that
contradict each other and an answer that is no Avro schema count as not found, which is waited for, and never as a schema that
can't be read, which would be final. Only `latest` and `register`, asked at start-up, refuse them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote
from uuid import UUID

from schemas.avro import AvroSchema, load_schema
from schemas.errors import RetryLater, SchemaError, SettingsError

_log = logging.getLogger(__name__)
FILE_NAME = re.compile(r"(\d+)-(.+)\.avsc")
_LATEST_KEPT_SECONDS = 60

_mock_clients: dict[str, Any] = {}  # by URL: a mock lives as long as its process, and is one for all who name it


class Registry(Protocol):
    """Ids and their schemas."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema with this id; None if the registry knows none, or has something else in its place: later it may have one.

        Raises:
            RetryLater: the registry does not answer.
        """

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        """A subject's newest schema and its id; None if there is no such subject.

        Raises:
            RetryLater: the registry does not answer.
            SchemaError: what it has is no Avro schema that stands alone, or contradicts itself.
        """

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The id of a schema in a subject, new unless the subject has it already.

        Raises:
            RetryLater: the registry does not answer.
            SchemaError: the registry refuses the schema, as one that the subject's readers could not read, or contradicts itself.
        """


class _Warnings:
    """Says once why an id has no schema, and again only if the reason is another: an id may be asked for with every batch."""

    def __init__(self) -> None:
        self._said: dict[int | UUID, str] = {}

    def say(self, schema_id: int | UUID, why: str) -> None:
        if self._said.get(schema_id) != why:
            self._said[schema_id] = why
            _log.warning("a schema counts as unknown schema_id=%s reason=%s", schema_id, why)


class FileRegistry:
    """A folder of files named ``<id>-<subject>.avsc``; files added later are found when their id is asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SchemaError(f"schema folder {self.folder} is missing")
        self._known: dict[int, AvroSchema] = {}
        self._warnings = _Warnings()

    def schema(self, schema_id: int) -> AvroSchema | None:
        if schema_id in self._known:
            return self._known[schema_id]
        paths = self._files().get(schema_id)
        if paths is None:
            return None
        try:
            return self._load(schema_id, _only(paths))
        except SchemaError as error:
            if isinstance(error.__cause__, OSError):
                raise RetryLater(str(error)) from error
            self._warnings.say(schema_id, str(error))  # a copy may be under way
            return None

    def schema_of_guid(self, guid: UUID) -> AvroSchema | None:
        """The schema whose GUID, as a folder has them, this is."""
        numbers = [number for number, paths in self._files().items() if len(paths) == 1]
        return next((found for number in numbers if (found := self.schema(number)) is not None and _guid(found) == guid), None)

    def guid_of(self, subject: str, schema: AvroSchema) -> UUID | None:
        """The GUID under which a subject has a schema: made of its text."""
        number = self.id_of(subject, schema)
        found = None if number is None else self.schema(number)
        return None if found is None else _guid(found)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        ids = {schema_id: path for schema_id, path in self._sound_files().items() if _subject(path) == subject}
        return (max(ids), self._load(max(ids), ids[max(ids)])) if ids else None

    def register(self, subject: str, schema: AvroSchema) -> int:
        if not re.fullmatch(r"[\w.\-]+", subject):
            raise SchemaError(f"subject {subject!r} can't be part of a file's name")
        with self._alone():
            files = self._sound_files()
            for schema_id, path in files.items():
                if _subject(path) == subject and self._load(schema_id, path) == schema:
                    return schema_id
            schema_id = max(files, default=0) + 1
            unfinished = self.folder / f".{schema_id}.part"
            unfinished.write_text(json.dumps(schema.definition, indent=2) + "\n", encoding="utf-8")
            unfinished.replace(self.folder / f"{schema_id}-{subject}.avsc")  # readers see the whole file or none
            return schema_id

    def id_of(self, subject: str, schema: AvroSchema) -> int | None:
        """The newest id under which a subject has a schema, whatever came after it."""
        ids = [number for number, path in self._sound_files().items() if _subject(path) == subject]
        return next((number for number in sorted(ids, reverse=True) if self._is(number, schema)), None)

    def _is(self, schema_id: int, schema: AvroSchema) -> bool:
        found = self.schema(schema_id)
        return found is not None and found.fingerprint == schema.fingerprint

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process registers at the same time: two would give out one id."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _load(self, schema_id: int, path: Path) -> AvroSchema:
        if schema_id not in self._known:
            self._known[schema_id] = _shallow(load_schema, path)
        return self._known[schema_id]

    def _sound_files(self) -> dict[int, Path]:
        return {schema_id: _only(paths) for schema_id, paths in self._files().items()}

    def _files(self) -> dict[int, list[Path]]:
        files: dict[int, list[Path]] = {}
        try:
            paths = sorted(self.folder.iterdir())
        except OSError as error:
            raise RetryLater(f"schema folder {self.folder} can't be read: {error}") from error
        for path in paths:
            if named := FILE_NAME.fullmatch(path.name):
                files.setdefault(int(named[1]), []).append(path)
        return files


class ConfluentRegistry:
    """A server with Confluent's API.

    Args:
        url: ``http://``, ``https://`` (several with commas between) or ``mock://name``.
        options: the client's own settings, with their dots: ``basic.auth.user.info``, ``ssl.ca.location``, ...
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._place, user_info = _without_secrets(url)  # shown in messages, ours and the client's
        self._client = _client(self._place, {**user_info, **(options or {})})
        self._known: dict[int, AvroSchema] = {}
        self._by_guid: dict[UUID, AvroSchema] = {}
        self._warnings = _Warnings()

    def schema(self, schema_id: int) -> AvroSchema | None:
        if schema_id not in self._known:
            found = self._look_up(lambda: self._client.get_schema(schema_id))
            if found is None:
                return None
            try:
                self._known[schema_id] = self._parse(found, f"schema {schema_id}")
            except SchemaError as error:
                self._warnings.say(schema_id, str(error))
                self._client.clear_caches()  # the client would never ask for this id again
                return None
        return self._known[schema_id]

    def schema_of_guid(self, guid: UUID) -> AvroSchema | None:
        """The schema that the server calls so."""
        if guid not in self._by_guid:
            found = self._look_up(lambda: self._client.get_schema_by_guid(str(guid)))
            if found is None:
                return None
            try:
                self._by_guid[guid] = self._parse(found, f"schema {guid}")
            except SchemaError as error:
                self._warnings.say(guid, str(error))
                self._client.clear_caches()
                return None
        return self._by_guid[guid]

    def guid_of(self, subject: str, schema: AvroSchema) -> UUID | None:
        """The GUID under which a subject has a schema; None where the server has none."""
        from confluent_kafka.schema_registry import Schema

        found = self._look_up(lambda: self._client.lookup_schema(subject, Schema(json.dumps(schema.definition), "AVRO")))
        return None if found is None or found.guid is None else UUID(found.guid)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        found = self._look_up(lambda: self._client.get_latest_version(subject))
        if found is None:
            return None
        schema = self._parse(found.schema, f"subject {subject}")
        known = self._known.setdefault(found.schema_id, schema)
        if known.fingerprint != schema.fingerprint:
            raise SchemaError(
                f"schema registry {self._place} gives another schema for id {found.schema_id} than before, as the latest of {subject}; "
                "an id stands for one schema for ever: is it the same registry?"
            )
        return found.schema_id, known

    def register(self, subject: str, schema: AvroSchema) -> int:
        from confluent_kafka.schema_registry import Schema
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        with self._answering():
            try:
                schema_id: int = self._client.register_schema(subject, Schema(json.dumps(schema.definition), "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code not in (409, 422):
                    raise
                raise SchemaError(f"schema registry {self._place} refuses the schema: {error}") from error
        return schema_id

    def id_of(self, subject: str, schema: AvroSchema) -> int | None:
        """The id under which a subject has a schema, whatever came after it."""
        from confluent_kafka.schema_registry import Schema

        found = self._look_up(lambda: self._client.lookup_schema(subject, Schema(json.dumps(schema.definition), "AVRO")))
        return None if found is None else int(found.schema_id)

    def _look_up(self, ask: Callable[[], Any]) -> Any:
        """What the client finds; None if the registry says there is none."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        with self._answering():
            try:
                return ask()
            except SchemaRegistryError as error:
                # A registry's own "not found" has a code of 404xx. A bare 404 is some proxy's, and says nothing about the schema.
                if error.http_status_code == 404 and (error.error_code or 0) // 100 == 404:
                    return None
                raise
            except (ValueError, TypeError, AttributeError, KeyError) as error:  # what the client raises at a page that is no answer
                raise RetryLater(f"schema registry {self._place} does not answer as one: {type(error).__name__}: {error}") from error

    def _parse(self, found: Any, what: str) -> AvroSchema:
        what = f"{what} of {self._place}"
        if (found.schema_type or "AVRO") != "AVRO":
            raise SchemaError(f"{what} is of type {found.schema_type}, wanted AVRO")
        if found.references:
            names = ", ".join(reference.name for reference in found.references)
            raise SchemaError(f"{what} refers to other schemas ({names}); wanted one that stands alone")
        return _shallow(AvroSchema.parse, found.schema_str, what)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What the client raises where there is no answer, as ours."""
        import httpx2 as httpx  # what the client itself prefers: another httpx has other errors
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

        try:
            yield
        except SchemaRegistryError as error:
            raise RetryLater(f"schema registry {self._place}: {error}") from error
        except (httpx.HTTPError, OAuthTokenError, OSError) as error:
            raise RetryLater(f"schema registry {self._place} does not answer: {type(error).__name__}: {error}") from error


def registered_id(registry: Registry, subject: str, schema: AvroSchema) -> tuple[int | None, str]:
    """The id that a schema has in a subject, its latest or an older one; else None, and in words what there is.

    Raises:
        RetryLater: the registry does not answer.
        SchemaError: what it has is broken.
    """
    latest = registry.latest(subject)
    if latest is None:
        return None, "is not registered"
    if latest[1].fingerprint == schema.fingerprint:
        return latest[0], ""
    older = registry.id_of(subject, schema) if isinstance(registry, FileRegistry | ConfluentRegistry) else None
    return older, "" if older is not None else f"is registered as id {latest[0]} with other fields"


def schema_of_guid(registry: Registry, guid: UUID) -> AvroSchema | None:
    """The schema with a GUID; None if the registry knows none: later it may.

    Raises:
        RetryLater: the registry does not answer.
    """
    return registry.schema_of_guid(guid) if isinstance(registry, FileRegistry | ConfluentRegistry) else None


def open_registry(place: str | Path, options: Mapping[str, Any] | None = None) -> Registry:
    """The registry at a URL or in a folder."""
    if isinstance(place, str) and "://" in place:
        return ConfluentRegistry(place, options)
    return FileRegistry(place)


def _without_secrets(url: str) -> tuple[str, dict[str, str]]:
    """An address, and the client's setting that says what it said of a user; of several addresses, what the first one said."""
    user_info: dict[str, str] = {}
    bare = []
    for each in re.split(r",\s*(?=https?://)", url):
        scheme, _, rest = each.partition("://")
        who, at, where = rest.rpartition("@")
        bare.append(f"{scheme}://{where}")
        if at and ":" in who and len(bare) == 1:
            user_info = {"basic.auth.user.info": unquote(who)}
    return ",".join(bare), user_info


def _client(url: str, options: dict[str, Any]) -> Any:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    settings = {"cache.latest.ttl.sec": _LATEST_KEPT_SECONDS, **options, "url": url}
    try:
        if not url.startswith("mock://"):
            return SchemaRegistryClient.new_client(settings)
        if url not in _mock_clients:
            _mock_clients[url] = SchemaRegistryClient.new_client(settings)
        return _mock_clients[url]
    except (ValueError, TypeError) as error:
        raise SettingsError(f"schema registry: {error}") from error
    except OSError as error:  # with a certificate or a key, which it reads at once
        files = ", ".join(f"{key}={value}" for key, value in settings.items() if key.endswith(".location"))
        raise SettingsError(f"schema registry: {files}: {error.strerror or error}; wanted files in PEM that can be read") from error


def _guid(schema: AvroSchema) -> UUID:
    text = json.dumps(schema.definition, sort_keys=True, separators=(",", ":"))
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise SchemaError(f"{names} in {paths[0].parent} have one id; an id stands for one schema")
    return paths[0]


def _shallow(parse: Callable[..., AvroSchema], *source: Any) -> AvroSchema:
    try:
        return parse(*source)
    except RecursionError as error:
        raise SchemaError(f"{source[-1]} is nested too deep") from error


def _subject(path: Path) -> str:
    named = FILE_NAME.fullmatch(path.name)
    return named[2] if named else ""
