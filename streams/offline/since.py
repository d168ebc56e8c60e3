"""Since when: a file beside the pipeline's, with the day on which each feature's present definition was first recorded.

A definition does not know its age, and a version control system knows that of a file. So it is written down when somebody says so
(`millrace features ls --record`), in a file that is kept with the pipeline's own:

    {"format": 1, "features": {"customer_count_1d": {"fingerprint": "0123456789abcdef", "since": "2026-11-21"}}}

A feature whose fingerprint is another one is another feature, and begins anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from schemas.errors import DefinitionError, SettingsError
from streams.definition.bound import Bound

FORMAT = 1


def record_path(bound: Bound) -> Path:
    """Where a pipeline's record is."""
    return bound.folder / f"{bound.name}.features.json"


def known_since(bound: Bound) -> dict[tuple[str, str], str]:
    """By name and fingerprint, the day from which on a feature is known; nothing where nobody has recorded it.

    Raises:
        DefinitionError: the file is no such record.
    """
    path = record_path(bound)
    if not path.exists():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']}, wanted {FORMAT}")
        return {
            (str(name), str(each["fingerprint"])): date.fromisoformat(each["since"]).isoformat() for name, each in said["features"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{path} is no record of features: {type(error).__name__}: {error}") from error


def record(bound: Bound, catalogue: Mapping[str, Any], today: date) -> None:
    """Write down since when the features of a catalogue are known: those that were, since then; the others since today.

    Raises:
        DefinitionError: what is there is no such record.
        SettingsError: it can't be written.
    """
    known = known_since(bound)
    features = {
        each["name"]: {
            "fingerprint": each["fingerprint"],
            "since": known.get((each["name"], each["fingerprint"]), today.isoformat()),
        }
        for each in catalogue["features"]
    }
    path = record_path(bound)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps({"format": FORMAT, "features": features}, indent=1) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} can't be written: {error.strerror}") from error
