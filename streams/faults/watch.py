"""Looks on while a pipeline is hurt: how far it has come, and whether its state ever stands ahead of its log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from streams.faults.checker import Finding
from streams.kafka import Consumer, KafkaException, TopicPartition, plain_consumer
from streams.planning.stage import Stage
from streams.settings import KafkaSettings

LOOK_SECONDS = 0.05
ANSWER_SECONDS = 2.0

Offsets = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """What was committed in the last stage, asked for at one time and answered by another (seconds, monotonic)."""

    asked: float
    answered: float
    offsets: Offsets


class Watch(threading.Thread):
    """Asks, again and again, until it is told to end.

    Args:
        kafka: where.
        all_stages: the pipeline's.
        partitions: of each topic.
        position: how far the state of a stage's partition has come; None = there is none, or nobody answers.
    """

    def __init__(
        self, kafka: KafkaSettings, all_stages: Sequence[Stage], partitions: int, position: Callable[[Stage, int], int | None]
    ) -> None:
        super().__init__(daemon=True)
        self._kafka, self._stages, self._partitions, self._position = kafka, all_stages, partitions, position
        self._last = next(stage for stage in all_stages if stage.is_last)
        self._enough = threading.Event()
        self.looks: list[Look] = []
        self.findings: list[Finding] = []

    def close(self) -> None:
        """Stop looking."""
        self._enough.set()
        self.join()

    def progressed(self, since: float) -> bool:
        """Whether something of the last stage was committed that was not when a time had come."""
        looks = [look for look in self.looks[-2_000:] if look.asked >= since]
        return bool(looks) and any(looks[-1].offsets.get(p, 0) > at for p, at in looks[0].offsets.items())

    def recovery(self, since: float) -> float | None:
        """How long after a time every partition of the last stage had come further; None if one never did."""
        looks = iter(self.looks)
        before = next((look.offsets for look in looks if look.asked >= since), None)
        if before is None:
            return None
        waiting = set(before)
        for look in looks:
            waiting = {p for p in waiting if look.offsets.get(p, 0) <= before[p]}
            if not waiting:
                return look.answered - since
        return None

    def run(self) -> None:
        """Look on."""
        readers = {stage.name: plain_consumer(self._kafka, stage.group(self._kafka)) for stage in self._stages}
        turn = 0
        try:
            while not self._enough.wait(LOOK_SECONDS):
                with suppress(KafkaException):  # the broker is away, or a transaction stays open
                    asked = time.monotonic()
                    offsets = _committed(readers[self._last.name], self._last, self._partitions)
                    self.looks.append(Look(asked, time.monotonic(), offsets))
                    keeping = [stage for stage in self._stages if stage.entities]
                    if keeping:
                        self._hold_state_against_log(keeping[turn % len(keeping)], readers)
                        turn += 1
        finally:
            for reader in readers.values():
                reader.close()

    def _hold_state_against_log(self, stage: Stage, readers: Mapping[str, Consumer]) -> None:
        positions = {p: self._position(stage, p) for p in range(self._partitions)}
        committed = _committed(readers[stage.name], stage, self._partitions)  # after the positions: it only ever grows
        for partition, position in positions.items():
            if position is not None and position > committed[partition]:
                where = f"{stage.input.name}[{partition}]"
                detail = f"the state stands at {position}, the committed offset is {committed[partition]}"
                self.findings.append(Finding("state_ahead", where, detail))


def _committed(reader: Consumer, stage: Stage, partitions: int) -> Offsets:
    found = reader.committed([TopicPartition(stage.input.name, p) for p in range(partitions)], ANSWER_SECONDS)
    return {each.partition: max(each.offset, 0) for each in found}
