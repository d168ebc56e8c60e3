"""The two-stage pipeline for tests: two_stages/pipeline.py, bound as it is or with parts of its text replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.definition.bound import Bound
from streams.definition.load import load_bound

TWO_STAGES = Path(__file__).parent / "two_stages"


def write_staged(folder: Path, changes: Mapping[str, str] | None = None, label_fields: Mapping[str, Any] | None = None) -> Path:
    """Its files in a folder; the path of the pipeline file.

    Args:
        folder: where they go.
        changes: what replaces parts of the pipeline's text.
        label_fields: types of fields of the labels' schema, new or other ones; None leaves a field out.
    """
    shutil.copy(TWO_STAGES / "payments.avsc", folder)
    schema = json.loads((TWO_STAGES / "payment-labels.avsc").read_text())
    types = {field["name"]: field["type"] for field in schema["fields"]} | dict(label_fields or {})
    schema["fields"] = [{"name": name, "type": kind} for name, kind in types.items() if kind is not None]
    (folder / "payment-labels.avsc").write_text(json.dumps(schema))
    text = (TWO_STAGES / "pipeline.py").read_text()
    for old, new in (changes or {}).items():
        assert old in text, f"{old!r} is not in the pipeline"
        text = text.replace(old, new)
    file = folder / "pipeline.py"
    file.write_text(text)
    return file


def staged(folder: Path, changes: Mapping[str, str] | None = None, label_fields: Mapping[str, Any] | None = None) -> Bound:
    """The same, held against its schemas."""
    return load_bound(write_staged(folder, changes, label_fields))
