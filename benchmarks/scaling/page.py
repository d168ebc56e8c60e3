"""The page: what was measured, how far the model is off, and what it says of larger loads."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from benchmarks.report.read import Result
from benchmarks.report.table import NONE, number, table
from benchmarks.scaling.held import held
from benchmarks.scaling.model import RECORDS_A_KEY, Model
from benchmarks.scaling.plan import Assumed, Plan, breaks_first, plan

CASES = ((100_000, 10_000_000), (1_000_000, 10_000_000), (1_000_000, 1_000_000_000))  # events/s, keys of each entity
WIDTH = 140

INTRODUCTION = """\
# Scaling, on paper

Made by `python -m benchmarks.scaling` of [benchmarks/results](../benchmarks/results); changes by hand would be lost. Nobody here has run
a million events a second. This page says what that would take if nothing else got in the way: a small model of measured costs, how far
it is off where it can be checked, and what it says of loads that can't.

    cost of an event = event + batch / records in a batch          for worker, broker and Redis, microseconds of CPU
    records in a batch = rate of the worker x cycle                at most 2,000

`event` and `batch` are solved from a drain (large batches) and a steady run (small ones) of one load; `cycle` is how long a small batch
takes from one commit to the next. Partitions divide the work without remainder: a worker, its state and its transactions know of no
other worker, so that costs are taken to grow with the rate, and with nothing else.
"""

LEFT_OUT = """\
What the model leaves out: networks between machines (a transaction's round trips become longer, and batches with them, which costs no
CPU but latency), hot keys (a key lives in one partition, and a partition in one worker), rebalances of hundreds of members, and the
broker's limits on partitions and producer ids."""


def page(model: Model, results: Mapping[str, Result], assumed: Assumed) -> str:
    """The page."""
    lines = [*INTRODUCTION.splitlines(), *_measured(model, results["load-constant"]), *_parts(model, results), *_errors(model, results)]
    return "\n".join([*lines, *_asked(model, assumed), *LEFT_OUT.splitlines()]) + "\n"


def _measured(model: Model, load: Result) -> list[str]:
    rows = [(name, number(cost.event_us, 2), number(cost.batch_us, 0)) for name, cost in model.costs.items()]
    data, others = load.data, load.data["run"]["cores_of_others"]
    return [
        "",
        "## What was measured",
        "",
        *([] if load.counts else _paragraph(f"**The run that these costs are from does not count**: {'; '.join(data['run']['invalid'])}.")),
        *table(("process", "us an event", "us a batch"), rows),
        *_paragraph(
            f"A small batch takes {model.cycle_seconds * 1e3:.1f} ms. An event is {model.log_bytes:,.0f} bytes in Kafka's log,",
            f"transactions and offsets included, and {model.redis_bytes:,.0f} bytes to Redis; a key with {RECORDS_A_KEY} records is",
            f"{model.redis_key_bytes:,.0f} bytes in Redis and {model.worker_key_bytes:,.0f} in the worker.",
            f"The pipeline has {model.entities} entities. Measured {load.date}, commit {data.get('commit') or NONE},",
            f"by `{load.command}`, while others took {others:.2f} of the machine's {data['machine']['cpus']} cores.",
        ),
    ]


def _parts(model: Model, results: Mapping[str, Result]) -> list[str]:
    """From below: what the parts of an event's way add up to, beside what the worker takes."""
    if "parts" not in results:
        return []
    parts = {name: figures["cpu_us"] for name, figures in results["parts"].data["parts"].items()}
    each = {
        "decode": parts["decode"],
        f"windows of {model.entities} entities": parts["windows"] * model.entities,
        "100 trees": parts["forest"],
        "encode": parts["encode"],
        f"state of {model.entities} entities to Redis": parts["store"],
        "sending, in transactions of 1,000": parts["transaction"],
    }
    known, worker = sum(each.values()), model.costs["worker"].of(1_000)
    return [
        f"From below, an event in batches of 1,000 ({results['parts'].date}, `{results['parts'].command}`):",
        "",
        *table(("part", "us"), [(name, number(us, 2)) for name, us in each.items()]),
        *_paragraph(
            f"Together {known:.1f} us; the worker takes {worker:.1f}. The rest, {worker - known:+.1f} us, is polling, packing, handing",
            "over from thread to thread, and what two runs on a shared machine differ by. A transaction of one record takes its client",
            f"{parts['commit']:,.0f} us, of {model.costs['worker'].batch_us:,.0f} us that a batch costs the worker in all.",
        ),
    ]


