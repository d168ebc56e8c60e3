"""The summary: what the demo saw, as facts for programs and as a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.card_fraud.demo.tally import Account, ReportAccount
from schemas.columns import Floats
from schemas.features import Json

WARM_UP_SECONDS = 5.0  # the broker's first transactions are slow, until its JVM has compiled them
UNPROVEN = "unproven: the embedded broker's transactions guarantee nothing"
COUNTED = "held in this run: every record was answered once"
BROKEN = "broken in this run"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    account: Account
    reports: ReportAccount
    history: int  # records sent before the live stream
    begun_at: float  # the live stream; seconds since the epoch
    sent_at: Floats  # shape (live,): of its records
    latency_seconds: Floats  # shape (live,): NaN where there was no score
    set_up_seconds: Mapping[str, float]
    live_cpu_seconds: float  # of the worker, while it answered the live stream
    history_cpu_seconds: float  # of the worker, from its first score to the end of the history
    history_answers: int  # those it gave in that time
    history_seconds: float
    broker: str
    is_real_broker: bool
    model: str
    threshold: float
    rate: float
    seed: int

    @property
    def live(self) -> int:
        """Records of the live stream."""
        return len(self.sent_at)


def facts_of(run: Run) -> dict[str, Json]:
    """The run's facts; the same that `words` tells."""
    account, reports = run.account, run.reports
    broken = account.broken() + reports.broken()
    warm_up_seconds, (p50, p99, most) = _latency_ms(run)
    once = BROKEN if broken else COUNTED if run.is_real_broker else UNPROVEN
    return {
        "holds": not broken,
        "broken": list(broken),
        "exactly_once": once,
        "broker": run.broker,
        "model": run.model,
        "threshold": run.threshold,
        "rate": run.rate,
        "seed": run.seed,
        "history": run.history,
        "live": run.live,
        "sums": {
            "sent": account.sent,
            "scored": account.scored,
            "dead_letters": account.refused,
            "missing": account.missing,
            "duplicates": account.duplicates,
            "not_sent": account.strangers,
            "answered_wrongly": account.wrong,
        },
        "labels": {
            "sent": reports.sent,
            "matched": reports.matched,
            "repeated": reports.repeated,
            "unmatched": reports.unmatched,
            "taken_wrongly": reports.wrong,
        },
        "frauds": {kind.words: {"planted": count, "caught": account.caught[kind]} for kind, count in account.frauds.items()},
        "alerts": account.alerts,
        "precision": _number(account.precision),
        "timings": dict(account.timings),
        "reasons": dict(account.reasons),
        "latency_ms": {"p50": _number(p50), "p99": _number(p99), "max": _number(most), "after_seconds": warm_up_seconds},
        "live_seconds": round(float(run.sent_at[-1] - run.begun_at), 3) if run.live else 0.0,
        "cpu_us_per_event": {
            "live": _number(run.live_cpu_seconds / run.live * 1e6 if run.live else math.nan),
            "catching_up": _number(run.history_cpu_seconds / run.history_answers * 1e6 if run.history_answers else math.nan),
        },
        "catching_up_per_second": _number(run.history_answers / run.history_seconds if run.history_seconds else math.nan),
        "set_up_seconds": {name: round(seconds, 1) for name, seconds in run.set_up_seconds.items()},
    }


def _latency_ms(run: Run) -> tuple[float, tuple[float, float, float]]:
    """After how many seconds of the stream it was taken; p50, p99 and the most."""
    if not run.live:
        return 0.0, (math.nan, math.nan, math.nan)
    lasted = float(run.sent_at[-1] - run.begun_at)
    warm_up_seconds = WARM_UP_SECONDS if lasted > 2 * WARM_UP_SECONDS else 0.0
    scored = ~np.isnan(run.latency_seconds) & (run.sent_at >= run.begun_at + warm_up_seconds)
    if not scored.any():
        return warm_up_seconds, (math.nan, math.nan, math.nan)
    p50, p99, most = (float(each) * 1e3 for each in np.quantile(run.latency_seconds[scored], (0.5, 0.99, 1.0)))
    return warm_up_seconds, (p50, p99, most)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4 if abs(value) < 1 else 1)


def words(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts as rows of a table: what a row is about, and what there is to say."""
    sums, labels, frauds, latency = facts["sums"], facts["labels"], facts["frauds"], facts["latency_ms"]
    planted, caught = sum(each["planted"] for each in frauds.values()), sum(each["caught"] for each in frauds.values())
    by_kind = ", ".join(f"{kind} {each['caught']:,} of {each['planted']:,}" for kind, each in frauds.items())
    return [
        ("sums", f"{sums['sent']:,} sent = {sums['scored']:,} scored + {sums['dead_letters']:,} dead letters"),
        ("", f"missing {sums['missing']}, twice {sums['duplicates']}, answered wrongly {sums['answered_wrongly']}"),
        (
            "labels",
            f"{labels['sent']:,} sent = {labels['matched']:,} matched + {labels['repeated']:,} repeated + "
            f"{labels['unmatched']:,} unmatched; taken wrongly {labels['taken_wrongly']}",
        ),
        ("exactly once", facts["exactly_once"]),
        *(("BROKEN", each) for each in facts["broken"]),
        ("frauds", f"{caught:,} of {planted:,} planted were caught: {by_kind}"),
        ("", "(a compromised terminal shows by the frauds reported there, a week after each: its first week is out of reach)"),
        (
            "alerts",
            f"{facts['alerts']:,}, {_percent(facts['precision'])} of them planted frauds; from a score of {facts['threshold']:.3f} on",
        ),
        ("timing", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in facts["timings"].items())),
        ("dead letters", ", ".join(f"{reason} {count:,}" for reason, count in facts["reasons"].items()) or "none"),
        ("event to score", f"p50 {_told(latency['p50'])} ms, p99 {_told(latency['p99'])} ms{_after(latency)}"),
        ("worker CPU", _cpu_words(facts)),
        ("set-up", ", ".join(f"{name} {seconds:.1f}" for name, seconds in facts["set_up_seconds"].items()) + " s"),
        ("on", f"{facts['broker']}; {facts['history']:,} payments of history, then {facts['live']:,} live"),
    ]


def _cpu_words(facts: Mapping[str, Any]) -> str:
    cpu = facts["cpu_us_per_event"]
    return (
        f"{_told(cpu['live'])} us an event at {facts['rate']:,.0f}/s; "
        f"{_told(cpu['catching_up'])} us at {_told(facts['catching_up_per_second'])}/s, catching up"
    )


def _after(latency: Mapping[str, Any]) -> str:
    return f" (without the first {latency['after_seconds']:.0f} s)" if latency["after_seconds"] else ""


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
