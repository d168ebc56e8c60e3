"""What a run says about itself: whether it may be believed, and what held it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from benchmarks.load.generator import Sent
from benchmarks.load.shape import Shape

LEAST_LATE_MS = 5.0  # two ticks and what a busy machine does to them
LATE_SHARE = 0.25  # of the p99 that is measured
LEAST_OFFERED = 0.99
FULL = 0.9  # of a core, or of all of them
DISTURBED_CORES = 0.3
MOST_OTHERS = 0.25  # of the machine


def generator_facts(sent: Sequence[Sent], offered_share: float, p99_ms: float) -> dict[str, Any]:
    """How late the generators were, and whether that decided the run.

    They did if they offered less than 99 % of what was wanted because they had fallen behind, or if the p99 of their lateness is above
    5 ms and above a quarter of the p99 that was measured: a quarter of what is then called latency would be theirs.
    """
    late = np.concatenate([each.late_ms for each in sent])
    weights = np.concatenate([each.weights for each in sent])
    given_up = any(each.given_up for each in sent)
    if not len(late):
        return {"processes": len(sent), "was_the_bottleneck": given_up}
    order = np.argsort(late)
    reached = np.cumsum(weights[order]) / weights.sum()
    p50, p99 = (float(late[order][np.searchsorted(reached, share)]) for share in (0.5, 0.99))
    last = max(each.last_late_ms for each in sent)
    too_few = offered_share < LEAST_OFFERED and last > 1_000.0
    return {
        "processes": len(sent),
        "late_p50_ms": round(p50, 3),
        "late_p99_ms": round(p99, 3),
        "late_max_ms": round(float(late.max()), 3),
        "was_the_bottleneck": bool(given_up or too_few or p99 > max(LEAST_LATE_MS, LATE_SHARE * p99_ms)),
    }


def troubles(run: Mapping[str, Any], shape: Shape) -> list[str]:
    """Why a run's numbers don't count; none = they do."""
    found = []
    generator = run["generator"]
    if generator["was_the_bottleneck"]:
        found.append(
            f"the generators were the bottleneck: they sent {run['events']:,} of {shape.expected_events:,} events, "
            f"{generator.get('late_p99_ms', 0):,.1f} ms late at their p99; more --generators, or a --rate below {shape.rate:,.0f}"
        )
    elif run["offered_share"] < LEAST_OFFERED:
        found.append(f"the run was ended after {run['offered_share']:.0%} of its events: the system was too far behind")
    if run["unanswered"]:
        found.append(f"{run['unanswered']:,} events had no answer in time")
    if shape.is_steady and run["warm_up_seconds"] is None:
        found.append(f"it did not become steady: by MSER-5, the warm-up would be more than half of {shape.seconds:g} s")
    others, cpus = run.get("cores_of_others", 0.0), psutil.cpu_count() or 1
    # Services that are not ours count as others, and may be on this machine.
    if "kafka" in run.get("cores", ()) and others > MOST_OTHERS * cpus:
        found.append(f"the machine was not its own: others took {others:.2f} of its {cpus} cores")
    return found


def blame(cost: Mapping[str, Any], cpus: int) -> str:
    """What held a run up, in words: a process with a full core, a full machine, or nothing of the kind."""
    cores: dict[str, float] = cost["cores"]
    others: float = cost["cores_of_others"]
    busiest = max(cores, key=lambda name: cores[name])
    listed = ", ".join(f"{name} {used:.2f}" for name, used in sorted(cores.items(), key=lambda item: -item[1]))
    total = sum(cores.values()) + others
    beside = f"; others on this machine took {others:.2f} cores" if others > DISTURBED_CORES else ""
    if total >= FULL * cpus:
        return f"all {cpus} cores of the machine are busy: {listed}{beside}"
    if cores[busiest] >= FULL:
        return f"{busiest} has a core to itself and fills it: {listed}{beside}"
    return f"no core is full: {listed}{beside}"
