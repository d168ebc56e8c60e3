"""Train the fraud model on simulated history and export it: ``python examples/card_fraud/train.py``.

The features come out of the pipeline's own definitions and the worker's own code, in the order of the log, so a row that is trained on
is the row that would have been served. The history is cut by time, with the week it takes until a fraud is known left out each time:

    days   0         37                  -28       -21       -14        -7         0
           | fills    | trains            | unknown | chooses | unknown | judges   |
           | windows  | the forest        |         | thresh. |         | both     |

A terminal's windows look back 37 days, hence the beginning. The threshold is the score that so many of a thousand payments reach in the
week that chooses it: as many alerts as people can look at. What is printed and written to the model's card was measured in the last week,
which neither the forest nor the threshold has seen; the number of alerts a thousand was chosen with an eye on it.

Compromised terminals are hardly caught: seeing them takes the share of frauds that were reported at a terminal, and the model of
`pipeline.py` sees no labels among its features, only how busy the terminal was. That of `labelled.py` does:

    python examples/card_fraud/train.py --pipeline examples/card_fraud/labelled.py
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

if __package__ in (None, ""):  # run as a file: the project's root is two folders up
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from examples.card_fraud.history import History, history
from examples.card_fraud.simulate import DAY_MS, Simulator
from inference.golden import Golden, golden_path, write_golden
from inference.load_model import load_model
from inference.model_card import ModelCard, write_card
from inference.scorer import Rows, Scores
from schemas.columns import Floats, Mask
from streams.definition.bound import Bound
from streams.definition.load import load_bound

DAYS = 90
LOOK_BACK_DAYS = 37  # until every window is full
LABEL_DELAY_DAYS = 7
WEEK_DAYS = 7
ALERTS_PER_THOUSAND = 3
PARITY = 1e-6  # how far a score may lie from scikit-learn's: a hundred float32 leaves, summed in float32
GOLDEN_ROWS = 256
SCENARIOS = ("genuine", "large amount", "compromised terminal", "compromised card")


@dataclass(frozen=True, slots=True)
class Split:
    """The history cut by time, a label delay between the parts."""

    train: History
    choose: History
    judge: History


def train(bound: Bound, simulator: Simulator, out_path: Path, days: int = DAYS, trees: int = 100, seed: int = 0) -> ModelCard:
    """Simulate history, train a forest on it, and write it as an ONNX file with its card, and its golden set beside it.

    The same arguments and library versions give the same bytes.

    Args:
        bound: the pipeline the model is for.
        simulator: makes the history.
        out_path: of the ONNX file; its folder is made.
        days: length of the history.
        trees: of the forest, each at most ten deep.
        seed: of the forest.

    Raises:
        ValueError: the history is too short, or has no fraud to learn from.
        ModelError: the exported file can't be loaded.
    """
    split = cut(history(bound, simulator, days), days)
    model = fit(split.train, trees, seed)
    graph = export(model, len(bound.features.names))
    threshold = choose_threshold(_probability(model, split.choose.rows))
    made_by = {name: version(name) for name in ("numpy", "onnx", "scikit-learn", "skl2onnx")}
    model_version = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()[:12]
    golden = golden_set(bound, model, model_version, split.judge.rows, {"scikit-learn": made_by["scikit-learn"]})
    card = ModelCard(
        name=bound.model.name,
        version=model_version,
        feature_names=bound.features.names,
        feature_fingerprint=bound.features.fingerprint,
        threshold=threshold,
        schema_fingerprint=bound.schema.fingerprint,
        trained_at=datetime.fromtimestamp((simulator.start_ms + days * DAY_MS) / 1000, UTC).isoformat(),
        libraries=made_by,
        metrics=judge(split.judge, _probability(model, split.judge.rows), threshold),
        training_data_sha256=digest(split.train),
        golden_sha256=golden.sha256,
    )
    write_card(graph, card)
    golden_path(out_path).unlink(missing_ok=True)  # the old one is not the new model's
    _save(graph, out_path)
    write_golden(out_path, golden)
    _check_parity(out_path, split.judge.rows, _probability(model, split.judge.rows))
    report(split, card, _probability(model, split.judge.rows))
    return card


def cut(whole: History, days: int) -> Split:
    """Train, choose and judge, each a label delay after the one before.

    Raises:
        ValueError: the history is too short for it, or a part has no fraud or nothing else.
    """
    judge_from = days - WEEK_DAYS
    choose_from = judge_from - LABEL_DELAY_DAYS - WEEK_DAYS
    train_to = choose_from - LABEL_DELAY_DAYS
    train_from = min(LOOK_BACK_DAYS, train_to - WEEK_DAYS)
    if train_from < 0:
        raise ValueError(f"{days} days of history: wanted {5 * WEEK_DAYS} at least, better {LOOK_BACK_DAYS + 6 * WEEK_DAYS}")
    split = Split(
        whole.between(train_from, train_to), whole.between(choose_from, judge_from - LABEL_DELAY_DAYS), whole.between(judge_from, days)
    )
    for part in (split.train, split.choose, split.judge):
        if len(np.unique(part.fraud)) < 2:
            raise ValueError(
                f"{len(part.rows)} payments hold {np.count_nonzero(part.fraud)} frauds: wanted some of both; simulate more customers"
            )
    return split


def fit(part: History, trees: int, seed: int) -> Pipeline:
    """A scaler and a forest."""
    rows = part.rows.astype(np.float64)
    scaler = StandardScaler().fit(rows)
    # The exported graph holds both as float32. Rounding them before the forest sees them leaves no row on the wrong side of a split.
    scaler.mean_ = scaler.mean_.astype(np.float32).astype(np.float64)
    scaler.scale_ = scaler.scale_.astype(np.float32).astype(np.float64)
    forest = RandomForestClassifier(trees, max_depth=10, random_state=seed, n_jobs=-1).fit(scaler.transform(rows), part.fraud)
    forest.n_jobs = 1
    return make_pipeline(scaler, forest)


def export(model: Pipeline, width: int) -> onnx.ModelProto:
    """The pipeline as one ONNX graph, preprocessing inside; its probabilities are a plain tensor."""
    options = {id(model): {"zipmap": False}, StandardScaler: {"div": "div_cast"}}  # scale in double, as scikit-learn does
    graph: onnx.ModelProto = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, width]))],
        options=options,
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    opsets = dict(sorted((opset.domain, opset.version) for opset in graph.opset_import))
    del graph.opset_import[:]  # the converter writes them in the order of a set of strings: another one in every process
    graph.opset_import.extend(onnx.helper.make_opsetid(domain, number) for domain, number in opsets.items())
    return graph


def golden_set(bound: Bound, model: Pipeline, model_version: str, rows: Rows, made_by: Mapping[str, str]) -> Golden:
    """Rows of all heights of score, from the lowest to the highest, with what scikit-learn makes of them."""
    scores = _probability(model, rows)
    picked = np.argsort(scores, kind="stable")[np.unique(np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(np.int64))]
    return Golden(
        bound.model.name, model_version, bound.features.fingerprint, bound.features.names, rows[picked], scores[picked], PARITY, made_by
    )


def digest(part: History) -> str:
    """SHA-256 of the rows a model learned from, and of what each turned out to be."""
    found = hashlib.sha256(part.rows.astype("<f4").tobytes())
    found.update(part.fraud.astype(np.uint8).tobytes())
    return found.hexdigest()


def choose_threshold(scores: Floats) -> float:
    """The score that `ALERTS_PER_THOUSAND` of a thousand payments reach: a float32, as scores are."""
    return float(np.float32(np.quantile(scores, 1 - ALERTS_PER_THOUSAND / 1000, method="higher")))


def judge(part: History, scores: Floats, threshold: float) -> dict[str, float]:
    """How good the scores are on a part nothing was fitted to."""
    alerts = _alerts(scores, threshold)
    caught = int(np.count_nonzero(alerts & part.fraud))
    kinds = {name: part.scenario == kind for kind, name in enumerate(SCENARIOS) if kind and (part.scenario == kind).any()}
    return {
        "auc": round(float(roc_auc_score(part.fraud, scores)), 4),
        "average_precision": round(float(average_precision_score(part.fraud, scores)), 4),
        "precision": round(caught / max(1, int(np.count_nonzero(alerts))), 4),
        "recall": round(caught / int(np.count_nonzero(part.fraud)), 4),
        "alerts_per_thousand": round(1000 * np.count_nonzero(alerts) / len(scores), 2),
        **{f"recall_{name.replace(' ', '_')}": round(float(alerts[of_kind].mean()), 4) for name, of_kind in kinds.items()},
    }


def report(split: Split, card: ModelCard, scores: Floats) -> None:
    """Print what was in the parts, and what the model makes of the last one."""
    alerts = _alerts(scores, card.threshold)
    print(f"{'':22}{'trains':>9}{'chooses':>9}{'judges':>9}{'caught':>9}")
    for kind, name in enumerate(SCENARIOS):
        counts = [np.count_nonzero(part.scenario == kind) for part in (split.train, split.choose, split.judge)]
        caught = np.count_nonzero(alerts & (split.judge.scenario == kind))
        print(f"{name:22}" + "".join(f"{count:9,}" for count in (*counts, caught)))
    print(
        f"model {card.name} {card.version}, threshold {card.threshold:.4f}: "
        + ", ".join(f"{k} {v:g}" for k, v in card.metrics.items() if not k.startswith("recall_"))
    )


def _probability(model: Pipeline, rows: Rows) -> Floats:
    probability: Floats = model.predict_proba(rows.astype(np.float64))[:, 1]
    return probability


def _alerts(scores: Floats, threshold: float) -> Mask:
    return np.asarray(scores.astype(np.float32) >= np.float32(threshold))


def _check_parity(path: Path, rows: Rows, expected: Floats) -> None:
    scores: Scores = load_model(path).score(rows)
    apart = float(np.abs(scores - expected).max())
    if apart > PARITY:
        raise RuntimeError(f"{path}: a score lies {apart:.2g} from scikit-learn's, wanted at most {PARITY:.0e}")


def _save(graph: onnx.ModelProto, path: Path) -> None:
    """A reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(graph.SerializeToString(deterministic=True))
    os.replace(unfinished, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for the pipeline beside this file, or another."""
    parser = argparse.ArgumentParser(description="Train the card fraud model on simulated history.")
    parser.add_argument("--pipeline", type=Path, default=Path(__file__).with_name("pipeline.py"))
    parser.add_argument("--out", type=Path, help="the ONNX file; where the pipeline looks for it if not given")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--terminals", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    bound = load_bound(given.pipeline)
    simulator = Simulator(seed=given.seed, customers=given.customers, terminals=given.terminals)
    train(bound, simulator, given.out or bound.model_path, days=given.days, seed=given.seed)


if __name__ == "__main__":
    main()
