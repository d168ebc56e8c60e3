"""The feature set: which numbers a model sees, in which order, and the fingerprint that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import DefinitionError

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def fingerprint(definition: Json) -> str:
    """16 hex digits that name a definition: SHA-256 over its canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of a row: its name, its unit, and the definition it is computed from."""

    name: str
    unit: str
    definition: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of a row, in order. Two sets with one fingerprint give the same bits for the same log."""

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise DefinitionError(f"two features are named {feature.name!r}; each name may stand once")
            seen.add(feature.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of a row."""
        return tuple(feature.name for feature in self.features)

    @property
    def fingerprint(self) -> str:
        """Names the definitions and their order: window, lateness, grid, fill and scale are all in it."""
        return fingerprint([[f.name, dict(f.definition)] for f in self.features])

    def select(self, names: Sequence[str]) -> FeatureSet:
        """The named features, in the order given."""
        known = {feature.name: feature for feature in self.features}
        missing = [name for name in names if name not in known]
        if missing:
            raise DefinitionError(f"no feature is named {', '.join(missing)}; there are {', '.join(known)}")
        return FeatureSet(tuple(known[name] for name in names))
