"""A pipeline made up from a seed: one to three entities with windows, delays, lateness and maybe labels; its events; its file."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000
EVENT_FIELDS: list[dict[str, Any]] = [
    {"name": "event_id", "type": "string"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "customer", "type": "string"},
    {"name": "terminal", "type": ["null", "string"]},
    {"name": "device", "type": ["null", "string"]},
]
VALUES = ("Sum", "Mean", "Std", "Min", "Max", "Last", "Distinct", "RatioToMean")
KEYS = {"customer": ("customer",), "terminal": ("terminal",), "device": ("device",), "pair": ("customer", "device")}


@dataclass(frozen=True)
class Made:
    """A pipeline's file and what is sent through it."""

    name: str
    text: str
    partitions: int
    events: list[dict[str, Any]]
    labels: list[tuple[int, dict[str, Any]]]  # each with the number of the event it follows; some twice, some too early, some for no event

    def write(self, folder: Path) -> Path:
        """Put the file and its schemas into a folder; the file's path."""
        (folder / "schemas").mkdir(parents=True)
        for number, topic, schema in ((1, self.name, EVENT), (2, f"{self.name}-labels", LABEL)):
            (folder / "schemas" / f"{number}-{topic}-value.avsc").write_text(json.dumps(schema))
        file = folder / f"{self.name}.py"
        file.write_text(self.text)
        return file


def record(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "made", "fields": fields}


EVENT = record("Event", [*EVENT_FIELDS, {"name": "amount", "type": "double"}])
LABEL = record("Label", [*EVENT_FIELDS, {"name": "fraud", "type": "boolean"}])


def make(name: str, seed: int, count: int) -> Made:
    """A pipeline of this name, and so many events for it."""
    chance = random.Random(seed)
    partitions = chance.choice((1, 2, 3, 4, 7))
    names = chance.sample(list(KEYS), chance.randint(1, 3))
    labelled = chance.choice((None, *names))
    entities = [_entity(chance, each, each == labelled) for each in names]
    events = [_event(chance, number) for number in range(count)]
    labels = _labels(chance, events, KEYS[labelled]) if labelled else []
    return Made(name, _text(name, entities, labelled is not None), partitions, events, labels)


def _entity(chance: random.Random, name: str, labelled: bool) -> str:
    """The declaration of an entity; delays and grids at random, and no distinct values on a coarse grid."""
    grid_ms = 1 if labelled else chance.choice((1, 1, 60_000))
    hours = chance.sample((1, 2, 5, 24), chance.randint(1, 3))
    windows = [f"Window({h * HOUR_MS}, grid_ms={grid_ms}, delay_ms={chance.choice((0, 0, 2 * HOUR_MS))})" for h in hours]
    words = chance.sample([each for each in VALUES if grid_ms == 1 or each != "Distinct"], chance.randint(0, 3))
    aggregates = ["Count()", *(f"{each}(amount)" for each in words), *(["LabelCount()", "LabelRate()"] if labelled else [])]
    lateness_ms = chance.choice((0, HOUR_MS // 2, 2 * HOUR_MS))
    key = KEYS[name] if len(KEYS[name]) > 1 else KEYS[name][0]
    missing = chance.choice(("absent", "refuse"))
    return (
        f"Entity({name!r}, key={key!r}, windows=({', '.join(windows)},), aggregates=({', '.join(aggregates)},), "
        f"lateness_ms={lateness_ms}, missing_key={missing!r})"
    )


def _text(name: str, entities: list[str], labelled: bool) -> str:
    labels = (
        f'labels=Labels(Topic("{name}-labels", schema="schemas/2-{name}-labels-value.avsc", key="event_id", event_time="event_time", '
        'event_id="event_id"), value="fraud"),'
    )
    return f'''"""Made up."""

from millrace import *

amount = FixedPoint("amount", scale=100, largest=1_000)
entities = ({", ".join(entities)},)

pipeline = Pipeline(
    "{name}",
    input=Topic("{name}", schema="schemas/1-{name}-value.avsc", key="customer", event_time="event_time", event_id="event_id"),
    {labels if labelled else ""}
    entities=entities,
    model=Model("made", path="models/made.onnx", inputs=("amount", *(name for entity in entities for name in entity.feature_names))),
    output=Topic("{name}.scored"),
)
'''


def _event(chance: random.Random, number: int) -> dict[str, Any]:
    """An event half a minute after the one before it: some at the same time, some late, some too late, some without a key."""
    late_ms = chance.choice((0, 0, 0, 0, 30_000, 600_000, HOUR_MS, 5 * HOUR_MS))
    return {
        "event_id": f"{number}",
        "event_time": START_MS + number * 30_000 - late_ms,
        "customer": f"C{chance.randrange(6)}",
        "terminal": chance.choice((None, *(f"T{n}" for n in range(5)))),
        "device": chance.choice((None, *(f"D{n}" for n in range(9)))),
        "amount": chance.randrange(100_000) / 100,
    }


def _labels(chance: random.Random, events: list[dict[str, Any]], key: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    labels: list[tuple[int, dict[str, Any]]] = []
    for number, event in enumerate(events):
        if None not in [event[name] for name in key]:
            for _ in range(chance.choice((0, 0, 1, 2))):
                labels.append((number + chance.choice((-30, 5, 30, 100)), _label(event, chance.random() < 0.5)))
    labels += [(place, {**label, "event_id": f"unknown-{place}"}) for place, label in labels[:5]]
    return sorted(labels, key=lambda each: each[0])


def _label(event: Mapping[str, Any], fraud: bool) -> dict[str, Any]:
    return {**{name: value for name, value in event.items() if name != "amount"}, "fraud": fraud}
