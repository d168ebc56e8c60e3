"""Extract: bytes to checked columns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Decoded, Decoder
from schemas.columns import Column, Mask, PackedBytes
from schemas.compare import same_text
from schemas.errors import RetryLater
from schemas.reject import Reject
from schemas.rules import Rule, check
from streams.batch import Batch, OriginPlaces
from streams.definition.bound import EventTime
from streams.hop import HopSchema
from streams.refusals import Refusals
from transforms.label import LabelRows, event_id_hashes

RETRY_SECONDS = 0.25


class Read(Protocol):
    """What is read from a topic that others write: events (`Bound`), or labels (`BoundLabels`)."""

    @property
    def key(self) -> str:
        """The field whose text is the record's key."""

    @property
    def event_time(self) -> EventTime:
        """The column of the event's time."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What a record must be."""


class Extract:
    """Decodes a batch, and rejects the records that can't be used, each with its reason.

    Whether a record is rejected follows from its bytes, the pinned schemas and the pipeline alone, so that a replay rejects exactly
    what was rejected.

    Args:
        read: what the records are.
        decoder: of their values.
        refusals: schema ids refused earlier; learns new ones.
        max_record_bytes: values above it are refused unread.
        unknown_schema_retry_seconds: how long a schema the registry doesn't know is waited for before it is refused from there on.
        sleep: waits between two questions to the registry.
    """

    def __init__(
        self,
        read: Read,
        decoder: Decoder,
        refusals: Refusals,
        max_record_bytes: int,
        unknown_schema_retry_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._read = read
        self._decoder = decoder
        self._refusals = refusals
        self._max_record_bytes = max_record_bytes
        self._retries = round(unknown_schema_retry_seconds / RETRY_SECONDS)
        self._sleep = sleep

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the event's columns; every row that can't be used is rejected.

        Raises:
            RetryLater: the registry does not answer.
        """
        decoded = self._decode(batch)
        rejected = self._refuse(batch, decoded)
        columns = dict(decoded.columns)
        time = self._read.event_time
        columns[time.column] = time.to_ms(columns[time.column])
        rejected = np.where(rejected == 0, self._key_trouble(batch, columns[self._read.key]), rejected)
        rejected = check(self._read.rules, columns, rejected)
        return replace(batch, columns=columns, rejected=rejected, schema_ids=decoded.schema_ids)

    def _decode(self, batch: Batch) -> Decoded:
        for _ in range(self._retries):
            decoded = self._decoder.decode(batch.raw, batch.absent, batch.headers)
            undecided = self._undecided(batch, decoded)
            if not undecided.any():
                return decoded
            if not all(self._refusals.patient(partition) for partition, rows in batch.partitions() if undecided[rows].any()):
                break
            self._sleep(RETRY_SECONDS)
        decoded = self._decoder.decode(batch.raw, batch.absent, batch.headers)
        for row in np.flatnonzero(self._undecided(batch, decoded)).tolist():
            at = batch.address(row)
            if batch.replay:  # it was known when the record was scored: refusing it now would take it out of the windows in silence
                named = self._decoder.schema_words(batch.raw[row], batch.headers.get(row, ()))
                raise RetryLater(f"{at} was scored with schema {named}, which the registry does not know any more")
            self._refusals.refuse_schema(at.partition, int(decoded.schema_ids[row]), at.offset)
        return decoded

    def _undecided(self, batch: Batch, decoded: Decoded) -> Mask:
        """Rows whose schema is unknown and not refused yet."""
        unknown: Mask = decoded.rejected == Reject.UNKNOWN_SCHEMA
        if unknown.any():
            unknown &= ~self._refused(batch, decoded)
        return unknown

    def _refused(self, batch: Batch, decoded: Decoded) -> Mask:
        """Rows whose schema was refused at their offset or before."""
        refused = np.zeros(len(batch), np.bool_)
        for partition, rows in batch.partitions():
            for schema_id, offset in self._refusals.schemas(partition).items():
                refused[rows] |= (decoded.schema_ids[rows] == schema_id) & (batch.offsets[rows] >= offset)
        return refused

    def _refuse(self, batch: Batch, decoded: Decoded) -> NDArray[np.uint8]:
        """The decoder's verdicts; a schema registered after it was refused stays refused, and so does what is too large to look at."""
        rejected = np.where(self._refused(batch, decoded), np.uint8(Reject.UNKNOWN_SCHEMA), decoded.rejected)
        return np.where(batch.raw.ends - batch.raw.starts > self._max_record_bytes, np.uint8(Reject.TOO_LARGE), rejected)

    def _key_trouble(self, batch: Batch, field: Column) -> NDArray[np.uint8]:
        """Rows whose key is missing, or is not the text of the key's field: another worker may own what they would change."""
        missing = np.zeros(len(batch), np.bool_)
        if isinstance(batch.keys, PackedBytes):
            keys = batch.keys
        else:
            if None in batch.keys:
                missing[:] = [key is None for key in batch.keys]
            keys = PackedBytes.pack([key or b"" for key in batch.keys])
        same = same_text(keys, field)
        trouble = np.where(same, np.uint8(0), np.uint8(Reject.KEY_MISMATCH))
        return np.where(missing, np.uint8(Reject.NULL_KEY), trouble)


class ExtractHop:
    """Decodes a batch of hop records: the columns so far, and where each row entered the pipeline.

    Args:
        hop: what the records are.
    """

    def __init__(self, hop: HopSchema) -> None:
        self._hop = hop
        self._decoder = hop.decoder()
        labels = hop.source_topic(is_label=True) if hop.stage.counts_labels else ""
        # A record that can't be decoded does not say where it came from: it stands for itself.
        self._topics = (hop.source_topic(is_label=False), labels, hop.stage.input.name)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its columns, origins, timing so far, and which of its rows are labels.

        Raises:
            StateError: a record was written by another definition of the pipeline.
        """
        hop = self._hop
        rows = hop.decode(self._decoder, batch.raw, lambda row: str(batch.address(row)), batch.absent)
        read = rows.rejected == 0
        partitions = np.zeros(len(batch), np.int32)
        for partition, span in batch.partitions():
            partitions[span] = partition
        origins = rows.origins
        places = OriginPlaces(
            self._topics,
            np.where(read, rows.is_label.astype(np.int32), np.int32(2)),
            np.where(read, origins.partitions, partitions),
            np.where(read, origins.offsets, batch.offsets),
        )
        labels = None
        if hop.stage.counts_labels:
            labels = LabelRows(rows.is_label & read, rows.labels, event_id_hashes(rows.columns[hop.bound.event_id]))
        return replace(
            batch,
            columns=rows.columns,
            rejected=rows.rejected,
            arrived_ms=np.where(read, origins.arrived_ms, batch.arrived_ms),
            schema_ids=origins.schema_ids,
            timing=origins.timing,
            origins=places,
            labels=labels,
        )
