"""`millrace schema register`: the one way a schema gets into a registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.avro import load_schema
from schemas.errors import SettingsError
from schemas.features import Json
from schemas.registry import open_registry
from streams.settings import Settings


def register_schema(file: Path, subject: str, folder: Path | None, settings: Settings) -> dict[str, Json]:
    """Register a schema under a subject, unless it is the subject's latest already.

    Args:
        file: the schema.
        subject: whose.
        folder: of files, in place of a registry; None = what the settings name.
        settings: for the registry.

    Raises:
        SettingsError: nothing says where to.
        SchemaError: the schema is broken, describes no record, or the registry refuses it.
        RetryLater: the registry does not answer.
    """
    schema = load_schema(file)
    schema.fields  # noqa: B018 - refuses what is no record
    place = str(folder) if folder is not None else settings.registry.place("")
    if not place:
        raise SettingsError("no registry to register with; wanted registry.url (SCHEMA_REGISTRY_URL), registry.folder, or --folder")
    registry = open_registry(place, settings.registry.client_keys)
    found = registry.latest(subject)
    if found is not None and found[1].fingerprint == schema.fingerprint:
        return {"subject": subject, "id": found[0], "made": False, "fingerprint": schema.fingerprint}
    return {"subject": subject, "id": registry.register(subject, schema), "made": True, "fingerprint": schema.fingerprint}


def register_words(facts: Mapping[str, Any]) -> str:
    """One line."""
    return f"{facts['subject']} {'is now' if facts['made'] else 'was already'} id {facts['id']}"
