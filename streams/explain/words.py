"""An explanation in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ENDS_SHOWN = 3  # events at either end of a window
MOST_MOVED = 8


def explain_words(facts: Mapping[str, Any]) -> str:
    """A page of text: the event, its windows, its features, its score, and what moved it."""
    return "\n".join(line for part in (_event(facts), _stages(facts), _features(facts), _moved(facts), _verdict(facts)) for line in part)


def _event(facts: Mapping[str, Any]) -> Iterator[str]:
    event, schema = facts["event"], facts["event"]["schema"]
    yield f"event     {event['at']}  key {event['key']}, {event['size_bytes']} bytes" + ("; came back" if event["came_back"] else "")
    yield f"happened  {event['event_time'] or '-'}, arrived {event['arrived']}"
    reader = "" if schema["fingerprint"] == schema["reader_fingerprint"] else f", read as {schema['reader_fingerprint']}"
    yield f"schema    {schema['name']} id {schema['id']}, {schema['fingerprint']}{reader}"
    fields = event["fields"]
    yield f"fields    {fields if isinstance(fields, str) else json.dumps(fields)}"
    if facts["other_events_of_this_id"]:
        yield f"          the same id came before, as {', '.join(facts['other_events_of_this_id'])}"
    if facts["refused"]:
        yield f"refused   by {facts['refused']['stage']}: {facts['refused']['reason']}: {facts['refused']['detail']}"


def _stages(facts: Mapping[str, Any]) -> Iterator[str]:
    for stage in facts["stages"]:
        origin = f"snapshot {stage['snapshot']}, then " if stage["snapshot"] else ""
        yield ""
        read = f"{origin}the log from {stage['read_from']} on, {stage['records_read']:,} records"
        yield f"stage {stage['stage']}, record {stage['at']}: {read}"
        if stage["log_is_short"]:
            yield f"  too short: {stage['log_is_short']}"
        for entity in stage["entities"]:
            key = ", ".join(f"{name} {value}" for name, value in entity["key"].items())
            yield f"  {entity['entity']}: {key}; {entity['remembered']:,} events remembered, looked at from {entity['evaluated_at']}"
            for window in entity["windows"]:
                yield from _window(window)


def _window(window: Mapping[str, Any]) -> Iterator[str]:
    events: Sequence[Mapping[str, Any]] = window["events"]
    itself = " and itself" if window["itself"] else ""
    yield f"    {window['window']:16} {window['span']}: {len(events):,} events{itself}"
    shown = list(events)
    if len(events) > 2 * ENDS_SHOWN + 1:
        shown = [*events[:ENDS_SHOWN], {}, *events[-ENDS_SHOWN:]]
    for each in shown:
        if not each:
            yield f"      ... {len(events) - 2 * ENDS_SHOWN:,} more"
            continue
        brought = "  ".join(f"{name} {value}" for name, value in each.items() if name not in _PLACE and value is not None)
        source = each["at"] if each["source"] in (None, each["at"]) else f"{each['at']} from {each['source']}"
        yield f"      {each['event_time']}  {source}  {each['event_id'] or ''}  {brought}".rstrip()
    yield "      = " + ", ".join(f"{name} {value!r}" for name, value in window["features"].items())


_PLACE = ("at", "source", "event_id", "event_time", "event_ms")


def _features(facts: Mapping[str, Any]) -> Iterator[str]:
    score = facts["score"]
    if score is None:
        return
    yield ""
    yield f"model {score['model']} {score['version']}, features {score['feature_fingerprint']}"
    served = (facts["served"] or {}).get("features") or {}
    for name, value in facts["features"].items():
        was = served.get(name)
        told = "" if was is None else "  as served" if was == value else f"  served {was!r}"
        yield f"  {name:44} {value!r}{told}"
    yield f"score     {score['score']!r}, threshold {score['threshold']!r}: {score['decision']}, {score['timing']}"


def _moved(facts: Mapping[str, Any]) -> Iterator[str]:
    found = facts["contributions"]
    if found is None:
        return
    exact = "exact" if found["method"] != "sampled" else "estimated, with standard errors"
    yield ""
    usual = f"{found['baseline']:.6f}, the mean of {found['background']} rows ({found['background_from']})"
    yield f"what moved the {found['scale']} away from {usual}; {exact}, by {found['method']}"
    widest = max((abs(each["contribution"]) for each in found["features"]), default=0.0)
    if not widest:
        yield "  nothing: the model says the same of all of them"
        return
    for each in found["features"][:MOST_MOVED]:
        bar = "#" * round(20 * abs(each["contribution"]) / widest)
        error = f" ± {each['error']:.6f}" if each["error"] else ""
        yield f"  {each['contribution']:+.6f}{error}  {bar:20}  {each['name']} = {each['value']:g}"
    rest = found["features"][MOST_MOVED:]
    if rest:
        yield f"  {sum(each['contribution'] for each in rest):+.6f}  {'':20}  {len(rest)} others"


def _verdict(facts: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    served = facts["served"]
    if served is None:
        yield f"verdict   {facts['verdict']}: there is no scored event of this record"
        return
    yield f"verdict   {facts['verdict']}: {served['at']} says {served['score']!r}, {served['decision']}, by version {served['version']}"
    for each in facts["differences"]:
        yield f"  {each['what']}: served {each['served']!r}, computed {each['computed']!r}: {each['why']}"
