"""Where a partition starts, case by case."""

from __future__ import annotations

import pytest

from schemas.errors import StateError
from streams.recovery import CommitNote, Log, Start, where_to_start

LOG = Log(start=100, end=900)


@pytest.mark.parametrize(
    ("committed", "position", "declared", "start"),
    [
        (None, None, "earliest", Start(100, 100, committed=False)),
        (None, None, "latest", Start(900, 900, committed=False)),
        (500, 500, None, Start(500, 500)),
        (500, 300, None, Start(300, 500)),  # killed between the transaction and the state's write
        (500, None, None, Start(100, 500)),  # the store was wiped
        (100, 50, None, Start(50, 100)),
        (900, 900, None, Start(900, 900)),
    ],
)
def test_work_starts_where_offsets_and_state_say(committed: int | None, position: int | None, declared: object, start: Start) -> None:
    log = Log(50, 900) if position == 50 else LOG
    assert where_to_start(committed, position, log, declared, "refuse", "payments[0]") == start  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("committed", "position", "found"),
    [
        (None, None, "no committed offset and none is declared"),
        (None, 300, "the state stands at 300 but the group has no committed offset"),
        (500, 501, "the state stands at 501, ahead of the committed offset 500"),
        (500, 60, "the state stands at 60, but the log begins at 100"),
        (90, 90, "the committed offset is 90, but the log begins at 100"),
        (90, None, "the committed offset is 90, but the log begins at 100"),
        (901, 901, "the committed offset is 901, but the log ends at 900"),
    ],
)
def test_a_contradiction_is_refused_with_the_way_out(committed: int | None, position: int | None, found: str) -> None:
    with pytest.raises(StateError) as refused:
        where_to_start(committed, position, LOG, None, "refuse", "payments[0]")
    assert found in str(refused.value)
    assert "payments[0]" in str(refused.value)
    assert any(way_out in str(refused.value) for way_out in ("rebuild", "adopt", "kafka.start"))


def test_a_rebuild_drops_the_state_and_replays_the_log_up_to_the_committed_offset() -> None:
    assert where_to_start(500, 501, LOG, None, "rebuild", "payments[0]") == Start(100, 500, drop=True)
    assert where_to_start(None, 300, LOG, "latest", "rebuild", "payments[0]") == Start(900, 900, drop=True, committed=False)


def test_records_deleted_unread_are_passed_over_when_that_is_wanted() -> None:
    assert where_to_start(90, 90, LOG, None, "adopt", "payments[0]") == Start(100, 100, committed=False)
    assert where_to_start(90, 90, LOG, None, "rebuild", "payments[0]") == Start(100, 100, drop=True, committed=False)


def test_adopting_goes_on_from_the_states_position() -> None:
    assert where_to_start(None, 300, LOG, None, "adopt", "payments[0]") == Start(300, 300, committed=False)


def test_a_commit_note_survives_the_broker_and_foreign_metadata_is_not_taken_for_one() -> None:
    note = CommitNote("0123456789abcdef", {7: 1042})
    assert CommitNote.load(note.dump()) == note
    of_four = CommitNote("0123456789abcdef", {}, "p", 4)
    assert CommitNote.load(of_four.dump()) == of_four
    assert "partitions" not in note.dump(), "what did not say stays as it was"
    assert [CommitNote.load(text) for text in (None, "", "x", "[]", '{"state": 1}')] == [None] * 5
