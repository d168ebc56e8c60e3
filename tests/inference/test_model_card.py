"""The card survives the file, and a pipeline that does not fit it is told so with both sides."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.model_card import ModelCard, bind, from_metadata, to_metadata, write_card
from schemas.errors import ModelError
from tests.inference.small_models import CARD

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
cards = st.builds(
    ModelCard,
    name=text,
    version=text,
    feature_names=st.lists(text, min_size=1, max_size=5, unique=True).map(tuple),
    feature_fingerprint=text,
    threshold=st.floats(allow_nan=False, allow_infinity=False),
    schema_fingerprint=st.none() | text,
    trained_at=st.none() | text,
    libraries=st.dictionaries(text, text, max_size=3),
    metrics=st.dictionaries(text, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    training_data_sha256=st.none() | text,
    golden_sha256=st.none() | text,
)


@settings(max_examples=50)
@given(cards)
def test_a_card_read_back_from_a_model_is_the_card_written(card: ModelCard) -> None:
    model = onnx.ModelProto()
    write_card(model, card)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    read = from_metadata({entry.key: entry.value for entry in again.metadata_props}, "here")
    assert read == card


def test_writing_a_card_replaces_the_old_one_and_leaves_other_metadata() -> None:
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="somebody")
    write_card(model, replace(CARD, trained_at="2020-01-01"))
    write_card(model, replace(CARD, version="2"))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert kept["author"] == "somebody"
    assert kept["millrace.version"] == "2"
    assert "millrace.trained_at" not in kept
    assert len(model.metadata_props) == len(kept)


def test_a_model_without_a_card_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"model\.onnx: the model carries no card.*write_card"):
        from_metadata({"author": "somebody"}, "model.onnx")


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("version", "", r"lacks millrace\.version"),
        ("feature_names", "a,b", "feature_names is 'a,b', wanted a JSON list"),
        ("feature_names", "[1, 2]", "wanted a JSON list of names"),
        ("feature_names", "[]", "wanted a JSON list of names"),
        ("feature_names", '["a", "a"]', "names a feature twice"),
        ("threshold", "half", "threshold is 'half', wanted a number"),
        ("threshold", "nan", "wanted a finite number"),
        ("metrics", "[1]", "metrics is '\\[1\\]', wanted a JSON object"),
        ("metrics", '{"auc": "good"}', "metrics says auc is 'good', wanted a number"),
        ("libraries", "{", "libraries is '{', wanted a JSON object"),
    ],
)
def test_an_unreadable_card_is_refused_by_its_entry(entry: str, value: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_metadata({**to_metadata(CARD), f"millrace.{entry}": value}, "model.onnx")


def test_a_pipeline_that_gives_what_the_model_was_made_for_is_bound() -> None:
    bind(CARD, CARD.feature_names, CARD.feature_fingerprint)


@pytest.mark.parametrize(
    ("inputs", "fingerprint", "both"),
    [
        (("amount", "count"), "x", ("made for 3 features", "gives 2", "only the model has mean", "only the pipeline has none")),
        (("amount", "count", "std"), "x", ("only the model has mean", "only the pipeline has std")),
        (("amount", "count", "mean", "mean"), "x", ("made for 3 features", "gives 4")),
        (("count", "amount", "mean"), "x", ("input 0 is 'amount' for the model, 'count' in the pipeline", "count, amount, mean")),
        (CARD.feature_names, "fedcba9876543210", (CARD.feature_fingerprint, "fedcba9876543210", "train again")),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused_with_both_sides(inputs: tuple[str, ...], fingerprint: str, both: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as refused:
        bind(CARD, inputs, fingerprint)
    message = str(refused.value)
    assert all(part in message for part in ("toy 1", *both)), message
