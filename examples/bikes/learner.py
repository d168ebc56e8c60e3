"""Linear models: one that learns from every answer, as the published scores were made, and one that is fitted and then served.

Source of the first: the bike-sharing tutorial of the `river` library, its online standard scaler and its linear regression by stochastic
gradient descent.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from schemas.columns import Floats, Ints

INTERCEPT_RATE = 0.01


class OnlineRegression:
    """Scales by running mean and deviation, predicts, and goes down the gradient of the squared error when the answer is known."""

    def __init__(self, width: int, rate: float) -> None:
        self._rate = rate
        self._count, self._mean, self._variance = 0, np.zeros(width), np.zeros(width)
        self._weights, self._intercept = np.zeros(width), 0.0

    def predict(self, row: Floats) -> float:
        """The forecast; the scaler has seen the row by then."""
        self._count += 1
        before, self._mean = self._mean, self._mean + (row - self._mean) / self._count
        self._variance = self._variance + ((row - before) * (row - self._mean) - self._variance) / self._count
        return self._at(self._scaled(row))

    def learn(self, row: Floats, answer: float) -> None:
        """One step."""
        scaled = self._scaled(row)
        slope = 2 * (self._at(scaled) - answer)
        self._intercept -= INTERCEPT_RATE * slope
        self._weights = self._weights - self._rate * slope * scaled

    def _at(self, scaled: Floats) -> float:
        return float(self._weights @ scaled) + self._intercept

    def _scaled(self, row: Floats) -> Floats:
        deviation = np.sqrt(self._variance)
        return np.divide(row - self._mean, deviation, out=np.zeros(len(row)), where=deviation > 0)


def mean_error(asked: Floats, told: Floats, answers: Floats, times: Ints, rate: float, delay_ms: int = 0) -> float:
    """The mean absolute error of a learner that goes through a stream.

    Args:
        asked: shape (n, k): what it is given to predict from.
        told: shape (n, k): what it is given to learn from, once the answer is known.
        answers: shape (n,).
        times: shape (n,), in milliseconds, never falling.
        rate: how far it goes in a step.
        delay_ms: until an answer is known.
    """
    learner = OnlineRegression(asked.shape[1], rate)
    waiting: deque[int] = deque()
    error = 0.0
    for row in range(len(answers)):
        while delay_ms and waiting and times[waiting[0]] + delay_ms <= times[row]:
            known = waiting.popleft()
            learner.learn(told[known], answers[known])
        error += abs(learner.predict(asked[row]) - answers[row])
        if delay_ms:
            waiting.append(row)
        else:
            learner.learn(told[row], answers[row])
    return error / len(answers)


def weights(rows: Floats, answers: Floats) -> Floats:
    """Shape (k + 1,): the least squares' weights, and the constant."""
    return np.linalg.lstsq(np.column_stack((rows, np.ones(len(rows)))), answers, rcond=None)[0].astype(np.float64)


def linear(found: Floats) -> onnx.ModelProto:
    """Such weights as an ONNX graph; it computes in double."""
    nodes = [
        helper.make_node("Cast", ["features"], ["doubles"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["doubles", "weights"], ["sum"]),
        helper.make_node("Add", ["sum", "constant"], ["total"]),
        helper.make_node("Cast", ["total"], ["score"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "bikes",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(found) - 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(found[:-1, None].copy(), "weights"), numpy_helper.from_array(found[-1:].copy(), "constant")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
