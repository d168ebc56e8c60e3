"""The reader: takes scored events and dead letters as any read_committed reader would, and tells the tally and the scoreboard."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from examples.card_fraud.demo.feeder import Sheet
from examples.card_fraud.demo.records import FRAUDS, Kind
from examples.card_fraud.demo.reports import labels_of
from examples.card_fraud.demo.scoreboard import Alert, Scoreboard
from examples.card_fraud.demo.tally import ReportTally, Tally
from schemas.codec import Decoder
from schemas.columns import Columns, Ints, PackedBytes, Ragged, Symbols
from schemas.errors import MillraceError
from schemas.registry import Registry
from streams.dead_letters import CONNECT, OURS
from streams.definition.bound import Bound
from streams.kafka import OFFSET_BEGINNING, KafkaError, Record, TopicPartition, plain_consumer
from streams.scored_event import TIMINGS, output_schema
from streams.settings import KafkaSettings

POLL_SECONDS = 0.1
MOST_RECORDS = 5_000
END_SECONDS = 10.0
POSITIVE = "positive"


@dataclass(frozen=True, slots=True)
class Stream:
    """Where the live stream begins in the input topic, and the sheet that says what is in it."""

    first_offset: int
    sheet: Sheet


class Reader:
    """Reads the output and the dead letters from their beginning, in a thread of its own.

    Args:
        bound: the pipeline.
        settings: for the broker.
        registry: knows the output's schema.
        tally: told of every answer.
        reports: told of every report that comes back as a dead letter.
        board: told of the answers to the live stream.
        stream: which ones those are.
    """

    def __init__(
        self,
        bound: Bound,
        settings: KafkaSettings,
        registry: Registry,
        tally: Tally,
        reports: ReportTally,
        board: Scoreboard,
        stream: Stream,
    ) -> None:
        self._bound = bound
        self._tally, self._reports, self._board, self._stream = tally, reports, board, stream
        self._label_letters = labels_of(bound).topic.dead_letters
        self._decoder = Decoder(output_schema(bound), bound.output.framing, registry)
        self._consumer = plain_consumer(settings, "millrace-demo")
        self._topics = (bound.output.name, bound.input.dead_letters, self._label_letters)
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in self._topics])
        self._stopping, self._finishing = threading.Event(), threading.Event()
        self._ended_at: dict[str, int] = {}  # by topic, where its end was when it was reached last
        self._ends: dict[str, int] | None = None  # by topic, where it is at last
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._reading = self._thread.submit(self._run)

    def look(self) -> None:
        """See that it is still reading.

        Raises:
            BaseException: what ended it.
        """
        if self._reading.done():
            self._reading.result()

    def finish(self) -> None:
        """Read the topics to their end, once nobody writes to them any more, and stop.

        Raises:
            MillraceError: the ends were not reached in time.
            BaseException: what ended the reading.
        """
        self._finishing.set()
        if wait([self._reading], END_SECONDS).not_done:
            raise MillraceError(f"the ends of {' and '.join(self._topics)} were not reached within {END_SECONDS:.0f} seconds")
        self.look()

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.shutdown()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._take()
                if self._finishing.is_set() and self._is_at_the_ends():
                    return
        finally:
            self._consumer.close()

    def _is_at_the_ends(self) -> bool:
        if self._ends is None:
            ends = {topic: self._consumer.get_watermark_offsets(TopicPartition(topic, 0), END_SECONDS) for topic in self._topics}
            self._ends = {topic: end for topic, (_, end) in ends.items()}
        return all(self._ended_at.get(topic, -1) >= end for topic, end in self._ends.items())

    def _take(self) -> None:
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return
        read_at = time.time()
        scores: list[Record] = []
        for record in cast("list[Record]", [first, *self._consumer.consume(MOST_RECORDS, 0)]):
            error = record.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise MillraceError(f"{record.topic()} can't be read: {error.str()}")
                self._ended_at[record.topic()] = record.offset()
            elif record.topic() == self._bound.output.name:
                scores.append(record)
            else:
                self._refused(record)
        if scores:
            self._scored(scores, read_at)

    def _refused(self, letter: Record) -> None:
        headers = {name: (text or b"").decode("utf-8", "replace") for name, text in letter.headers() or ()}
        offset, reason = int(headers[CONNECT + "offset"]), headers[OURS + "reason"]
        if letter.topic() == self._label_letters:
            self._reports.add_unmatched(offset, reason)
            return
        self._tally.add_refused(offset, reason)
        if offset >= self._stream.first_offset:
            self._board.add_letter(reason, headers[CONNECT + "exception.message"])

    def _scored(self, scores: list[Record], read_at: float) -> None:
        decoded = self._decoder.decode(PackedBytes.pack([record.value() or b"" for record in scores]))
        if decoded.rejected.any():
            raise MillraceError(f"{self._bound.output.name} holds a value that is no scored event")
        columns = decoded.columns
        offsets = cast("Ints", columns["source_offset"])
        timing, alert = _codes(columns, "timing"), cast("Symbols", columns["decision"]).equals(POSITIVE)
        self._tally.add_scored(offsets, timing, alert)
        live = np.flatnonzero(offsets >= self._stream.first_offset)
        if not len(live):
            return
        numbers = offsets[live] - self._stream.first_offset
        self._stream.sheet.scored(int(numbers.max()) + 1)
        alerts = [self._alert(columns, scores[row], row, read_at) for row in live[alert[live]].tolist()]
        self._board.add_scored(
            numbers,
            read_at - self._stream.sheet.sent_at[numbers],
            {name: int(np.count_nonzero(timing[live] == code)) for code, name in enumerate(TIMINGS)},
            alerts,
            np.array([each.kind in FRAUDS for each in alerts], np.bool_),
        )

    def _alert(self, columns: Columns, record: Record, row: int, read_at: float) -> Alert:
        def number(name: str) -> float:
            return float(cast("NDArray[np.float64]", columns[f"features.{name}"])[row])

        scores = cast("Ragged", columns["scores"])
        items = cast("Columns", scores.items)
        offset = int(cast("Ints", columns["source_offset"])[row])
        return Alert(
            read_at=read_at,
            score=float(cast("NDArray[np.float32]", items["score"])[scores.starts[row]]),
            event_ms=int(cast("Ints", columns["event_time"])[row]),
            customer=(record.key() or b"").decode(),
            amount=number("amount"),
            ratio=number("customer_amount_ratio_to_mean_7d"),
            counts=(int(number("customer_count_1d")), int(number("customer_count_7d")), int(number("customer_count_30d"))),
            terminal_count=int(number("terminal_count_7d_delay_7d")),
            terminal_frauds=round(number("terminal_label_rate_7d_delay_7d") * number("terminal_count_7d_delay_7d")),
            kind=Kind(int(self._stream.sheet.kinds[offset - self._stream.first_offset])),
        )


def _codes(columns: Columns, name: str) -> NDArray[np.int32]:
    return cast("Symbols", columns[name]).codes
