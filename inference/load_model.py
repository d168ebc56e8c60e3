"""Load a model: check its contract, and choose the faster of the two ways to run it that give the same bits.

That they do is not taken on trust. Whenever a model with a forest is loaded, the compiled loop is held against ONNX Runtime on rows
that lie on the splits and next to them; if one bit differs, the model is left to ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inference.forest_scorer import ForestScorer
from inference.golden import golden_path, hold_to, read_golden
from inference.onnx_forest import Parts, take_apart
from inference.onnx_scorer import CPU, Graph, OnnxScorer, read_model
from inference.scorer import ConstantScorer
from schemas.errors import ModelError

CONSTANT = "constant:"
_PROBES = 512

Loaded = ForestScorer | OnnxScorer | ConstantScorer


def load_model(path: Path, provider: str = CPU, compile_forest: bool = True) -> Loaded:
    """An ONNX model, checked, warmed up and ready to score, with its card; in the faster of the two ways if it allows it.

    If a golden set stands beside it, it is held to that, and `parity` says how closely it keeps to it. One without a golden set loads
    as well: `parity` is None then.

    Args:
        path: the ``.onnx`` file; or ``constant:0.5``, in any folder, for a model that says that of every event.
        provider: ONNX Runtime's execution provider. With another than the CPU the whole model runs there.
        compile_forest: False leaves forests to ONNX Runtime too.

    Raises:
        ModelError: the file is missing, is not ONNX, or breaks the contract of `OnnxScorer`; or it does not score its golden set
            as it should.
    """
    if path.name.startswith(CONSTANT):
        return _constant(path.name)
    scorer = _in_the_faster_way(path, provider, compile_forest)
    golden = read_golden(path)
    if golden is not None:
        scorer.parity = hold_to(golden, scorer, scorer.card, path)
    return scorer


def parity_words(model: Loaded, path: Path) -> str:
    """What became of a loaded model's golden set, for a log."""
    who = f"name={model.card.name} version={model.card.version}"
    if model.parity is None:
        return f"model without a golden set {who} wanted={golden_path(path)}"
    held = f"rows={model.parity.rows} largest_difference={model.parity.largest_difference:.3g} tolerance={model.parity.tolerance:g}"
    return f"model scores as its golden set says {who} {held}"


def _constant(text: str) -> ConstantScorer:
    try:
        value = float(text.removeprefix(CONSTANT))
    except ValueError as error:
        raise ModelError(f"model {text!r}: wanted a number from 0 to 1 after {CONSTANT!r}, such as {CONSTANT}0.5") from error
    if not 0 <= value <= 1:
        raise ModelError(f"model {text!r}: {value:g} is no score, wanted 0 to 1")
    return ConstantScorer(value)


def _in_the_faster_way(path: Path, provider: str, compile_forest: bool) -> ForestScorer | OnnxScorer:
    whole = OnnxScorer(path, provider)
    parts = take_apart(read_model(path)) if compile_forest and provider == CPU else None
    if parts is None:
        return whole
    preprocessing = Graph(parts.preprocessing, str(path)) if parts.preprocessing else None
    fast = ForestScorer(whole.card, parts.forest, preprocessing)
    return fast if _forests_agree(parts, str(path)) and _scorers_agree(fast, whole) else whole


def _forests_agree(parts: Parts, where: str) -> bool:
    """Whether the arrays give ONNX Runtime's bits on rows made of the forest's own thresholds, and of the floats next to them."""
    random = np.random.default_rng(0)
    forest = parts.forest
    rows = random.normal(size=(_PROBES, forest.needed)).astype(np.float32)
    splits = np.isfinite(forest.thresholds)
    for feature in range(forest.needed):
        thresholds = forest.thresholds[splits & (forest.features == feature)]
        if len(thresholds):
            picked = random.choice(thresholds, _PROBES)
            below, above = np.nextafter(picked, np.float32(-np.inf)), np.nextafter(picked, np.float32(np.inf))
            rows[:, feature] = np.choose(random.integers(0, 3, _PROBES), (below, picked, above))
    return np.array_equal(forest.score(rows), Graph(parts.forest_alone, where)(rows)[:, -1])


def _scorers_agree(fast: ForestScorer, whole: OnnxScorer) -> bool:
    """Whether both give the same bits for rows of all magnitudes, many at once and one alone."""
    random = np.random.default_rng(1)
    rows = (random.normal(size=(_PROBES, whole.width)) * 10.0 ** random.uniform(-3, 5, (_PROBES, whole.width))).astype(np.float32)
    return np.array_equal(fast.score(rows), whole.score(rows)) and np.array_equal(fast.score(rows[:1]), whole.score(rows[:1]))
