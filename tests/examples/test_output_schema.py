"""The schema of the example's scored events stands beside that of its input: for their readers, and so that `topics create` writes none."""

from __future__ import annotations

from pathlib import Path

from examples.card_fraud import simulate
from schemas.registry import FileRegistry
from streams.definition.load import load_bound
from streams.scored_event import output_schema

PIPELINE = Path(simulate.__file__).with_name("pipeline.py")
WAY_OUT = "the pipeline's features or the scored event have changed: remove the file, and let `millrace topics create` write it"


def test_the_schema_file_of_the_scored_events_is_what_the_pipeline_writes() -> None:
    bound = load_bound(PIPELINE)
    found = FileRegistry(bound.schema_folder).latest(bound.output.subject)
    assert found is not None, WAY_OUT
    assert found[1].definition == output_schema(bound).definition, WAY_OUT
