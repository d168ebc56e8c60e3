"""Explain: one past decision made again, held against what was served, and taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from inference.contribution import contributions
from inference.float32 import to_float32
from inference.golden import read_golden
from inference.load_model import load_model
from inference.model_card import ModelCard
from inference.model_card import bind as bind_model
from inference.score import score
from inference.scorer import Rows, Scorer
from schemas.columns import Floats
from schemas.errors import RecordError, SettingsError
from schemas.features import Json
from schemas.registry import open_registry
from schemas.reject import Reject
from streams.batch import Address
from streams.definition.bound import Bound
from streams.definition.inlet import Inlet
from streams.dlq.view import told_value
from streams.explain.find import sources_of
from streams.explain.log import LogReader, parse_address
from streams.explain.moment import moment
from streams.explain.remake import Remade, Remake
from streams.explain.served import Outputs, Served
from streams.explain.windows import entity_facts, event_ms
from streams.scored_event import DECISIONS, TIMINGS
from streams.settings import Settings
from streams.state.rebuild import read_folder
from transforms.fixed_point import numbers

MOST_BACKGROUND = 100

SAME, OTHER, NOTHING_SERVED, REFUSED = "same to the bit", "not the same", "nothing was served", "refused"


@dataclass(frozen=True, slots=True)
class Options:
    """How to explain.

    Attributes:
        snapshots: a folder of what `millrace state snapshot` kept, where the log does not reach back; None = the log alone.
        model: the model's file, if it is not the pipeline's present one.
        accept_short_log: make do with what the log has.
    """

    snapshots: Path | None = None
    model: Path | None = None
    accept_short_log: bool = False


def explain(bound: Bound, settings: Settings, at: str | None, event_id: str | None, options: Options = Options()) -> dict[str, Json]:
    """Make one past decision again.

    Args:
        bound: the pipeline.
        settings: of the broker and the registry.
        at: address of the event's record, of its scored event, or of the record that handed it from stage to stage.
        event_id: the event's id, in place of its address.
        options: how.

    Returns:
        The event, each stage's windows with the events inside, the features, the score, what moved it, and a verdict.

    Raises:
        SettingsError: neither `at` nor `event_id` was given, or both; or `at` is no address in this pipeline.
        TopicError: the pipeline's topics are not there.
        HistoryError: there is no such event, or the log does not reach back far enough.
        ModelError: the model is missing, or made for other features.
        StateError: the snapshots do not fit.
        KafkaDown, RetryLater: what it asks does not answer.
    """
    if (at is None) == (event_id is None):
        raise SettingsError("wanted either the address of a record, such as payments[3]@1042, or --event ID")
    with LogReader(settings) as log:
        outputs = Outputs(bound, settings, log)
        found = sources_of(bound, settings, log, outputs, None if at is None else parse_address(at), event_id)
        return _Explanation(bound, settings, log, outputs, found[-1], options).facts([str(each) for each in found[:-1]])


@dataclass(slots=True)
class _Explanation:
    bound: Bound
    settings: Settings
    log: LogReader
    outputs: Outputs
    source: Address
    options: Options

    def facts(self, others: Sequence[str]) -> dict[str, Json]:
        scorer, card = self._model()
        stages = self._stages(whole_log=False)
        served = self._served(stages[0])
        made = self._made(stages, scorer, card)
        differences = self._differences(stages, made, served, card)
        if differences and any(each.read_from > each.log.start and each.snapshot is None for each in stages):
            # The timestamps of the log may not tell how far back its events reach.
            whole = self._stages(whole_log=True)
            again = self._made(whole, scorer, card)
            fewer = self._differences(whole, again, served, card)
            if len(fewer) < len(differences):
                stages, made, differences = whole, again, fewer
        refused = stages[-1].refused or made.pop("refused", None)
        if refused and served:
            differences.append(
                _difference("refused", served.said["decision"], refused.reason, "it was served: a rule or the schema changed")
            )
        verdict = OTHER if differences and served else REFUSED if refused else NOTHING_SERVED if served is None else SAME
        return {
            "pipeline": self.bound.name,
            "event": self._event(stages[0]),
            "other_events_of_this_id": list(others),
            "verdict": verdict,
            "differences": cast("list[Json]", differences),
            "refused": None if refused is None else {"stage": stages[-1].stage.name, "reason": refused.reason, "detail": refused.detail},
            "served": None if served is None else self._served_facts(served),
            "stages": [self._stage(each) for each in stages],
            **made,
            "contributions": self._contributions(scorer, made, served),
        }

    # --- what is made ---

    def _model(self) -> tuple[Scorer, ModelCard]:
        scorer = load_model(self.options.model or self.bound.model_path)
        bind_model(scorer.card, self.bound.features.names, self.bound.features.fingerprint)
        return scorer, scorer.card

    def _stages(self, whole_log: bool) -> list[Remade]:
        snapshots = () if self.options.snapshots is None else read_folder(self.options.snapshots)
        remake = Remake(self.bound, self.settings, self.log, snapshots, self.options.accept_short_log, whole_log)
        return list(remake.stages(self.source))

    def _served(self, first: Remade) -> Served | None:
        if not first.is_readable:
            return None
        return self.outputs.of(self.source, first.batch.keys[0], event_ms(self.bound, first))

    def _made(self, stages: Sequence[Remade], scorer: Scorer, card: ModelCard) -> dict[str, Any]:
        """The features and the score; None where the event did not come so far."""
        last = stages[-1]
        if last.refused is not None or not last.stage.is_last:
            return {"features": None, "score": None}
        values = self._values(stages)
        vector = np.array([[values[name] for name in self.bound.features.names]])
        scored = score(scorer, vector)
        if not scored.finite[0]:
            trouble = RecordError(Reject.NON_FINITE_SCORE.label, "the model's answer, or a feature as float32, is not a finite number")
            return {"features": dict(values), "score": None, "refused": trouble}
        threshold = card.threshold if self.bound.model.threshold is None else self.bound.model.threshold
        assert last.batch.timing is not None
        return {
            "features": dict(values),
            "score": {
                "model": self.bound.model.name,
                "version": card.version,
                "feature_fingerprint": self.bound.features.fingerprint,
                "score": float(scored.scores[0]),
                "threshold": float(np.float32(threshold)),
                "decision": DECISIONS[int(scored.scores[0] >= np.float32(threshold))],
                "timing": TIMINGS[int(last.batch.timing[0])],
            },
        }

    def _values(self, stages: Sequence[Remade]) -> dict[str, float]:
        """The model's inputs, each as the stage that computes it made it here."""
        home = {name: made for made in stages for name in made.computed}
        batches = {name: home.get(name, stages[0]).batch for name in self.bound.features.names}
        return {name: float(numbers(name, batch.columns[name])[0]) for name, batch in batches.items()}

    # --- what is held against what ---

    def _differences(
        self, stages: Sequence[Remade], made: Mapping[str, Any], served: Served | None, card: ModelCard
    ) -> list[dict[str, Json]]:
        found = self._passed_on(stages)
        now = made["score"]
        if served is None or now is None:
            return found
        if served.said["feature_fingerprint"] != self.bound.features.fingerprint:
            found.append(_difference("definitions", served.said["feature_fingerprint"], self.bound.features.fingerprint, _OTHER_FEATURES))
        if served.version != card.version:
            found.append(_difference("model version", served.version, card.version, "`--model FILE` takes the one that scored it"))
        for name, value in (served.features or {}).items():
            here = made["features"].get(name)
            if here is None or _bits(here) != _bits(value):
                found.append(_difference(f"feature {name}", value, here, self._why(stages, name)))
        if served.said["timing"] != now["timing"]:
            found.append(_difference("timing", served.said["timing"], now["timing"], "another order of events, or another past"))
        if served.score != np.float32(now["score"]):
            found.append(_difference("score", float(served.score), now["score"], _why_score(found)))
        for name in ("threshold", "decision"):
            if served.said[name] != now[name]:
                found.append(_difference(name, served.said[name], now[name], "the model's card or the pipeline says otherwise now"))
        return found

    def _passed_on(self, stages: Sequence[Remade]) -> list[dict[str, Json]]:
        """What an earlier stage handed on, against what it would hand on now."""
        found = []
        for earlier, later in pairwise(stages):
            for name in earlier.computed:
                if name in later.batch.columns and name in self.bound.features.names:
                    was, now = (float(numbers(name, each.batch.columns[name])[0]) for each in (later, earlier))
                    if _bits(was) != _bits(now):
                        found.append(_difference(f"feature {name} as passed on by {earlier.stage.name}", was, now, _why_past(earlier)))
        return found

    def _why(self, stages: Sequence[Remade], name: str) -> str:
        home = next((made for made in stages if name in made.computed), None)
        if name not in self.bound.features.names:
            return "the pipeline has no such feature"
        return "a function changed without its version, or the record" if home is None else _why_past(home)

    # --- what is told ---

    def _event(self, first: Remade) -> dict[str, Json]:
        batch = first.batch
        record = self.log.record(self.source)
        registry = open_registry(self.settings.registry.place(self.bound.schema_folder), self.settings.registry.client_keys)
        schema_id = -1 if batch.schema_ids is None else int(batch.schema_ids[0])
        writer = registry.schema(schema_id) if schema_id >= 0 else self.bound.schema
        key = batch.keys[0]
        readable = first.is_readable
        return {
            "at": str(self.source),
            "key": None if key is None else key.decode(errors="replace"),
            "event_time": moment(event_ms(self.bound, first)) if readable else None,
            "event_ms": event_ms(self.bound, first) if readable else None,
            "arrived": moment(int(batch.arrived_ms[0])),
            "arrived_ms": int(batch.arrived_ms[0]),
            "schema": {
                "id": schema_id,
                "name": str(writer),
                "fingerprint": None if writer is None else writer.fingerprint,
                "reader_fingerprint": self.bound.schema.fingerprint,
            },
            "size_bytes": int(batch.raw.ends[0] - batch.raw.starts[0]),
            "fields": told_value(
                Inlet.of(self.bound, labels=False),
                registry,
                None if record is None else record.value(),
                () if record is None else record.headers() or (),
            ),
            "came_back": first.came_back_from >= 0,
        }

    def _served_facts(self, served: Served) -> dict[str, Json]:
        said = served.said
        return {
            "at": str(served.at),
            "score": float(served.score),
            "version": served.version,
            "threshold": said["threshold"],
            "decision": said["decision"],
            "timing": said["timing"],
            "feature_fingerprint": said["feature_fingerprint"],
            "features": None if served.features is None else dict(served.features),
        }

    def _stage(self, made: Remade) -> dict[str, Json]:
        return {
            "stage": made.stage.name,
            "at": str(made.at),
            "log": [made.log.start, made.log.end],
            "read_from": made.read_from,
            "records_read": made.records,
            "snapshot": None if made.snapshot is None else str(made.snapshot.file),
            "log_is_short": None if made.short is None else str(made.short),
            "entities": [entity_facts(self.bound, made, each) for each in made.remembered if made.refused is None],
        }

    def _contributions(self, scorer: Scorer, made: Mapping[str, Any], served: Served | None) -> Json:
        if made["score"] is None:
            return None
        names = self.bound.features.names
        background, source = self._background(served)
        if not len(background):
            return None
        row = to_float32(np.array([[made["features"][name] for name in names]])).rows[0]
        found = contributions(scorer, row, background)
        ordered = np.argsort(-np.abs(found.values), kind="stable")
        return {
            "method": found.method,
            "scale": found.scale,
            "baseline": found.baseline,
            "background": found.background,
            "background_from": source,
            "features": [
                {
                    "name": names[place],
                    "value": float(row[place]),
                    "contribution": float(found.values[place]),
                    "error": float(found.errors[place]),
                }
                for place in ordered.tolist()
            ],
        }

    def _background(self, served: Served | None) -> tuple[Rows, str]:
        """What is usual: the model's golden set, or without one the scored events before this one."""
        golden = read_golden(self.options.model or self.bound.model_path)
        if golden is not None:
            return golden.rows[:: -(-len(golden.rows) // MOST_BACKGROUND)], "the model's golden set"
        before = [] if served is None else self.outputs.before(served.at, MOST_BACKGROUND)
        rows: Floats = np.array([[each[name] for name in self.bound.features.names] for each in before])
        return to_float32(rows).rows if len(rows) else np.empty((0, 0), np.float32), "the scored events before it"


_OTHER_FEATURES = "served by other definitions of the features: another version of the pipeline file"


def _why_past(made: Remade) -> str:
    if made.short is not None:
        return f"another past: {made.short}"
    return "another past, or a function changed without its version"


def _why_score(found: Sequence[Mapping[str, Json]]) -> str:
    return "follows from the above" if found else "the same features and version, other bits: another build of the model or of its runtime"


def _difference(what: str, served: Json, computed: Json, why: str) -> dict[str, Json]:
    return {"what": what, "served": served, "computed": computed, "why": why}


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))
