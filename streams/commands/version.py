"""Versions: of Millrace, and of what decides the numbers it gives."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from schemas.features import Json

DECIDING = ("numpy", "numba", "onnxruntime", "fastavro", "confluent-kafka", "redis", "faust-streaming")


def versions() -> dict[str, Json]:
    """Of Millrace, Python, and the libraries that decide results."""
    return {"millrace": _installed("millrace"), "python": platform.python_version(), **{name: _installed(name) for name in DECIDING}}


def versions_words(facts: Mapping[str, str]) -> str:
    """One line each."""
    return "\n".join(f"{name} {version}" for name, version in facts.items())


def _installed(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "not installed"
