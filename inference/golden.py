"""The golden set: rows with the scores that the training library gave them, kept beside the model and held against it at each load.

A model is moved, converted, run by another version of a runtime, on another machine; what it must not do is score otherwise. The file
stands beside the model, ``card_fraud.golden.json`` beside ``card_fraud.onnx``, and is JSON:

    format                1
    model, version        whose it is
    feature_fingerprint   of the features behind the rows
    feature_names         their order
    made_by               the library that gave the scores: name to version
    tolerance             how far a score may lie from the one expected
    rows                  a list of features each: float32, in the fewest digits that give the same float32 again
    scores                one a row: float64, likewise
    sha256                of the rows' bytes (float32, little-endian, row by row), the scores' (float64) and the tolerance's

A tree splits at a threshold, and float32 knows fewer numbers than the library's float64: a row whose value lies between a threshold and
its rounding goes the other way, and its score jumps by what one tree says. No tolerance is right for that. A golden set that holds such
rows finds it, and the export has to be mended (`docs/models.md`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inference.model_card import ModelCard
from inference.scorer import Parity, Rows, Scorer
from schemas.columns import Floats
from schemas.errors import ModelError

FORMAT = 1
MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows and the scores expected of them.

    Attributes:
        model, version, feature_fingerprint, feature_names: of the model they belong to.
        rows: shape (n, k) of float32.
        scores: shape (n,).
        tolerance: how far a score may lie from the expected one.
        made_by: what gave the scores: name to version.
    """

    model: str
    version: str
    feature_fingerprint: str
    feature_names: tuple[str, ...]
    rows: Rows
    scores: Floats
    tolerance: float
    made_by: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def sha256(self) -> str:
        """Names the rows, the scores and the tolerance."""
        digest = hashlib.sha256(self.rows.astype("<f4").tobytes())
        digest.update(self.scores.astype("<f8").tobytes())
        digest.update(np.float64(self.tolerance).astype("<f8").tobytes())
        return digest.hexdigest()


def golden_path(model: Path) -> Path:
    """Where the golden set of a model's file is."""
    return model.with_suffix(".golden.json")


def write_golden(model: Path, golden: Golden) -> None:
    """Put a golden set beside a model; a reader sees the old file or the new one. The same set gives the same bytes."""
    said = {
        "format": FORMAT,
        "model": golden.model,
        "version": golden.version,
        "feature_fingerprint": golden.feature_fingerprint,
        "feature_names": list(golden.feature_names),
        "made_by": dict(golden.made_by),
        "tolerance": golden.tolerance,
        "sha256": golden.sha256,
    }
    head = json.dumps(said, indent=1, sort_keys=True).removesuffix("\n}")
    rows = ",\n".join("  [" + ", ".join(map(str, row)) + "]" for row in golden.rows)  # numpy writes a float32 in its own fewest digits
    scores = ",\n".join(f"  {score!r}" for score in golden.scores.tolist())
    path = golden_path(model)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(f'{head},\n "rows": [\n{rows}\n ],\n "scores": [\n{scores}\n ]\n}}\n', encoding="utf-8")
    os.replace(unfinished, path)


def read_golden(model: Path) -> Golden | None:
    """The golden set beside a model; None if there is none.

    Raises:
        ModelError: the file is broken, or was changed.
    """
    path = golden_path(model)
    if not path.exists():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        golden = _golden(said)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no golden set: {type(error).__name__}: {error}; make it again with the model") from error
    if golden.sha256 != said.get("sha256"):
        raise ModelError(
            f"{path} is not what was written: its SHA-256 is {golden.sha256[:16]}..., it says {str(said.get('sha256'))[:16]}..."
        )
    return golden


def _golden(said: Mapping[str, Any]) -> Golden:
    if said["format"] != FORMAT:
        raise ValueError(f"format {said['format']}, wanted {FORMAT}")
    names = tuple(str(name) for name in said["feature_names"])
    rows = np.array(said["rows"], np.float32)
    scores = np.array(said["scores"], np.float64)
    tolerance = float(said["tolerance"])
    if rows.shape != (len(scores), len(names)) or not len(scores):
        raise ValueError(f"rows of shape {rows.shape} and {len(scores)} scores for {len(names)} features")
    if not (np.isfinite(rows).all() and np.isfinite(scores).all() and tolerance >= 0):
        raise ValueError("a number is not finite, or the tolerance is below 0")
    made_by = {str(name): str(version) for name, version in dict(said["made_by"]).items()}
    return Golden(str(said["model"]), str(said["version"]), str(said["feature_fingerprint"]), names, rows, scores, tolerance, made_by)


def hold_to(golden: Golden, scorer: Scorer, card: ModelCard, model: Path) -> Parity:
    """Score the golden rows, and hold the scores against the expected ones.

    Raises:
        ModelError: the set is another model's, or a score lies farther from the expected one than the tolerance allows; says which rows.
        ScoringFailed: the model's run failed.
    """
    path = golden_path(model)
    theirs = (golden.model, golden.version, golden.feature_fingerprint, golden.feature_names)
    if theirs != (card.name, card.version, card.feature_fingerprint, card.feature_names):
        raise ModelError(
            f"{path} is of model {golden.model} {golden.version} with features {golden.feature_fingerprint}, and {model.name} is "
            f"{card.name} {card.version} with features {card.feature_fingerprint}: wanted the two files of one export"
        )
    if card.golden_sha256 is not None and card.golden_sha256 != golden.sha256:
        raise ModelError(f"{path} has SHA-256 {golden.sha256[:16]}..., the model's card wants {card.golden_sha256[:16]}...")
    found = scorer.score(golden.rows).astype(np.float64)
    apart = np.abs(found - golden.scores)
    off = np.flatnonzero(~(apart <= golden.tolerance))
    if len(off):
        worst = off[np.argsort(-apart[off], kind="stable")][:MOST_TOLD]
        told = "; ".join(f"row {row} scores {found[row]:.9g}, wanted {golden.scores[row]:.9g}" for row in worst.tolist())
        raise ModelError(
            f"{model}: {len(off)} of {len(golden.scores)} golden rows are not scored as {_list(golden.made_by)} scored them, within "
            f"{golden.tolerance:g}: {told}. Another model under this name, another runtime, or an export whose rounding moves rows across "
            "splits; export it again (docs/models.md)"
        )
    return Parity(len(found), float(apart.max()), golden.tolerance)


def _list(made_by: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(made_by.items())) or "the training library"
