"""A second look at refused records: what would become of them now, by the schemas and rules of today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from schemas.avro import write_value
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.dress import Dress
from schemas.framing import Header
from schemas.json_record import as_it_travels
from schemas.read_record import as_read
from schemas.registry import Registry
from schemas.reject import Reject
from streams.batch import Batch, Span
from streams.definition.inlet import Inlet
from streams.dlq.letters import Place, StoredLetter
from streams.extract import Extract
from streams.refusal import refusal
from streams.refusals import Refusals


@dataclass(frozen=True, slots=True)
class Draft:
    """A record as it would come back.

    Attributes:
        letter: whose it is.
        key, value: of the record.
        trouble: why there is none, in words; then key and value mean nothing.
        changed: whether it is another record than the refused one.
        headers: of the record, if they are others than the letter's; None = they are the letter's.
    """

    letter: StoredLetter
    key: bytes | None
    value: bytes | None
    trouble: str = ""
    changed: bool = False
    headers: tuple[Header, ...] | None = None

    @property
    def given(self) -> tuple[Header, ...]:
        """The record's own headers."""
        return self.letter.given if self.headers is None else self.headers

    @property
    def counted(self) -> bool:
        """Whether the windows hold its event already."""
        return self.letter.counted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of a draft; `reason` is empty where it would pass.

    `counted_at` says, by internal topic, under which place there the windows of later stages hold its event.
    """

    draft: Draft
    reason: str = ""
    detail: str = ""
    counted_at: Mapping[str, Place] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether a worker would take it now."""
        return not self.reason


class _Unlearned(Refusals):
    """Nothing was refused before, and whatever is refused now is no matter: nobody's offset carries it."""

    def refuse_schema(self, partition: int, schema_id: int, offset: int) -> None:
        self._schemas.setdefault(partition, {}).setdefault(schema_id, offset)


class SecondLook:
    """Judges drafts as a worker's extraction would.

    A score can't be foreseen: what the model or the broker refused passes here when its bytes and rules are sound.

    Args:
        inlet: where the records come in.
        registry: knows the writers' schemas.
        dress: how records are written that are written anew.
        max_record_bytes: what its topic takes.
    """

    def __init__(self, inlet: Inlet, registry: Registry, dress: Dress, max_record_bytes: int) -> None:
        self._inlet = inlet
        self._dress = dress
        self._plain = as_it_travels(inlet.schema)
        self._decoder = Decoder(inlet.schema, inlet.topic.framing, registry)
        self._extract = Extract(inlet.read, self._decoder, _Unlearned(), max_record_bytes, unknown_schema_retry_seconds=0)

    def __call__(self, drafts: Sequence[Draft]) -> list[Verdict]:
        """One verdict for each draft, in their order.

        Raises:
            RetryLater: the registry does not answer.
        """
        verdicts = [Verdict(draft, "not_replayable", draft.trouble) for draft in drafts]
        rows = [place for place, draft in enumerate(drafts) if not draft.trouble]
        batch = self._extract(_batch(self._inlet, [drafts[place] for place in rows]))
        for row, place in enumerate(rows):
            draft = drafts[place]
            if batch.rejected[row]:
                error, _ = refusal(self._inlet.read, self._decoder, batch, row)
                verdicts[place] = Verdict(draft, error.reason, error.detail)
            elif draft.changed and draft.counted:
                detail = "the windows hold its event as it was: it can come back as it is, not as another"
                verdicts[place] = Verdict(draft, "not_replayable", detail)
            else:
                verdicts[place] = Verdict(self._readable(draft))
        return verdicts

    def _readable(self, draft: Draft) -> Draft:
        """A worker refuses a schema id for ever once it has refused it: its records are written anew under the input's own."""
        if draft.letter.reason != Reject.UNKNOWN_SCHEMA.label or draft.changed:
            return draft
        record = as_read(self._decoder, draft.value or b"", draft.given)
        value, headers = self._dress(write_value(record, self._plain), draft.given)
        return replace(draft, value=value, headers=headers)


def _batch(inlet: Inlet, drafts: Sequence[Draft]) -> Batch:
    n = len(drafts)
    return Batch(
        spans=(Span(inlet.topic.name, 0, 0, n, 0, n),),
        offsets=np.arange(n, dtype=np.int64),
        arrived_ms=np.array([draft.letter.timestamp_ms for draft in drafts], np.int64),
        keys=[draft.key for draft in drafts],
        raw=PackedBytes.pack([draft.value or b"" for draft in drafts]),
        absent=np.array([draft.value is None for draft in drafts], np.bool_),
        headers={row: draft.given for row, draft in enumerate(drafts) if draft.given},
        columns={},
        rejected=np.zeros(n, np.uint8),
        tokens={0: 0},
    )
