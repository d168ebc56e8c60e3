"""Play rounds of faults on a pipeline, and say what they came to.

A round is decided by its seed: how the workers are set up, which faults are done and when, which events are sent. When it is over
everything is mended, the pipeline reads what there is, the workers are stopped, and the checker goes through what is left.
"""

from __future__ import annotations

import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streams.definition.load import load_bound
from streams.faults.checker import KINDS, Finding, Verdict, check
from streams.faults.ground import Ground, Hurt, Shape, Stuck
from streams.faults.hurts import FAULTS
from streams.faults.log import History
from streams.faults.nursery import Nursery

RECOVERY_EVERY = 6  # faults; then the pipeline may come back before the next one
PAUSE_SECONDS = (0.0, 0.6)
MOST_SHOWN = 20


@dataclass(frozen=True)
class Played:
    """What a round came to.

    Attributes:
        seed: it can be played again with.
        shape: how it was set up.
        hurts: what was done.
        recoveries: by fault, the seconds from its end until every partition had come further.
        replayed: offsets read again into the state.
        said: how often workers began anew, and the like.
        ended: workers that ended by themselves.
        findings: what was seen while it ran, `stuck` among it.
        seconds: it took.
        history: what was left; None = it came to no end.
        folder: where it was played.
    """

    seed: int
    shape: dict[str, Any]
    hurts: Sequence[Hurt]
    recoveries: Sequence[tuple[str, float]]
    replayed: int
    said: dict[str, int]
    ended: Sequence[str]
    findings: Sequence[Finding]
    seconds: float
    history: History | None
    folder: Path


@dataclass
class Account:
    """What all rounds came to."""

    seed: int
    rounds: list[dict[str, Any]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    spoiled: list[str] = field(default_factory=list)  # rounds that the harness itself could not play
    inputs: int = 0
    scored: int = 0
    refused: int = 0
    labels: int = 0
    replayed: int = 0
    stuck: int = 0
    seconds: float = 0.0

    def add(self, played: Played, verdict: Verdict | None) -> None:
        """Take a round into the account."""
        findings = [*played.findings, *(verdict.findings if verdict else ())]
        self.faults.update(hurt.kind for hurt in played.hurts)
        self.found.update(finding.kind for finding in findings)
        self.examples += [f"seed {played.seed}: {finding}" for finding in findings[:MOST_SHOWN]]
        self.said.update(played.said)
        self.ended += [f"seed {played.seed}: {words}" for words in played.ended]
        for kind, seconds in played.recoveries:
            self.recoveries.setdefault(kind, []).append(seconds)
        self.replayed += played.replayed
        self.seconds += played.seconds
        self.stuck += sum(finding.kind == "stuck" for finding in played.findings)
        if verdict is not None:
            self.inputs += verdict.inputs
            self.scored += verdict.scored
            self.refused += verdict.refused
            self.labels += verdict.labels
        self.rounds.append(
            {
                "seed": played.seed,
                "shape": played.shape,
                "faults": len(played.hurts),
                "outputs": verdict.scored if verdict else None,
                "findings": len(findings),
                "seconds": round(played.seconds, 1),
            }
        )

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, twice, wrong, or otherwise found; and whether anything was looked at."""
        return not self.found and not self.stuck and self.scored > 0

    def facts(self) -> dict[str, Any]:
        """For a results file."""
        every = [seconds for each in self.recoveries.values() for seconds in each]
        return {
            "seed": self.seed,
            "holds": self.holds,
            "found": {kind: self.found[kind] for kind in KINDS},
            "examples": self.examples[:MOST_SHOWN],
            "inputs": self.inputs,
            "outputs": self.scored,
            "dead_letters": self.refused,
            "labels": self.labels,
            "faults": sum(self.faults.values()),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "replayed_offsets": self.replayed,
            "recovery_seconds": quantiles(every),
            "recovery_seconds_by_kind": {kind: quantiles(each) for kind, each in sorted(self.recoveries.items())},
            "workers_said": dict(sorted(self.said.items())),
            "workers_ended_by_themselves": self.ended,
            "rounds_not_played": self.spoiled,
            "seconds": round(self.seconds, 1),
            "rounds": self.rounds,
        }


def play(
    file: Path, which: str | None, folder: Path, nursery: Nursery, seed: int, rate: float, seconds: float, shape: Shape | None = None
) -> Played:
    """Play one round of about so many seconds, the time to mend not counted.

    Args:
        file: the pipeline's; which: one of several in it.
        folder: a new one; it is left as it is.
        nursery: makes the workers.
        seed: decides what is done.
        rate: events a second.
        seconds: of faults.
        shape: of the round; None = drawn from the seed.
    """
    began = time.monotonic()
    for name in ("librdkafka", "streams.kafka"):  # our own clients lose their broker on purpose: what they say of it is no news
        logging.getLogger(name).setLevel(logging.CRITICAL)
    chance = random.Random(seed)
    drawn = Shape.drawn(chance)
    ground = Ground(file, which, folder, nursery, shape or drawn, seed, rate)
    try:
        findings: list[Finding] = []
        history: History | None = None
        try:
            _hurt(ground, chance, seconds)
            ground.heal()
            ground.drain()
            ground.stop()
            history = ground.history()
        except Stuck as error:
            findings.append(Finding("stuck", ground.bound.name, str(error)))
        findings += ground.watch.findings
        recovered = [(hurt.kind, ground.watch.recovery(ground.began + hurt.at_seconds + hurt.lasted_seconds)) for hurt in ground.hurts]
        return Played(
            seed,
            ground.facts(),
            tuple(ground.hurts),
            [(kind, took) for kind, took in recovered if took is not None],
            ground.replayed(),
            dict(ground.said()),
            tuple(ground.ended),
            findings,
            time.monotonic() - began,
            history,
            folder,
        )
    finally:
        ground.close()


def _hurt(ground: Ground, chance: random.Random, seconds: float) -> None:
    ground.feeder.start()
    for slot in ground.slots:
        ground.start(slot)
    ground.await_progress(time.monotonic())
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        (fault,) = chance.choices(FAULTS, [each.weight for each in FAULTS])
        fault.do(ground, fault.kind)
        ground.meanwhile(chance.uniform(*PAUSE_SECONDS))
        done += 1
        if done % RECOVERY_EVERY == 0:
            ground.await_progress(time.monotonic())


def judge(file: Path, which: str | None, history: History, schemas: Path) -> Verdict:
    """What the checker says of a round; a function of its own, so that another process can do it."""
    return check(load_bound(file, which), history, schemas)


def seeds(seed: int) -> Iterator[int]:
    """Of the rounds of a run, without end; the first is the run's own, so that one round can be played again by itself."""
    yield seed
    chance = random.Random(seed)
    while True:
        yield chance.randrange(1 << 31)


def forget(played: Played, kept: bool) -> None:
    """Remove what a round left, unless something was found in it."""
    if not kept:
        shutil.rmtree(played.folder, ignore_errors=True)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of recovery times."""
    if not seconds:
        return {}
    return {
        "count": len(seconds),
        "p50": round(float(np.quantile(seconds, 0.5)), 3),
        "p99": round(float(np.quantile(seconds, 0.99)), 3),
        "max": round(max(seconds), 3),
    }
