"""Where a partition's work starts, from what Kafka and the state store say.

The transaction is the decision and the state follows it, so the state's position R is never ahead of the committed offset C unless
somebody interfered. What lies between them was put out before: it is replayed into the state only.

       log start        R                 C              log end
    ───────┼────────────┼─────────────────┼─────────────────┼──▶
                        │ state only      │ scored

    C     R          start
    ───   ────────   ──────────────────────────────────────────────────────────
    none  none       where the pipeline's settings declare: earliest or latest
    none  R          refused: offsets expired, or the group was renamed
    C     R <= C     replay [R, C), then C
    C     none       replay [log start, C), then C; refused if the log begins too late for that (`streams/log_reach.py`)
    C     R > C      refused: Kafka lost commits, or offsets were reset
    C outside the log refused: records were deleted unread, or the topic was made anew
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.errors import StateError

Declared = Literal["earliest", "latest"] | None
OnConflict = Literal["refuse", "rebuild", "adopt"]


@dataclass(frozen=True, slots=True)
class Log:
    """The part of a partition the broker still has: offsets ``start`` to ``end``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Start:
    """Read from `replay_from`; what lies before `live_from` only rebuilds the state."""

    replay_from: int
    live_from: int
    drop: bool = False  # the stored state goes first
    committed: bool = True  # False: `live_from` has yet to be committed, or "latest" would mean something else after a restart

    @property
    def replays(self) -> int:
        """Offsets to replay."""
        return self.live_from - self.replay_from


def where_to_start(committed: int | None, position: int | None, log: Log, declared: Declared, on_conflict: OnConflict, where: str) -> Start:
    """Decide where a partition's work starts; `where` names the partition in errors.

    Raises:
        StateError: offsets and state contradict each other, or nothing says where to begin.
    """
    if committed is None and position is None:
        if declared is None:
            raise StateError(
                f"{where} has no committed offset and none is declared; set kafka.start (or MILLRACE_KAFKA__START) to earliest or latest"
            )
        begin = log.start if declared == "earliest" else log.end
        return Start(begin, begin, committed=False)
    if committed is None:
        return _without_offsets(position or 0, log, declared, on_conflict, where)
    if not log.start <= committed <= log.end:
        return _outside_the_log(committed, log, on_conflict, where)
    if position is None:
        return Start(min(log.start, committed), committed)
    rebuilt = Start(min(log.start, committed), committed, drop=True)
    if position > committed:
        if on_conflict == "rebuild":
            return rebuilt
        raise StateError(
            f"{where}: the state stands at {position}, ahead of the committed offset {committed}: "
            "Kafka lost commits, or the offsets were reset. "
            "`--on-conflict rebuild` drops it and rebuilds it from the log up to the committed offset"
        )
    if position < log.start and position < committed:
        if on_conflict == "rebuild":
            return rebuilt
        raise StateError(
            f"{where}: the state stands at {position}, but the log begins at {log.start}: the records between are gone. "
            "`millrace state rebuild PIPELINE --from FOLDER` begins with a later snapshot; "
            "`--on-conflict rebuild` rebuilds it from what the log still has"
        )
    return Start(position, committed)


def repartitioned(topic: str, before: int, now: int) -> StateError:
    """What to raise when a topic's partitions are not as many as those the state was made of."""
    return StateError(
        f"{topic} has {now} partitions, and its state was made of {before}: keys may lie in another partition now, away from their past. "
        "`millrace run PIPELINE --on-conflict rebuild` builds the state anew from the partitions as they are, where keys that moved begin "
        "without a past; to keep it, copy the log into a topic made with as many partitions"
    )


def _outside_the_log(committed: int, log: Log, on_conflict: OnConflict, where: str) -> Start:
    if on_conflict != "refuse":
        return Start(log.start, log.start, drop=on_conflict == "rebuild" or committed > log.end, committed=False)
    if committed < log.start:
        raise StateError(
            f"{where}: the committed offset is {committed}, but the log begins at {log.start}: records between were deleted unread, "
            "since the worker was away for longer than the topic keeps them. `--on-conflict adopt` goes on from there, without them"
        )
    raise StateError(
        f"{where}: the committed offset is {committed}, but the log ends at {log.end}: the topic was cut short, or made anew. "
        "`--on-conflict rebuild` drops the state and begins with the log"
    )


def _without_offsets(position: int, log: Log, declared: Declared, on_conflict: OnConflict, where: str) -> Start:
    if on_conflict == "adopt":
        return Start(position, position, committed=False)
    if on_conflict == "rebuild" and declared is not None:
        begin = log.start if declared == "earliest" else log.end
        return Start(begin, begin, drop=True, committed=False)
    raise StateError(
        f"{where}: the state stands at {position} but the group has no committed offset: "
        "it expired, or the group was renamed. "
        "`--on-conflict adopt` goes on from the state's position; `--on-conflict rebuild` drops it and begins as kafka.start says"
    )


@dataclass(frozen=True, slots=True)
class CommitNote:
    """Metadata of a committed offset: fingerprints of state and pipeline, the schema ids refused so far with their first offsets, and how
    many partitions the topic had (0: not said).
    """

    state: str
    refused: Mapping[int, int] = field(default_factory=dict)
    pipeline: str = ""
    partitions: int = 0

    def dump(self) -> str:
        """As text for the broker."""
        refused = {str(schema_id): offset for schema_id, offset in self.refused.items()}
        said: dict[str, object] = {"state": self.state, "pipeline": self.pipeline, "refused": refused}
        if self.partitions:
            said["partitions"] = self.partitions
        return json.dumps(said, separators=(",", ":"), sort_keys=True)

    @classmethod
    def load(cls, text: str | None) -> CommitNote | None:
        """From the broker's text; None when it is not ours."""
        try:
            found = json.loads(text or "")
            refused = {int(k): int(v) for k, v in found["refused"].items()}
            return cls(str(found["state"]), refused, str(found.get("pipeline", "")), int(found.get("partitions", 0)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
