"""Loads: how each kind was borne, over time, and what held it up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report.read import Result
from benchmarks.report.table import code, number, table

PREFIX = "load-"


def loads(results: Mapping[str, Result], plots: str) -> list[str]:
    """A section for each kind of load."""
    lines = [line for kind, result in results.items() if kind.startswith(PREFIX) for line in _load(result, plots)]
    return ["## Under load", "", *lines] if lines else []


def run_of(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run that a load's result is about: of a search, the one at the knee."""
    found: Mapping[str, Any] | None = data.get("run") or data.get("knee", {}).get("at_the_knee")
    return found


def _load(result: Result, plots: str) -> Iterator[str]:
    data, run = result.data, run_of(result.data)
    yield from (f"### {result.kind.removeprefix(PREFIX)}", "", _asked(result), "")
    if not data.get("complete", True):
        yield from (f"**Not complete**: {data.get('ended')}.", "")
    if "knee" in data:
        yield from _knee(data["knee"])
    if run is None:
        return
    for trouble in run.get("invalid", ()):
        yield from (f"**Invalid**: {trouble}.", "")
    figures = [number(each) for each in run["latency"].values()]
    late = number(run["generator"].get("late_p99_ms"))
    head = ("events/s", "p50 ms", "p90", "p99", "p99.9", "max", "warm-up s", "generators' p99 of lateness, ms")
    yield from table(head, [(number(run["rate"], 0), *figures, number(run["warm_up_seconds"]), late)])
    if "cores" in run:
        yield from _cost(run)
    answers = data.get("answers")
    if answers:
        yield (
            f"Answers: {answers['answered']:,} of as many events, each once; {answers['letters']:,} dead letters; "
            f"{answers['features']:,} features of {answers['keys']} keys equal to the definition, to the last bit."
        )
        yield ""
    yield from (f"![Latency over time, by percentile, and CPU by process]({plots}/{result.kind}.svg)", "")


def _asked(result: Result) -> str:
    data, settings = result.data, result.data["settings"]
    traffic = settings["traffic"]
    shares = ("late", "too_late", "poison")
    odd = [f"{traffic[f'{name}_share']:.1%} {name.replace('_', ' ')}" for name in shares if traffic[f"{name}_share"]]
    hot = [f"Zipf {traffic['zipf']:g}"] if traffic["zipf"] else []
    how = [f"{traffic['keys']:,} keys with {traffic['live']} events in the longest window", *hot, *odd]
    how += [f"{settings['partitions']} partitions, {settings['workers']} workers, {settings['generators']} generators"]
    return f"{data.get('pipeline')}, {data.get('model')}; {', '.join(how)}. {result.date}, {code(result.command)}"


def _knee(knee: Mapping[str, Any]) -> Iterator[str]:
    if "rate" not in knee:
        return
    above = "the generators made no more" if knee["broke_at"] is None else f"{knee['broke_at']:,.0f} did not"
    yield (
        f"**{knee['rate']:,.0f} events/s** hold a p99 of {knee['p99_limit_ms']:g} ms for {knee['hold_seconds']:g} s; {above}. Tried: "
        + ", ".join(f"{rate:,.0f} {verdict}" for rate, verdict in knee["probes"])
        + "."
    )
    yield ""


def _cost(run: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (name, number(run["cpu_us_per_event"][name]), number(used, 2), number(run["rss_mb"][name], 0))
        for name, used in run["cores"].items()
    ]
    yield from table(("process", "CPU us an event", "cores", "MB"), rows)
    yield from (f"Bottleneck: {run['bottleneck']}.", "")
    log = run.get("kafka_log_bytes_per_event") or {}
    kafka = "".join(f", {name} {size:,.0f}" for name, size in log.items())
    to_log = f"; to Kafka's log {sum(log.values()):,.0f}: {kafka.removeprefix(', ')}" if log else ""
    yield f"Bytes an event: to Redis {run['redis_bytes_per_event']:,.0f} in {run['redis_commands_per_event']:.2f} commands{to_log}."
    yield ""
    steps = ", ".join(f"{step} {us:,.1f}" for step, us in run["us_per_event_by_step"].items())
    yield from (f"Time in the worker's steps, us an event (load has the transaction in it): {steps}.", "")
