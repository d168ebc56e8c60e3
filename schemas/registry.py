"""Registries: which schema an id stands for, and which id is a subject's latest.

A registry is a server with Confluent's API, ``mock://`` in its place, or a folder of files. An id means one schema for ever, so
what was found once is kept; what was not found is asked for again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from schemas.avro import AvroSchema, load_schema
from schemas.errors import RetryLater, SchemaError, SettingsError

_FILE_NAME = re.compile(r"(\d+)-(.+)\.avsc")
_LATEST_KEPT_SECONDS = 60

_mock_clients: dict[str, Any] = {}  # by URL: a mock lives as long as its process, and is one for all who name it


class Registry(Protocol):
    """Ids and their schemas."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema with this id; None if the registry knows none.

        Raises:
            RetryLater: the registry does not answer.
            SchemaError: what it has under this id is no Avro schema.
        """

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        """A subject's newest schema and its id; None if there is no such subject. Raises what `schema` does."""

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The id of a schema in a subject, new unless the subject has it already.

        Raises:
            RetryLater: the registry does not answer.
            SchemaError: the registry refuses the schema, as one that the subject's readers could not read.
        """


class FileRegistry:
    """A folder of files named ``<id>-<subject>.avsc``; files added later are found when their id is asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SchemaError(f"schema folder {self.folder} is missing")
        self._known: dict[int, AvroSchema] = {}

    def schema(self, schema_id: int) -> AvroSchema | None:
        if schema_id not in self._known:
            found = self._files().get(schema_id)
            if found is None:
                return None
            self._known[schema_id] = load_schema(found)
        return self._known[schema_id]

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        ids = [schema_id for schema_id, path in self._files().items() if _subject(path) == subject]
        schema = self.schema(max(ids)) if ids else None
        return (max(ids), schema) if schema is not None else None

    def register(self, subject: str, schema: AvroSchema) -> int:
        if not re.fullmatch(r"[\w.\-]+", subject):
            raise SchemaError(f"subject {subject!r} can't be part of a file's name")
        with self._alone():
            files = self._files()
            for schema_id, path in files.items():
                if _subject(path) == subject and self.schema(schema_id) == schema:
                    return schema_id
            schema_id = max(files, default=0) + 1
            unfinished = self.folder / f".{schema_id}.part"
            unfinished.write_text(json.dumps(schema.definition, indent=2) + "\n", encoding="utf-8")
            unfinished.replace(self.folder / f"{schema_id}-{subject}.avsc")  # readers see the whole file or none
            return schema_id

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process registers at the same time: two would give out one id."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _files(self) -> dict[int, Path]:
        files: dict[int, Path] = {}
        try:
            paths = sorted(self.folder.iterdir())
        except OSError as error:
            raise RetryLater(f"schema folder {self.folder} can't be read: {error}") from error
        for path in paths:
            if named := _FILE_NAME.fullmatch(path.name):
                schema_id = int(named[1])
                if schema_id in files:
                    raise SchemaError(f"{files[schema_id]} and {path.name} have one id; an id stands for one schema")
                files[schema_id] = path
        return files


class ConfluentRegistry:
    """A server with Confluent's API.

    Args:
        url: ``http://``, ``https://`` (several with commas between) or ``mock://name``.
        options: the client's own settings, with their dots: ``basic.auth.user.info``, ``ssl.ca.location``, ...
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._client = _client(url, dict(options or {}))
        self._place = re.sub(r"//[^/@]*@", "//", url)  # shown in messages: without a password
        self._known: dict[int, AvroSchema] = {}

    def schema(self, schema_id: int) -> AvroSchema | None:
        if schema_id not in self._known:
            with self._answering(), _none_if_missing():
                self._known[schema_id] = self._parse(self._client.get_schema(schema_id), f"schema {schema_id}")
        return self._known.get(schema_id)

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        with self._answering(), _none_if_missing():
            found = self._client.get_latest_version(subject)
            self._known[found.schema_id] = self._parse(found.schema, f"subject {subject}")
            return found.schema_id, self._known[found.schema_id]
        return None

    def register(self, subject: str, schema: AvroSchema) -> int:
        from confluent_kafka.schema_registry import Schema

        with self._answering():
            schema_id: int = self._client.register_schema(subject, Schema(json.dumps(schema.definition), "AVRO"))
        return schema_id

    def _parse(self, found: Any, what: str) -> AvroSchema:
        what = f"{what} of {self._place}"
        if (found.schema_type or "AVRO") != "AVRO":
            raise SchemaError(f"{what} is of type {found.schema_type}, wanted AVRO")
        if found.references:
            names = ", ".join(reference.name for reference in found.references)
            raise SchemaError(f"{what} refers to other schemas ({names}); wanted one that stands alone")
        return AvroSchema.parse(found.schema_str, what)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell "does not answer" from "answers no"."""
        import httpx2 as httpx  # what the client itself prefers: another httpx has other errors
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

        try:
            yield
        except SchemaRegistryError as error:
            if error.http_status_code in (409, 422):
                raise SchemaError(f"schema registry {self._place} refuses the schema: {error}") from error
            raise RetryLater(f"schema registry {self._place}: {error}") from error
        except (httpx.HTTPError, OAuthTokenError, OSError) as error:
            raise RetryLater(f"schema registry {self._place} does not answer: {type(error).__name__}: {error}") from error


def open_registry(place: str | Path, options: Mapping[str, Any] | None = None) -> Registry:
    """The registry at a URL or in a folder."""
    if isinstance(place, str) and "://" in place:
        return ConfluentRegistry(place, options)
    return FileRegistry(place)


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


@contextmanager
def _none_if_missing() -> Iterator[None]:
    # A registry's own "not found" has a code of 404xx. A bare 404 is some proxy's, and says nothing about the schema.
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        yield
    except SchemaRegistryError as error:
        if error.http_status_code != 404 or (error.error_code or 0) // 100 != 404:
            raise


def _subject(path: Path) -> str:
    named = _FILE_NAME.fullmatch(path.name)
    return named[2] if named else ""
