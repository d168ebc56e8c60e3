"""Millrace: from a Kafka event to an explained, reproducible model decision in one pass.

This is the face: what a pipeline file imports, and nothing else. Names are looked up when they are first used, so that
``millrace --help`` does not wait for what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.columns import Column as Column
    from schemas.columns import Columns as Columns
    from schemas.columns import Constant as Constant
    from schemas.columns import EventColumns as EventColumns
    from schemas.columns import Floats as Floats
    from schemas.columns import Ints as Ints
    from schemas.columns import Mask as Mask
    from schemas.columns import Nullable as Nullable
    from schemas.columns import PackedBytes as PackedBytes
    from schemas.columns import Ragged as Ragged
    from schemas.columns import Symbols as Symbols
    from schemas.errors import DefinitionError as DefinitionError
    from schemas.errors import MillraceError as MillraceError
    from schemas.errors import RecordError as RecordError
    from schemas.errors import Refused as Refused
    from schemas.framing import CloudEvents as CloudEvents
    from schemas.framing import SingleObject as SingleObject
    from schemas.rules import Rule as Rule
    from schemas.rules import in_range as in_range
    from schemas.rules import one_of as one_of
    from schemas.rules import present as present
    from schemas.rules import valency as valency
    from streams.definition.load import load_bound as load_bound
    from streams.definition.load import load_pipeline as load_pipeline
    from streams.definition.pipeline import Labels as Labels
    from streams.definition.pipeline import Model as Model
    from streams.definition.pipeline import Pipeline as Pipeline
    from streams.definition.pipeline import Topic as Topic
    from streams.online.feature_reader import FeatureReader as FeatureReader
    from streams.online.key_features import KeyFeatures as KeyFeatures
    from streams.producer.event_writer import EventWriter as EventWriter
    from transforms.aggregate import Count as Count
    from transforms.aggregate import Distinct as Distinct
    from transforms.aggregate import LabelCount as LabelCount
    from transforms.aggregate import LabelRate as LabelRate
    from transforms.aggregate import Last as Last
    from transforms.aggregate import Max as Max
    from transforms.aggregate import Mean as Mean
    from transforms.aggregate import Min as Min
    from transforms.aggregate import RatePerDay as RatePerDay
    from transforms.aggregate import RatioToMean as RatioToMean
    from transforms.aggregate import Std as Std
    from transforms.aggregate import Sum as Sum
    from transforms.derive import Derived as Derived
    from transforms.derive import Row as Row
    from transforms.entity import Entity as Entity
    from transforms.entity import Guard as Guard
    from transforms.fixed_point import FixedPoint as FixedPoint
    from transforms.window import Window as Window
    from transforms.window import days as days
    from transforms.window import hours as hours
    from transforms.window import minutes as minutes
    from transforms.window import seconds as seconds

_HOMES = {
    "schemas.columns": (
        "Column",
        "Columns",
        "Constant",
        "EventColumns",
        "Floats",
        "Ints",
        "Mask",
        "Nullable",
        "PackedBytes",
        "Ragged",
        "Symbols",
    ),
    "schemas.errors": ("DefinitionError", "MillraceError", "RecordError", "Refused"),
    "schemas.framing": ("CloudEvents", "SingleObject"),
    "schemas.rules": ("Rule", "in_range", "one_of", "present", "valency"),
    "streams.online.feature_reader": ("FeatureReader",),
    "streams.online.key_features": ("KeyFeatures",),
    "streams.producer.event_writer": ("EventWriter",),
    "streams.definition.load": ("load_bound", "load_pipeline"),
    "streams.definition.pipeline": ("Labels", "Model", "Pipeline", "Topic"),
    "transforms.aggregate": (
        "Count",
        "Distinct",
        "LabelCount",
        "LabelRate",
        "Last",
        "Max",
        "Mean",
        "Min",
        "RatePerDay",
        "RatioToMean",
        "Std",
        "Sum",
    ),
    "transforms.derive": ("Derived", "Row"),
    "transforms.entity": ("Entity", "Guard"),
    "transforms.fixed_point": ("FixedPoint",),
    "transforms.window": ("Window", "days", "hours", "minutes", "seconds"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CloudEvents",
    "Column",
    "Columns",
    "Constant",
    "Count",
    "DefinitionError",
    "Derived",
    "Distinct",
    "Entity",
    "EventColumns",
    "EventWriter",
    "FeatureReader",
    "FixedPoint",
    "Floats",
    "Guard",
    "Ints",
    "KeyFeatures",
    "LabelCount",
    "LabelRate",
    "Labels",
    "Last",
    "Mask",
    "Max",
    "Mean",
    "MillraceError",
    "Min",
    "Model",
    "Nullable",
    "PackedBytes",
    "Pipeline",
    "Ragged",
    "RatePerDay",
    "RatioToMean",
    "RecordError",
    "Refused",
    "Row",
    "Rule",
    "SingleObject",
    "Std",
    "Sum",
    "Symbols",
    "Topic",
    "Window",
    "days",
    "hours",
    "in_range",
    "load_bound",
    "load_pipeline",
    "minutes",
    "one_of",
    "present",
    "seconds",
    "valency",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'millrace' has no attribute {name!r}")
    _check_nothing_hides_us()
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_nothing_hides_us() -> None:
    from millrace.hidden import hiding

    said = hiding()
    if said:
        raise ImportError(said)
