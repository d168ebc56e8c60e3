"""A model's card: what it is called, which features it was made for, and how good it was. It travels inside the ONNX file.

Each entry is one of the file's metadata properties, under ``millrace.``; lists and mappings are JSON:

    millrace.name  millrace.version  millrace.feature_names  millrace.feature_fingerprint  millrace.threshold
    millrace.schema_fingerprint  millrace.trained_at  millrace.libraries  millrace.metrics
    millrace.training_data_sha256  millrace.golden_sha256                                       (these six may be missing)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

PREFIX = "millrace."
NEEDED = ("name", "version", "feature_names", "feature_fingerprint", "threshold")
ANY_FEATURES = "any"  # the fingerprint of a model that looks at none
WAY_OUT = "write one with inference.model_card.write_card when the model is exported"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model says of itself."""

    name: str
    version: str
    feature_names: tuple[str, ...]  # in the order of its inputs
    feature_fingerprint: str  # `FeatureSet.fingerprint` of the features it was trained on
    threshold: float  # a score at or above it is an alert
    schema_fingerprint: str | None = None  # of the input's Avro schema at training time
    trained_at: str | None = None  # ISO 8601: the end of the history it was trained on
    libraries: Mapping[str, str] = field(default_factory=dict, hash=False)  # what made it: name to version
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)  # measured before it went out
    training_data_sha256: str | None = None  # of the rows it learned from, and what they were; as whoever trained it says
    golden_sha256: str | None = None  # of the golden set beside it


def write_card(model: ModelProto, card: ModelCard) -> None:
    """Put the card into an ONNX model's metadata, in place of the one it may have; other metadata stays."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith(PREFIX)]
    del model.metadata_props[:]
    for key, value in kept + sorted(to_metadata(card).items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def to_metadata(card: ModelCard) -> dict[str, str]:
    """The card as metadata properties, keys with their prefix."""
    entries = {
        "name": card.name,
        "version": card.version,
        "feature_names": json.dumps(list(card.feature_names)),
        "feature_fingerprint": card.feature_fingerprint,
        "threshold": repr(float(card.threshold)),
        "schema_fingerprint": card.schema_fingerprint,
        "trained_at": card.trained_at,
        "libraries": json.dumps(dict(card.libraries), sort_keys=True) if card.libraries else None,
        "metrics": json.dumps(dict(card.metrics), sort_keys=True) if card.metrics else None,
        "training_data_sha256": card.training_data_sha256,
        "golden_sha256": card.golden_sha256,
    }
    return {PREFIX + key: value for key, value in entries.items() if value is not None}


def from_metadata(metadata: Mapping[str, str], where: str) -> ModelCard:
    """Read a card from a model's metadata.

    Raises:
        ModelError: there is no card, or an entry of it is missing or unreadable.
    """
    entries = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    missing = [PREFIX + key for key in NEEDED if not entries.get(key)]
    if len(missing) == len(NEEDED):
        raise ModelError(f"{where}: the model carries no card (metadata {PREFIX}*), so nothing says which features it wants; {WAY_OUT}")
    if missing:
        raise ModelError(f"{where}: the model's card lacks {', '.join(missing)}; {WAY_OUT}")
    return ModelCard(
        name=entries["name"],
        version=entries["version"],
        feature_names=_names(entries["feature_names"], where),
        feature_fingerprint=entries["feature_fingerprint"],
        threshold=_threshold(entries["threshold"], where),
        schema_fingerprint=entries.get("schema_fingerprint"),
        trained_at=entries.get("trained_at"),
        libraries={name: str(version) for name, version in _mapping(entries, "libraries", where).items()},
        metrics=_metrics(entries, where),
        training_data_sha256=entries.get("training_data_sha256"),
        golden_sha256=entries.get("golden_sha256"),
    )


def bind(card: ModelCard, inputs: tuple[str, ...], feature_fingerprint: str) -> None:
    """Hold a model against the pipeline that is to feed it.

    Args:
        card: the model's side.
        inputs: the features the pipeline gives it, in order.
        feature_fingerprint: of the pipeline's definitions of just these, in this order.

    Raises:
        ModelError: names, their count, their order or the definitions behind them differ; both sides are shown.
    """
    if card.feature_fingerprint == ANY_FEATURES:
        return
    made_for = card.feature_names
    who = f"model {card.name} {card.version}"
    if sorted(made_for) != sorted(inputs):
        only_model = [name for name in made_for if name not in inputs]
        only_pipeline = [name for name in inputs if name not in made_for]
        raise ModelError(
            f"{who} was made for {len(made_for)} features, the pipeline gives {len(inputs)}: "
            f"only the model has {_list(only_model)}; only the pipeline has {_list(only_pipeline)}"
        )
    for place, (wanted, given) in enumerate(zip(made_for, inputs, strict=True)):
        if wanted != given:
            raise ModelError(
                f"{who} and the pipeline order their features differently: input {place} is {wanted!r} for the model, "
                f"{given!r} in the pipeline; "
                f"the model wants {_list(made_for)}; the pipeline gives {_list(inputs)}"
            )
    if card.feature_fingerprint != feature_fingerprint:
        raise ModelError(
            f"{who} was trained on features with fingerprint {card.feature_fingerprint}, the pipeline's have {feature_fingerprint}: "
            "the names are the same, a definition behind them is not (window, lateness, scale, fill, version); "
            "train again, or take back the change"
        )


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names) if names else "none"


def _names(text: str, where: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{where}: {PREFIX}feature_names is {text[:80]!r}, wanted a JSON list of names") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{where}: {PREFIX}feature_names is {text[:80]!r}, wanted a JSON list of names")
    if len(set(names)) < len(names):
        raise ModelError(f"{where}: {PREFIX}feature_names names a feature twice: {text[:200]}")
    return tuple(names)


def _threshold(text: str, where: str) -> float:
    try:
        threshold = float(text)
    except ValueError as error:
        raise ModelError(f"{where}: {PREFIX}threshold is {text!r}, wanted a number") from error
    if not math.isfinite(threshold):
        raise ModelError(f"{where}: {PREFIX}threshold is {text!r}, wanted a finite number")
    return threshold


def _mapping(entries: Mapping[str, str], key: str, where: str) -> dict[str, object]:
    text = entries.get(key, "{}")
    try:
        mapping = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{where}: {PREFIX}{key} is {text[:80]!r}, wanted a JSON object") from error
    if not isinstance(mapping, dict):
        raise ModelError(f"{where}: {PREFIX}{key} is {text[:80]!r}, wanted a JSON object")
    return mapping


def _metrics(entries: Mapping[str, str], where: str) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, value in _mapping(entries, "metrics", where).items():
        if not isinstance(value, int | float):
            raise ModelError(f"{where}: {PREFIX}metrics says {name} is {value!r}, wanted a number")
        metrics[name] = float(value)
    return metrics
