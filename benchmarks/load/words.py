"""A result in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def load_words(result: Mapping[str, Any]) -> str:
    """A few lines: what came out, what it cost, whether it counts."""
    lines = [f"{result.get('pipeline', result['settings']['pipeline'])}, {result.get('model', 'no model yet')}, at {result['commit']}"]
    if "events_per_second" in result.get("drain", {}):
        drain = result["drain"]
        lines.append(
            f"  drained     {drain['events_per_second']:>12,.0f} events/s, {drain['cpu_us_per_event worker']:.1f} us of worker CPU each"
        )
    knee = result.get("knee")
    if knee is not None:
        lines += list(_knee_words(knee))
    run = result.get("run") or (knee or {}).get("at_the_knee")
    if run:
        lines += list(_run_words(run))
    answers = result.get("answers")
    if answers is not None:
        lines.append(
            f"  answers     {answers['answered']:>12,} of as many events, each once, {answers['letters']:,} as dead letters; "
            f"{answers['features']:,} features of {answers['keys']} keys equal to the definition"
        )
    return "\n".join(lines)


def _knee_words(knee: Mapping[str, Any]) -> Iterator[str]:
    if "rate" not in knee:
        yield f"  knee        ended after {len(knee['runs'])} probes"
        return
    above = "the generators made no more" if knee["broke_at"] is None else f"{knee['broke_at']:,.0f} did not"
    yield f"  knee        {knee['rate']:>12,.0f} events/s hold a p99 of {knee['p99_limit_ms']:g} ms for {knee['hold_seconds']:g} s; {above}"


def _run_words(run: Mapping[str, Any]) -> Iterator[str]:
    figures = run["latency"]
    yield f"  sent        {run['events']:>12,} events, {run['shape']}, {run['rate']:,.0f}/s; the generators' p99 of lateness " + (
        f"{run['generator'].get('late_p99_ms', 0.0):.1f} ms"
    )
    yield (
        "  latency     "
        + ", ".join(f"{name.removesuffix('_ms')} {value:,.1f}" for name, value in figures.items())
        + " ms"
        + (f" after a warm-up of {run['warm_up_seconds']:.1f} s" if run["warm_up_seconds"] else "")
    )
    if "cpu_us_per_event" in run:
        yield "  CPU         " + ", ".join(f"{name} {used:.1f}" for name, used in run["cpu_us_per_event"].items()) + " us an event"
        yield "  memory      " + ", ".join(f"{name} {used:,.0f}" for name, used in run["rss_mb"].items()) + " MB"
        log = run.get("kafka_log_bytes_per_event")
        kafka = f", {sum(log.values()):,.0f} to Kafka's log" if log else ""
        commands = run["redis_commands_per_event"]
        yield f"  bytes       {run['redis_bytes_per_event']:,.0f} to Redis in {commands:.2f} commands{kafka}, an event"
        yield f"  bottleneck  {run['bottleneck']}"
    for trouble in run.get("invalid", ()):
        yield f"  INVALID     {trouble}"
