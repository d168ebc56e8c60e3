"""Scoring one thread's worth: ``python -m benchmarks.scoring``.

A forest of 100 trees, ten deep, over 20 standardised inputs, exported as ONNX: microseconds a row, by the number of rows in a call, for

- *loop*: what the worker runs, preprocessing by ONNX Runtime and trees by the compiled loop;
- *runtime*: the same file, by ONNX Runtime alone, one thread;
- *scikit-learn*: the model the file was made from, with the largest batch only.

The three take turns within each round; medians over the rounds are shown, and the ratio is the median of the rounds' ratios. The answer
is asserted: loop and runtime give the same bits, and both lie within a millionth of scikit-learn's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import circumstances, command_line, keep
from examples.card_fraud.history import History
from examples.card_fraud.train import PARITY, export, fit
from inference.forest_scorer import ForestScorer
from inference.load_model import load_model
from inference.model_card import ModelCard, write_card
from inference.scorer import Rows, Scorer

BOUNDS = Path(__file__).with_name("bounds.json")
INPUTS = 20
BATCH_ROWS = (1, 10, 100, 1_000)
ROWS = 20_000
CALLS = 200  # at most, of each size in a round

Predict = Callable[[Rows], NDArray[Any]]


def workload(rows: int, seed: int = 0) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows of skewed, whole-numbered and two-valued inputs, and a rare label that hangs on some of them: trees grow to their full depth."""
    random = np.random.default_rng(seed)
    values = np.abs(random.normal(size=(rows, INPUTS))) * random.uniform(0.5, 100, INPUTS)
    values[:, 1:3] = random.random((rows, 2)) < 0.28
    values[:, 3:7] = np.rint(values[:, 3:7])
    scaled = values / values.std(axis=0)
    signal = scaled[:, 0] + 0.7 * scaled[:, 5] * scaled[:, 8] + 0.5 * scaled[:, 11]
    label = signal + random.normal(size=rows) > np.quantile(signal, 0.9) + 1
    return values.astype(np.float32), label


def measure(rounds: int) -> dict[str, Any]:
    """Train, export, load both ways, check the answers, and time them."""
    rows, label = workload(ROWS)
    model = fit(History(rows, np.zeros(ROWS, np.int64), label.astype(np.int8)), trees=100, seed=0)
    graph = export(model, INPUTS)
    write_card(graph, ModelCard("bench", "1", tuple(f"f{place}" for place in range(INPUTS)), "0" * 16, 0.5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        loop, runtime = load_model(path), load_model(path, compile_forest=False)
    if not isinstance(loop, ForestScorer):
        raise AssertionError("the forest was not compiled")

    def scikit_learn(some: Rows) -> NDArray[np.float64]:
        probability: NDArray[np.float64] = model.predict_proba(some.astype(np.float64))[:, 1]
        return probability

    _check_answers(loop, runtime, scikit_learn, rows)
    nodes = sum(tree.tree_.node_count for tree in model[-1].estimators_)
    sizes = {str(size): _compare({"loop": loop.score, "runtime": runtime.score}, rows, size, rounds) for size in BATCH_ROWS}
    sizes[str(BATCH_ROWS[-1])] |= _compare({"scikit_learn": scikit_learn}, rows, BATCH_ROWS[-1], 3)
    return {"nodes": nodes, "rows_checked": len(rows), "us_per_row": sizes}


def _check_answers(loop: Scorer, runtime: Scorer, scikit_learn: Predict, rows: Rows) -> None:
    ours, theirs = loop.score(rows), runtime.score(rows)
    if ours.tobytes() != theirs.tobytes():
        raise AssertionError(f"{np.count_nonzero(ours != theirs)} of {len(rows)} scores differ between the loop and the runtime")
    apart = np.abs(ours - scikit_learn(rows)).max()
    if apart > PARITY:
        raise AssertionError(f"a score lies {apart:.2g} from scikit-learn's, wanted at most {PARITY:.0e}")


def _compare(contenders: dict[str, Predict], rows: Rows, size: int, rounds: int) -> dict[str, float]:
    """Microseconds a row of each, taking turns; and how many times as long the last takes as the first."""
    calls = [rows[first : first + size] for first in range(0, len(rows) - size + 1, size)][:CALLS]
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):  # the first one warms up
        for name, predict in contenders.items():
            begun = time.perf_counter()
            for call in calls:
                predict(call)
            took[name].append((time.perf_counter() - begun) / (len(calls) * size) * 1e6)
    counted = {name: np.array(times[1:]) for name, times in took.items()}
    figures = {name: round(float(np.median(times)), 3) for name, times in counted.items()}
    if len(contenders) > 1:
        first, *_, last = counted.values()
        figures["ratio"] = round(float(np.median(last / first)), 2)
    return figures


def _check_floors(result: dict[str, Any]) -> None:
    floors = json.loads(BOUNDS.read_text())["scoring"]
    largest = result["us_per_row"][str(BATCH_ROWS[-1])]
    missed = []
    if largest["loop"] > floors["us_per_row"]:
        missed.append(f"a row of {BATCH_ROWS[-1]} takes {largest['loop']} us, the floor is {floors['us_per_row']}")
    if largest["ratio"] < floors["times_as_fast_as_the_runtime"]:
        missed.append(f"it is {largest['ratio']} times as fast as the runtime, the floor is {floors['times_as_fast_as_the_runtime']}")
    if missed:
        raise SystemExit("; ".join(missed))


def main() -> None:
    """Measure, show, keep the result, and hold it against the floors."""
    parser = argparse.ArgumentParser(description="Microseconds a row of scoring.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keep", action="store_true", help="write a dated result file")
    wanted = parser.parse_args()
    result = circumstances(command_line()) | measure(wanted.rounds)
    print(f"{result['nodes']:,} nodes; us a row, medians of {wanted.rounds} rounds")
    print(f"{'rows a call':>12}{'loop':>10}{'runtime':>10}{'ratio':>8}{'scikit-learn':>14}")
    for size, figures in result["us_per_row"].items():
        print(f"{size:>12}{figures['loop']:>10}{figures['runtime']:>10}{figures['ratio']:>8}{figures.get('scikit_learn', ''):>14}")
    if wanted.keep:
        keep("scoring", result)
    _check_floors(result)


if __name__ == "__main__":
    main()
