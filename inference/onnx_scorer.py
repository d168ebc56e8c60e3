"""Scores from an ONNX file, by ONNX Runtime. The only module that imports onnxruntime.

**One thread, always.** With more intra-op threads the runtime cuts a forest's trees or a batch's rows among them, and the order of the
float32 sums, hence a score's last bits, follows the cut: of 4,000 rows 3,037 changed with two threads. Workers scale by partitions
instead. Spinning is off, since a waiting thread would take the core from the source and the producer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from inference.contract import check_inputs, check_outputs
from inference.model_card import ModelCard, from_metadata
from inference.scorer import Parity, Rows, Scores
from schemas.errors import ModelError, ScoringFailed

CPU = "CPUExecutionProvider"
# The runtime's errors have no common base of their own; these are the ones that loading or running a model can raise.
FAULTS = (
    faults.EPFail,
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoModel,
    faults.NoSuchFile,
    faults.NotImplemented,
    faults.RuntimeException,
)


class OnnxScorer:
    """An ONNX model in memory: its contract checked, warmed up, ready to score."""

    def __init__(self, path: Path, provider: str = CPU) -> None:
        """Load a model.

        The model takes one float tensor of shape (any, k), or k float tensors of shape (any, 1) or (any,), one a feature, named as the
        card names the features and in that order. Of its outputs one is a float tensor of shape (any,), (any, 1) or (any, 2), the last
        being the two classes' probabilities; a label beside it is left alone.

        Args:
            path: the ``.onnx`` file, with a card in its metadata.
            provider: the execution provider to run on, as ONNX Runtime names it.

        Raises:
            ModelError: the file is missing, is not ONNX, or breaks the contract; what was found and what was wanted are in the message.
        """
        self._where = str(path)
        self.parity: Parity | None = None
        self._session = open_session(read_model(path), self._where, provider)
        self.card: ModelCard = from_metadata(self._session.get_modelmeta().custom_metadata_map, self._where)
        self._inputs = check_inputs(self._session.get_inputs(), self.card.feature_names, self._where)
        self._output = check_outputs(self._session.get_outputs(), self._where)
        self._warm_up()

    @property
    def width(self) -> int:
        """k: how many inputs a row has."""
        return len(self.card.feature_names)

    def score(self, rows: Rows) -> Scores:
        """Shape (n,): each row's score; see `Scorer.score`."""
        if rows.ndim != 2 or rows.shape[1] != self.width or rows.dtype != np.float32:
            raise ScoringFailed(f"{self._where}: rows have shape {rows.shape} and type {rows.dtype}, wanted (n, {self.width}) of float32")
        if not len(rows):
            return np.empty(0, np.float32)
        try:
            (answer,) = self._session.run([self._output], self._feed(rows))
        except FAULTS as error:
            raise ScoringFailed(f"{self._where}: ONNX Runtime failed on {len(rows)} rows: {_one_line(error)}") from error
        return self._one_a_row(answer, len(rows))

    def _feed(self, rows: Rows) -> dict[str, Rows]:
        if len(self._inputs) == 1:
            ((name, shape),) = self._inputs.items()
            return {name: rows if len(shape) == 2 else rows[:, 0]}
        return {
            name: np.ascontiguousarray(rows[:, [place]] if len(shape) == 2 else rows[:, place])
            for place, (name, shape) in enumerate(self._inputs.items())
        }

    def _one_a_row(self, answer: Any, rows: int) -> Scores:
        if not isinstance(answer, np.ndarray) or answer.shape not in ((rows,), (rows, 1), (rows, 2)):
            found = answer.shape if isinstance(answer, np.ndarray) else type(answer).__name__
            raise ScoringFailed(f"{self._where}: output {self._output!r} gave {found} for {rows} rows, wanted one score a row")
        scores: Scores = answer if answer.ndim == 1 else answer[:, -1]
        return np.ascontiguousarray(scores)

    def _warm_up(self) -> None:
        """Run once with one row and once with several, so that what the shapes left open shows now and the first event pays nothing."""
        for count in (1, 3):
            try:
                self.score(np.zeros((count, self.width), np.float32))
            except ScoringFailed as error:
                raise ModelError(f"the model loads but can't score: {error}") from error


class Graph:
    """A part of a model: one table of floats in, one out."""

    def __init__(self, serialized: bytes, where: str, provider: str = CPU) -> None:
        """
        Raises:
            ModelError: the runtime can't load it.
        """
        self._where = where
        self._session = open_session(serialized, where, provider)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def __call__(self, rows: Rows) -> Rows:
        """Shape (n, m) for rows of shape (n, k).

        Raises:
            ScoringFailed: the run failed.
        """
        try:
            (made,) = self._session.run([self._output], {self._input: rows})
        except FAULTS as error:
            raise ScoringFailed(f"{self._where}: ONNX Runtime failed on {len(rows)} rows: {_one_line(error)}") from error
        result: Rows = made
        return result


def read_model(path: Path) -> bytes:
    """An ONNX file's bytes.

    Raises:
        ModelError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the model can't be read: {error.strerror}; train one, or correct the pipeline's model path") from error


def open_session(model: bytes, where: str, provider: str = CPU) -> ort.InferenceSession:
    """A session with the settings of this module.

    Raises:
        ModelError: the bytes are not an ONNX model this runtime can run, or it has no such provider.
    """
    if provider not in ort.get_available_providers():
        raise ModelError(f"no execution provider is named {provider!r}; this onnxruntime has {', '.join(ort.get_available_providers())}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors come as exceptions; the runtime's own lines would only repeat them on stderr
    try:
        return ort.InferenceSession(model, options, providers=[provider])
    except FAULTS as error:
        raise ModelError(f"{where}: not a model ONNX Runtime {ort.__version__} can load: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
