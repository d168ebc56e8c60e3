"""The model's predictions beside measurements it was not made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.read import Result
from benchmarks.scaling.model import MOST_RECORDS, PROCESSES, Model

Take = Callable[[dict[str, Any]], float]
FEW_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Held:
    """A prediction beside a measurement the model was not made of."""

    what: str
    kind: str
    predicted: float
    measured: float
    unit: str

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1


def held(model: Model, results: Mapping[str, Result]) -> list[Held]:
    """The model beside everything else that was measured."""
    found: list[Held] = []

    def add(
        kind: str, what: str, unit: str, predicted: Callable[[dict[str, Any]], float], measured: Callable[[dict[str, Any]], float]
    ) -> None:
        if kind not in results:
            return
        data = results[kind].data
        try:
            found.append(Held(what, kind, predicted(data), measured(data), unit))
        except (KeyError, TypeError, IndexError, StopIteration):
            return  # a result of an older kind does not have it

    def total(rate: float) -> float:
        return sum(model.cpu_us(name, rate) for name in PROCESSES)

    def of_two_stages() -> float:
        parts: dict[str, float] = {name: figures["cpu_us"] for name, figures in results["parts"].data["parts"].items()}
        once = parts["windows"] * model.entities + parts["store"] + parts["forest"]
        return 2 * model.costs["worker"].of(MOST_RECORDS) - once

    largest = MOST_RECORDS / model.cycle_seconds
    add(
        "worker",
        "one worker drained: CPU",
        "us an event",
        lambda _: model.cpu_us("worker", largest),
        lambda d: d["drain"]["cpu_us_per_event"],
    )
    add(
        "worker",
        "one worker drained, all on this machine's cores",
        "events/s",
        lambda d: d["machine"]["cpus"] * 1e6 / total(largest),
        lambda d: d["drain"]["events_per_second"],
    )
    add(
        "worker",
        "one worker at a steady rate: CPU",
        "us an event",
        lambda d: model.cpu_us("worker", d["settings"]["rate"]),
        lambda d: d["steady"]["cpu_us_per_event"],
    )
    add(
        "stages",
        "two stages in one process, drained: CPU, as twice one's with windows, state and trees once",
        "us an event",
        lambda _: of_two_stages(),
        lambda d: d["drain"]["cpu_us_per_event all"],
    )
    add(
        "stages",
        "two workers of two stages, all on this machine's cores",
        "events/s",
        lambda d: (
            d["machine"]["cpus"]
            * 1e6
            / (of_two_stages() + 2 * model.costs["kafka"].of(MOST_RECORDS) + model.costs["redis"].of(MOST_RECORDS))
        ),
        lambda d: d["two workers"]["events_per_second"],
    )
    add(
        "load-knee",
        "the knee, all on this machine's cores",
        "events/s",
        lambda d: d["machine"]["cpus"] * 1e6 / (total(d["knee"]["rate"]) + _others(d)),
        lambda d: d["knee"]["rate"],
    )
    for keys in (100_000, 1_000_000):
        for records in (15, 60):
            for name in ("redis", "worker"):
                what = f"{keys:,} keys with {records} records: memory of {name}"
                add("growth", what, "bytes a key", _grown(FEW_KEYS, records, name), _grown(keys, records, name))
    return found


def _grown(keys: int, records: int, name: str) -> Take:
    """Bytes a key: few keys stand for many."""

    def take(data: dict[str, Any]) -> float:
        case = next(case for case in data["cases"] if case["keys"] == keys and case["records_a_key"] == records)
        return float(case[f"{name}_bytes_a_key"])

    return take


def _others(knee: Mapping[str, Any]) -> float:
    """What generators and reader took of the same machine."""
    each = knee["knee"]["at_the_knee"]["cpu_us_per_event"]
    return float(sum(used for name, used in each.items() if name not in PROCESSES))
