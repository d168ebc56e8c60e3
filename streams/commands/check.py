"""Check a pipeline without running it: its schema, its rules and functions, its model, the settings. No broker, no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from inference.load_model import load_model
from inference.model_card import bind as bind_model
from schemas.features import Json
from streams.definition.bound import Bound
from streams.definition.describe import describe
from streams.definition.trial import try_functions
from streams.planning.stage import stages
from streams.settings import Settings
from transforms.window import duration


def check_pipeline(bound: Bound, settings: Settings) -> dict[str, Json]:
    """Everything that can be known of a pipeline before it runs.

    Raises:
        DefinitionError: a rule or a derived column fails on a batch without rows.
        ModelError: the model is missing, broken, or made for other features.
    """
    try_functions(bound)
    scorer = load_model(bound.model_path)
    bind_model(scorer.card, bound.features.names, bound.features.fingerprint)
    card = scorer.card
    threshold = card.threshold if bound.model.threshold is None else bound.model.threshold
    running: list[Json] = [
        {
            "stage": stage.name,
            "group": stage.group(settings.kafka),
            "state": stage.namespace,
            "transactional_ids": stage.transactional_prefix(settings.kafka) + "-*",
        }
        for stage in stages(bound)
    ]
    return {
        **describe(bound),
        "model": {
            "name": card.name,
            "version": card.version,
            "path": bound.model.path,
            "threshold": threshold,
            "feature_fingerprint": card.feature_fingerprint,
            "trained_at": card.trained_at,
            "training_data_sha256": card.training_data_sha256,
            "libraries": dict(card.libraries),
            "metrics": dict(card.metrics),
            "golden": None if scorer.parity is None else asdict(scorer.parity),
        },
        "stages": running,
        "delivery": settings.worker.delivery,
    }


def check_words(facts: Mapping[str, Any]) -> str:
    """A page about a pipeline that is fit to run."""
    topics, source, model = facts["topics"], facts["input"], facts["model"]
    lines = [
        f"pipeline {facts['pipeline']}  fingerprint {facts['fingerprint']}",
        f"  reads    {topics['input']}  key {source['key']}, event time {source['event_time']['column']}",
        f"  schema   {source['schema']}  {source['schema_fingerprint']}, {source['read_as']}",
        f"  writes   {topics['output']}, dead letters {topics['dead_letters']}  {facts['delivery']}",
        f"  rules    {', '.join(rule['name'] for rule in facts['rules'])}",
    ]
    if facts["derived"]:
        lines.append(f"  derived  {', '.join(each['derived'] for each in facts['derived'])}")
    lines += [
        f"  entity   {each['name']} by {', '.join(each['key'])}: {len(each['features'])} features over {duration(each['retention_ms'])}"
        for each in facts["entities"]
    ]
    inputs = f"{len(facts['features'])} inputs {model['feature_fingerprint']}"
    lines.append(f"  model    {model['name']} {model['version']}  {inputs}, threshold {model['threshold']}")
    golden = model["golden"]
    held = (
        "none beside the model"
        if golden is None
        else "{rows} rows within {tolerance:g}, the farthest {largest_difference:.2g}".format(**golden)
    )
    lines.append(f"  golden   {held}")
    lines += [f"  stage    {stage['stage']}: group {stage['group']}, state {stage['state']}" for stage in facts["stages"]]
    return "\n".join([*lines, "fit to run"])
