"""Scores from an ONNX file, by ONNX Runtime. The only module that imports onnxruntime.

**One thread, always.** With more intra-op threads the runtime cuts a forest's trees or a batch's rows among them, and the order of the
float32 sums, hence a score's last bits, follows the cut: of 4,000 rows 3,037 changed with two threads. Workers scale by partitions
instead. Spinning is off, since a waiting thread would take the core from the source and the producer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from inference.model_card import ModelCard, from_metadata
from inference.scorer import Rows, Scores
from schemas.errors import ModelError, ScoringFailed

FLOAT = "tensor(float)"
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
        self._session = open_session(read_model(path), self._where, provider)
        self.card: ModelCard = from_metadata(self._session.get_modelmeta().custom_metadata_map, self._where)
        self._inputs = self._check_inputs()
        self._output = self._check_outputs()
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

    def _check_inputs(self) -> Mapping[str, list[Any]]:
        found = self._session.get_inputs()
        for item in found:
            if item.type != FLOAT:
                raise ModelError(
                    f"{self._where}: input {item.name!r} is {item.type}, wanted {FLOAT}; export with FloatTensorType([None, {self.width}])"
                )
            if not item.shape or isinstance(item.shape[0], int):
                raise ModelError(f"{self._where}: input {item.name!r} has shape {item.shape}, wanted a free first dimension for the rows")
        names = self.card.feature_names
        if len(found) == 1 and len(found[0].shape) == 2 and found[0].shape[1] in (self.width, None):
            return {found[0].name: found[0].shape}
        if len(found) == 1 and not (self.width == 1 and len(found[0].shape) == 1):
            raise ModelError(
                f"{self._where}: input {found[0].name!r} has shape {found[0].shape}, wanted [None, {self.width}] for the {self.width} features of its card"
            )
        if len(found) > 1 and tuple(item.name for item in found) != names:
            raise ModelError(
                f"{self._where}: the model's inputs are {', '.join(item.name for item in found)}; its card's features are {', '.join(names)}; "
                "wanted one tensor for all of them, or one input a feature by the same names in the same order"
            )
        for item in found:
            if len(item.shape) > 2 or item.shape[1:] not in ([], [1]):
                raise ModelError(
                    f"{self._where}: input {item.name!r} has shape {item.shape}, wanted [None, 1], as there is one input a feature"
                )
        return {item.name: item.shape for item in found}

    def _check_outputs(self) -> str:
        found = self._session.get_outputs()
        for item in found:
            if item.type.startswith("seq("):
                raise ModelError(
                    f"{self._where}: output {item.name!r} is {item.type}, a dictionary a row (zipmap), wanted {FLOAT}; "
                    "export with options={'zipmap': False}"
                )
        shown = ", ".join(f"{item.name}: {item.type} {item.shape}" for item in found)
        floats = [item for item in found if item.type == FLOAT]
        if len(floats) != 1:
            raise ModelError(
                f"{self._where}: {len(floats)} of the model's outputs are {FLOAT}, wanted exactly one, the score; they are {shown}"
            )
        shape = floats[0].shape
        if len(shape) not in (1, 2) or (len(shape) == 2 and isinstance(shape[1], int) and shape[1] not in (1, 2)):
            raise ModelError(
                f"{self._where}: output {floats[0].name!r} has shape {shape}, wanted one score a row: [None], [None, 1] or [None, 2]; outputs are {shown}"
            )
        return str(floats[0].name)

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
    options.log_severity_level = 3  # errors come as exceptions; the runtime's own lines would only repeat them on stderr
    try:
        return ort.InferenceSession(model, options, providers=[provider])
    except FAULTS as error:
        raise ModelError(f"{where}: not a model ONNX Runtime {ort.__version__} can load: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