def _errors(model: Model, results: Mapping[str, Result]) -> list[str]:
    shown = held(model, results)
    lines = ["## How far it is off", ""]
    if not shown:
        return [*lines, "There is nothing to hold it against yet: `make bench` measures it.", ""]
    rows = [(h.what, number(h.predicted), number(h.measured), h.unit, f"{h.error:+.0%}", results[h.kind].date) for h in shown]
    worst = max(shown, key=lambda each: abs(each.error))
    typical = sorted(abs(each.error) for each in shown)[len(shown) // 2]
    return [
        *lines,
        "Beside measurements it was not made of:",
        "",
        *table(("what", "predicted", "measured", "unit", "error", "measured on"), rows),
        *_paragraph(
            f"Half of these are within {typical:.0%}; the worst is off by {worst.error:+.0%}: {worst.what}.",
            "What follows is as good as that, and not better.",
        ),
    ]


def _asked(model: Model, assumed: Assumed) -> list[str]:
    plans = [plan(model, rate, keys, assumed) for rate, keys in CASES]
    names: Sequence[tuple[str, Callable[[Plan], str]]] = (
        ("workers, a core each; partitions, at least", lambda p: number(p.workers, 0)),
        ("events/s of each", lambda p: number(p.worker_rate, 0)),
        ("transactions/s of all", lambda p: number(p.transactions_per_second, 0)),
        ("state in each worker's memory, all keys resident, GB", lambda p: number(p.worker_gb)),
        ("keys that fit it", lambda p: f"{p.resident_share:.0%}"),
        ("brokers", lambda p: number(p.brokers, 0)),
        ("brokers' cores", lambda p: number(p.broker_cores, 0)),
        ("to brokers' logs, MB/s", lambda p: number(p.log_mb_per_second, 0)),
        ("to brokers' logs, TB a day", lambda p: number(p.log_mb_per_second * 86_400 / 1e6, 0)),
        ("Redis shards", lambda p: number(p.redis_shards, 0)),
        ("Redis' cores", lambda p: number(p.redis_cores)),
        ("Redis' memory, GB", lambda p: number(p.redis_gb, 0)),
        ("to Redis, MB/s", lambda p: number(p.redis_mb_per_second, 0)),
    )
    head = ("", *(f"{rate:,} events/s, {keys:,} keys" for rate, keys in CASES))
    return [
        "## What larger loads take",
        "",
        *_paragraph("Assumed:", *assumed_words(assumed)),
        *table(head, [(name, *(take(each) for each in plans)) for name, take in names]),
        "What breaks first:",
        "",
        *(f"- {each.rate:,.0f} events/s, {each.keys:,} keys of each entity: {breaks_first(each, assumed)}." for each in plans),
        "",
    ]


def assumed_words(assumed: Assumed) -> tuple[str, ...]:
    """The assumptions, as pieces of a sentence."""
    return (
        f"cores {assumed.busy:.0%} busy; {assumed.copies} copies of each partition, of which a follower's costs what an event does without",
        f"its batch; brokers of {assumed.broker_cores} cores that write {assumed.broker_mb_per_second:,.0f} MB/s; Redis shards of",
        f"{assumed.shard_gb:g} GB, their replicas beside what is said here; workers with {assumed.worker_gb:g} GB for state;",
        f"{assumed.miss_us:g} us of a worker's CPU for a key that is not resident, keys coming up evenly.",
        "They stand in `benchmarks/scaling/plan.py`.",
    )


def _paragraph(*words: str) -> list[str]:
    """Sentences as lines, and an empty one; a command stays in one piece."""
    return [*textwrap.wrap(" ".join(words), WIDTH, break_long_words=False, break_on_hyphens=False), ""]
