"""Versions: what a registry, or a folder of files in its place, has of a topic's schema."""

from __future__ import annotations

from schemas.avro import AvroSchema
from schemas.errors import RetryLater, SchemaError
from schemas.features import Json
from schemas.registry import FILE_NAME, FileRegistry, Registry, open_registry, registered_id
from streams.definition.bound import Bound
from streams.settings import RegistrySettings


class Versions:
    """Asks the registry of the settings, else the folder beside a pipeline's schema. One that does not answer is asked once."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._down = ""

    def of(self, bound: Bound, subject: str, schema: AvroSchema) -> Json:
        """Of a subject: the id of its latest version, that of the pipeline's own schema, all that a folder has; and what is wrong."""
        told: dict[str, Json] = {"subject": subject, "latest": None, "ours": None, "ids": [], "says": self._down}
        if self._down:
            return told
        try:
            registry = open_registry(self._settings.place(bound.schema_folder), self._settings.client_keys)
            latest = registry.latest(subject)
            ours, says = registered_id(registry, subject, schema)
        except RetryLater as error:
            self._down = told["says"] = str(error)
            return told
        except SchemaError as error:
            return {**told, "says": str(error)}
        return {**told, "latest": None if latest is None else latest[0], "ours": ours, "ids": _ids(registry, subject), "says": says}


def _ids(registry: Registry, subject: str) -> list[Json]:
    if not isinstance(registry, FileRegistry):
        return []
    names = [FILE_NAME.fullmatch(path.name) for path in registry.folder.iterdir()]
    found: list[Json] = [*sorted(int(name[1]) for name in names if name is not None and name[2] == subject)]
    return found
