"""The kernel: what each event sees through its windows, and how it is remembered. The meaning of a window is written here.

    M          the newest event time remembered for the key before this event
    accepted   t >= M - lateness (and believed, where there is a guard); a key's first event is
    tau        t if accepted, else M - lateness
    R          floor(tau / g) without a delay d, else floor((tau - d + 1) / g) - 1: the newest cell of the window
    window     what was remembered with R - w / g < floor(t' / g) <= R, and the event itself if d = 0

An event that is not accepted is evaluated at tau and not remembered. Ties stand in the order of the log.

An event that came before, and is remembered, is not remembered again. It is found by the position it had, which stays its own, and a
window that holds it does not hold it twice. One that was refused when it came before is looked for as well: who reads the log again by
laxer rules remembers it where it came first.

The records of a key lie together in the *heap*, sorted by (event time, order in the log), in a block with room for more; the
rows of the heap are

    0  position + 1     1  event time     2..  the values     then  running sums of value, and of value x value

Running sums begin anywhere and wrap around in int64: their differences are exact as long as what they differ by is. A record too
old for any window is passed over by moving the start of what is live; it is overwritten when the block is full.

Where labels are kept, the last two values are the hash of the event's id and the label: 0 for none yet, 1 for 1 and 2 for 0, so
that the lowest bits add up to how many are 1, and a label 0 for an event without one changes no running sum. A label is a row of
the log, too (`transforms/label.py`); its own last two values are the same, and nothing else of it counts but its event time.

The module is longer than most since compiled functions are cached by file: one that calls another must share its file with it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Ints, Mask
from schemas.compiled import compiled
from transforms.arithmetic import (
    DIFFERENT,
    GREATEST,
    LEAST,
    NEEDS_DISTINCT,
    NEEDS_EXTREMES,
    NEEDS_LABELS,
    NEEDS_LAST,
    NEEDS_SQUARES,
    NEEDS_SUM,
    NEWEST,
    S1,
    S2,
    VALUE_INTEGERS,
    N,
)

Table = NDArray[Any]  # int64, shape (rows, fields)

POSITIONS: Final = 0  # fields of a record in the heap
TIMES: Final = 1
FIRST_VALUE: Final = 2

NO_POSITION: Final = 2**62  # beyond every position of a log
REFUSED: Final = -2  # less the position at which an event came before: it was refused there

BASE: Final = 0  # fields of a slot: its block's first place in the heap
START: Final = 1  # the first record still of use
END: Final = 2  # one past the last
SIZE: Final = 3  # index into the sizes of blocks; -1 = the slot is free
TOUCHED_AT: Final = 4  # the largest position that looked at it
TURN: Final = 5  # the last turn that looked at it
CHANGED: Final = 6  # the last turn that changed it
WRITE_FROM: Final = 7  # in that turn: the first record not yet in the store, counted from BASE; -1 = all, and the header
ROOM: Final = 8  # how many records find room in the block that the store has
SLOT_FIELDS: Final = 9  # then two for each window: where it began and ended last time, counted from BASE; hints, no more

NEEDS: Final = 0  # fields of a value: what its aggregates need
VALUE: Final = 1  # fields of a record
SUMS: Final = 2  # -1 = none
SQUARES: Final = 3
MARKS: Final = 4  # running sums of the lowest bits
VALUE_FIELDS: Final = 5

LENGTH: Final = 0  # fields of a window
GRID: Final = 1
DELAY: Final = 2
HOLDS_SELF: Final = 3
WINDOW_FIELDS: Final = 4

LATENESS: Final = 0  # terms of an entity
REACH: Final = 1
MAX_RECORDS: Final = 2
GUARDED: Final = 3
OLDEST: Final = 4
AHEAD: Final = 5
SIGHT: Final = 6  # how far behind the newest an event may be that some window will still see
TERMS: Final = 7

TOP: Final = 0  # of the heap: the first place never used
CHANGED_SLOTS: Final = 1  # how many slots this turn changed
ROOM_WANTED: Final = 2  # why the kernel stopped: the size of a block the heap has no room for, or 0: too many records
STAMP: Final = 3  # generation of the scratch table of `_distinct`
FETCHED: Final = 4  # of no meaning
STRETCHES: Final = 5  # how many stretches of records got labels this turn
CONTROLS: Final = 6

ON_TIME: Final = 0
LATE: Final = 1
TOO_LATE: Final = 2

LABEL_IS_1: Final = 1
LABEL_IS_0: Final = 2

UNMATCHED: Final = 0  # what a label came to
REPEATED: Final = 1
SET: Final = 2

OWNER: Final = 0  # fields of a stretch of records that got labels: the slot
FIRST: Final = 1  # counted from BASE
BEYOND: Final = 2  # one past the last
STRETCH_FIELDS: Final = 3

_AHEAD: Final = 64  # events whose memory is fetched together
_STEPS: Final = 3  # records a window moves past from one event of a key to the next, as a rule
_SPREAD: Final = 0x1E3779B97F4A7C15  # odd, with its bits well mixed: neighbouring values go far apart


def block_sizes(largest: int) -> Ints:
    """The capacities of blocks: four steps from one power of two to the next, up to at least `largest` records."""
    sizes = [4, 5, 6, 7]
    while sizes[-1] < largest:
        sizes.append(sizes[-4] * 2)
    return np.array(sizes, np.int64)


@compiled(makes_arrays=False)
def _size_for(sizes: Ints, records: int) -> int:
    """The smallest block with room for so many records."""
    low = 0
    high = len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        if sizes[middle] < records:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(makes_arrays=False)
def _take(sizes: Ints, free: Ints, control: Ints, heap: Table, size: int) -> int:
    """The place of a block of the given size; -1, and what is wanted in `control`, if the heap has no room."""
    place = free[size]
    if place >= 0:
        free[size] = heap[place, TIMES]  # free blocks form a list through their first event time
        return int(place)
    place = control[TOP]
    if place + sizes[size] > len(heap):
        control[ROOM_WANTED] = sizes[size]
        return -1
    control[TOP] = place + sizes[size]
    return int(place)


@compiled(makes_arrays=False)
def _give_back(free: Ints, heap: Table, size: int, place: int) -> None:
    heap[place, TIMES] = free[size]
    free[size] = place


@compiled(
    "int64(const int64[::1], const int64[::1], const int64[::1], int64[::1], int64[::1], int64[:, ::1], int64[:, ::1])", makes_arrays=False
)
def reserve(new: Ints, records: Ints, sizes: Ints, free: Ints, control: Ints, heap: Table, slots: Table) -> int:
    """Give each new slot a block with room for its records and some more; returns how many got theirs before the heap was full."""
    for i in range(len(new)):
        count = records[i]
        size = _size_for(sizes, count + count // 4 + 2)
        place = _take(sizes, free, control, heap, size)
        if place < 0:
            return i
        slot = new[i]
        slots[slot, BASE] = place
        slots[slot, START] = place
        slots[slot, END] = place
        slots[slot, SIZE] = size
        slots[slot, TOUCHED_AT] = -1
        slots[slot, CHANGED] = -1
        slots[slot, WRITE_FROM] = -1
        slots[slot, ROOM] = 0
    return len(new)


@compiled("void(const int64[::1], int64[::1], int64[:, ::1], int64[:, ::1])", makes_arrays=False)
def release(leaving: Ints, free: Ints, heap: Table, slots: Table) -> None:
    """Give the blocks of slots back."""
    for slot in leaving:
        if slots[slot, SIZE] >= 0:
            _give_back(free, heap, slots[slot, SIZE], slots[slot, BASE])
        slots[slot, SIZE] = -1


@compiled("void(const int64[:, ::1], int64[:, ::1], int64[:, ::1], const int64[::1], int64[::1], int64[::1])", makes_arrays=False)
def repack(old: Table, new: Table, slots: Table, sizes: Ints, free: Ints, control: Ints) -> None:
    """Lay the blocks of all slots side by side in a new heap, without the free ones that were between them."""
    free[:] = -1
    top = 0
    for slot in range(len(slots)):
        if slots[slot, SIZE] < 0:
            continue
        base = slots[slot, BASE]
        for i in range(slots[slot, END] - base):
            for field in range(old.shape[1]):
                new[top + i, field] = old[base + i, field]
        slots[slot, START] += top - base
        slots[slot, END] += top - base
        slots[slot, BASE] = top
        top += sizes[slots[slot, SIZE]]
    control[TOP] = top


@compiled(makes_arrays=False)
def _sum_up(first: int, end: int, values: Table, heap: Table, base: int) -> None:
    """Make the running sums of records first..end of a block."""
    for c in range(len(values)):
        v = values[c, VALUE]
        p = values[c, SUMS]
        if p >= 0:
            running = heap[first - 1, p] if first > base else 0
            for at in range(first, end):
                running += heap[at, v]
                heap[at, p] = running
        p = values[c, SQUARES]
        if p >= 0:
            running = heap[first - 1, p] if first > base else 0
            for at in range(first, end):
                running += heap[at, v] * heap[at, v]
                heap[at, p] = running
        p = values[c, MARKS]
        if p >= 0:
            running = heap[first - 1, p] if first > base else 0
            for at in range(first, end):
                running += heap[at, v] & 1
                heap[at, p] = running


@compiled("void(const int64[::1], const int64[:, ::1], int64[:, ::1], int64[:, ::1])", makes_arrays=False)
def sum_up(filled: Ints, values: Table, heap: Table, slots: Table) -> None:
    """Make the running sums of slots whose records came from the store."""
    for slot in filled:
        _sum_up(slots[slot, BASE], slots[slot, END], values, heap, slots[slot, BASE])


@compiled(makes_arrays=False)
def _move(slot: int, place: int, size: int, heap: Table, slots: Table) -> None:
    """Move a slot's live records to the front of a block, which may be its own."""
    start = slots[slot, START]
    count = slots[slot, END] - start
    for i in range(count):
        for field in range(heap.shape[1]):
            heap[place + i, field] = heap[start + i, field]
    slots[slot, BASE] = place
    slots[slot, START] = place
    slots[slot, END] = place + count
    slots[slot, SIZE] = size


@compiled(makes_arrays=False)
def _make_room(slot: int, sizes: Ints, free: Ints, control: Ints, heap: Table, slots: Table) -> bool:
    """See to it that a slot's block has room for one more; False if the heap has none."""
    base = slots[slot, BASE]
    size = slots[slot, SIZE]
    if slots[slot, END] < base + sizes[size]:
        return True
    live = slots[slot, END] - slots[slot, START]
    if live < slots[slot, END] - base:
        slots[slot, WRITE_FROM] = -1  # records move up in the block: it is written whole
    wanted = _size_for(sizes, live + live // 4 + 2)
    if wanted == size:
        _move(slot, base, size, heap, slots)
        return True
    place = _take(sizes, free, control, heap, wanted)
    if place < 0:
        return False
    _move(slot, place, wanted, heap, slots)
    _give_back(free, heap, size, base)
    return True


@compiled(makes_arrays=False)
def _first_at_or_after(heap: Table, first: int, end: int, time: int, hint: int) -> int:
    """Of the sorted records first..end, the first whose event time is not before `time`; `end` if there is none.

    The search starts at `hint`, where the answer was last time, and takes growing steps away from it: windows move little from
    one event of a key to the next, and each record not looked at may be a cache miss saved.
    """
    low = min(max(hint, first), end)  # everything before low is before `time`, nothing from high on is
    high = low
    step = 1
    if low > first and heap[low - 1, TIMES] >= time:
        high = low - 1
        while high - step >= first and heap[high - step, TIMES] >= time:
            high -= step
            step *= 2
        low = max(high - step + 1, first)
    else:
        while low + step <= end and heap[low + step - 1, TIMES] < time:
            low += step
            step *= 2
        high = min(low + step - 1, end)
    while low < high:
        middle = (low + high) >> 1
        if heap[middle, TIMES] < time:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(makes_arrays=False)
def _distinct(heap: Table, row: int, first: int, end: int, own: int, x: int, scratch: Table, control: Ints) -> int:
    """How many different values records first..end have, and x if the event itself is to count."""
    control[STAMP] += 1
    stamp = control[STAMP]
    slots = 4
    while slots < 2 * (end - first + own):
        slots *= 2
    found = 0
    for at in range(first - own, end):
        value = x if at < first else heap[at, row]
        place = ((value * _SPREAD) >> 20) & (slots - 1)
        while scratch[place, 0] == stamp and scratch[place, 1] != value:
            place = (place + 1) & (slots - 1)
        if scratch[place, 0] != stamp:
            scratch[place, 0] = stamp
            scratch[place, 1] = value
            found += 1
    return found


@compiled(makes_arrays=False)
def _summarise(
    first: int,
    end: int,
    own: int,
    tau: int,
    i: int,
    w: int,
    values: Table,
    given: Table,
    heap: Table,
    scratch: Table,
    control: Ints,
    integers: NDArray[np.int64],
) -> None:
    """The integers of window w: records first..end, and event i itself if `own` is 1."""
    n = end - first + own
    integers[i, w, N] = n
    for c in range(len(values)):
        at = 1 + c * VALUE_INTEGERS
        row = values[c, VALUE]
        x = given[c, i]
        needs = values[c, NEEDS]
        if needs & NEEDS_SUM:
            p = values[c, SUMS]
            total = own * x
            if end > first:
                total += heap[end - 1, p] - heap[first, p] + heap[first, row]
            integers[i, w, at + S1] = total
        if needs & NEEDS_SQUARES:
            p = values[c, SQUARES]
            total = own * x * x
            if end > first:
                total += heap[end - 1, p] - heap[first, p] + heap[first, row] * heap[first, row]
            integers[i, w, at + S2] = total
        if needs & NEEDS_LABELS:
            p = values[c, MARKS]
            integers[i, w, at + S1] = heap[end - 1, p] - heap[first, p] + (heap[first, row] & 1) if end > first else 0
        if needs & NEEDS_EXTREMES and n > 0:
            least = x if own else heap[first, row]
            greatest = least
            for j in range(first, end):
                least = min(least, heap[j, row])
                greatest = max(greatest, heap[j, row])
            integers[i, w, at + LEAST] = least
            integers[i, w, at + GREATEST] = greatest
        if needs & NEEDS_DISTINCT:
            integers[i, w, at + DIFFERENT] = _distinct(heap, row, first, end, own, x, scratch, control)
        if needs & NEEDS_LAST and n > 0:
            # On a grid, the cell of a late event may hold newer ones.
            behind = end > first and (own == 0 or heap[end - 1, TIMES] > tau)
            integers[i, w, at + NEWEST] = heap[end - 1, row] if behind else x


@compiled(makes_arrays=False)
def _remember(slot: int, i: int, t: int, position: int, values: Table, given: Table, heap: Table, slots: Table) -> None:
    """Put an event in its place: last, or, when it is late, behind the last that is not newer. There is room for it."""
    base = slots[slot, BASE]
    start = slots[slot, START]
    end = slots[slot, END]
    at = end
    if end > start and heap[end - 1, TIMES] > t:
        at = _first_at_or_after(heap, start, end, t + 1, end - 1)
        for row in range(FIRST_VALUE + len(values)):
            for j in range(end, at, -1):
                heap[j, row] = heap[j - 1, row]
        slots[slot, WRITE_FROM] = min(slots[slot, WRITE_FROM], at - base)
    heap[at, POSITIONS] = position + 1
    heap[at, TIMES] = t
    for c in range(len(values)):
        heap[at, values[c, VALUE]] = given[c, i]
    _sum_up(at, end + 1, values, heap, base)
    slots[slot, END] = end + 1


@compiled(makes_arrays=False)
def _label(
    slot: int, t: int, event: int, label: int, turn: int, sight: int, values: Table, heap: Table, slots: Table,
    changed: Ints, stretches: Table, control: Ints,
) -> int:  # fmt: skip
    """Let a label pass: set it in the records of its event, if the key still has them; returns what it came to."""
    base = slots[slot, BASE]
    end = slots[slot, END]
    if end == base:
        return UNMATCHED
    ids = values[len(values) - 2, VALUE]
    # What no window will see may still lie there, or not: it depends on when the block came from the store.
    start = _first_at_or_after(heap, slots[slot, START], end, heap[end - 1, TIMES] - sight + 1, slots[slot, START])
    first = _first_at_or_after(heap, start, end, t, end)
    last = _first_at_or_after(heap, first, end, t + 1, first)
    while first < last and heap[first, ids] != event:
        first += 1
    if first == last:  # none at that time
        last = end
        first = start
        while first < last and heap[first, ids] != event:
            first += 1
        if first == last:
            return UNMATCHED

    told = False
    moved = False  # whether a running sum is to change
    beyond = first
    for at in range(first, last):
        before = heap[at, ids + 1]
        if heap[at, ids] != event or before == label:
            continue
        if not told:
            first = at
        told = True
        moved = moved or (before & 1) != (label & 1)
        heap[at, ids + 1] = label
        beyond = at + 1
    if not told:
        return REPEATED
    if moved:
        _sum_up(first, end, values[len(values) - 1 :], heap, base)
    if slots[slot, CHANGED] != turn:
        slots[slot, CHANGED] = turn
        slots[slot, WRITE_FROM] = end - base
        changed[control[CHANGED_SLOTS]] = slot
        control[CHANGED_SLOTS] += 1
    if first - base < slots[slot, WRITE_FROM]:
        k = control[STRETCHES]
        stretches[k, OWNER] = slot
        stretches[k, FIRST] = first - base
        stretches[k, BEYOND] = beyond - base
        control[STRETCHES] += 1
    return SET


@compiled(makes_arrays=False)
def _find(t: int, position: int, start: int, end: int, heap: Table) -> int:
    """Where among the sorted records start..end the one of an event time and a position is; -1 if it is not."""
    at = _first_at_or_after(heap, start, end, t, end)
    while at < end and heap[at, TIMES] == t:
        if heap[at, POSITIONS] == position + 1:
            return at
        at += 1
    return -1


@compiled(makes_arrays=False)
def _fetch(first: int, end: int, slot_of: Ints, heap: Table, slots: Table) -> int:
    """Look at what events first..end are about to need, so that their cache misses happen together and not one after another.

    The sum is of no use: it only keeps the compiler from leaving the loop out.
    """
    seen = 0
    limit = len(heap) - 1 - _STEPS
    for i in range(first, end):
        slot = slot_of[i]
        base = slots[slot, BASE]
        at = min(slots[slot, END], limit)
        seen += heap[max(at - 1, 0), POSITIONS] + heap[at, TIMES]
        for hint in range(SLOT_FIELDS, slots.shape[1]):
            at = min(base + slots[slot, hint], limit)
            # From one record before to some steps on: a few cache lines.
            seen += heap[max(at - 1, 0), POSITIONS] + heap[at, TIMES] + heap[at + 2, POSITIONS] + heap[at + _STEPS, POSITIONS]
    return seen


@compiled(
    "int64(int64, const int64[::1], const int64[::1], const int64[::1], const int64[:, ::1], const int64[::1], const int64[::1], "
    "const boolean[::1], const int64[::1], int64, const int64[:, ::1], const int64[:, ::1], const int64[::1], const int64[::1], "
    "int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[:, :, ::1], uint8[::1], "
    "uint8[::1])",
    makes_arrays=False,
)
def advance(
    first_row: int,
    rows: Ints,  # (m,) where each event stands in the batch
    slot_of: Ints,  # (m,)
    times: Ints,  # (m,)
    given: Table,  # (values, m)
    positions: Ints,  # (m,)
    arrived: Ints,  # (m,), or (0,) without a guard
    is_label: Mask,  # (m,), or (0,) where no labels are kept
    first_positions: Ints,  # (m,): of events that came before, where they stood, or REFUSED less that; else -1. (0,) if there are none
    turn: int,
    windows: Table,
    values: Table,
    terms: Ints,
    sizes: Ints,
    free: Ints,
    control: Ints,
    heap: Table,
    slots: Table,
    changed: Ints,  # slots this turn changed, in the order of their first change
    stretches: Table,  # records this turn labelled that stand before WRITE_FROM; (labels or more, STRETCH_FIELDS)
    scratch: Table,
    integers: NDArray[np.int64],  # (m or more, windows, 1 + 6 x values); what nobody needs stays as it is
    timing: NDArray[np.uint8],  # (n,) the worst so far
    outcome: NDArray[np.uint8],  # (n,) what labels came to, the best so far
) -> int:
    """Let rows pass one by one, from `first_row` on. An event looks through the windows, then it is remembered.

    Returns the number of rows, or the row that could not be done, with the reason in ``control[ROOM_WANTED]``; nothing of that
    row has happened yet.
    """
    fetched = first_row
    for i in range(first_row, len(slot_of)):
        if i == fetched:
            fetched = min(i + _AHEAD, len(slot_of))
            control[FETCHED] = _fetch(i, fetched, slot_of, heap, slots)
        slot = slot_of[i]
        t = times[i]
        if len(is_label) and is_label[i]:
            came_to = _label(
                slot, t, given[len(values) - 2, i], given[len(values) - 1, i], turn, terms[SIGHT], values, heap, slots, changed, stretches,
                control,
            )  # fmt: skip
            outcome[rows[i]] = max(outcome[rows[i]], came_to)
            slots[slot, TOUCHED_AT] = max(slots[slot, TOUCHED_AT], positions[i])
            integers[i, :, N] = 0
            continue
        known = slots[slot, END] > slots[slot, START]
        newest = heap[slots[slot, END] - 1, TIMES] if known else t
        accepted = t >= newest - terms[LATENESS]
        if terms[GUARDED] and (t < arrived[i] - terms[OLDEST] or t > arrived[i] + terms[AHEAD]):
            accepted = False
        held = -1
        position = positions[i]
        if len(first_positions) and first_positions[i] != -1:
            before = first_positions[i]
            if before >= 0:
                position = before
            else:
                before = REFUSED - before
            held = _find(t, before, slots[slot, START], slots[slot, END], heap)

        if accepted and held < 0:
            while slots[slot, START] < slots[slot, END] and heap[slots[slot, START], TIMES] <= max(newest, t) - terms[REACH]:
                slots[slot, START] += 1
            if slots[slot, END] - slots[slot, START] >= terms[MAX_RECORDS]:
                control[ROOM_WANTED] = 0
                return i
            if slots[slot, CHANGED] != turn:
                slots[slot, CHANGED] = turn
                slots[slot, WRITE_FROM] = slots[slot, END] - slots[slot, BASE]
                if slots[slot, WRITE_FROM] == 0:
                    slots[slot, WRITE_FROM] = -1  # a new key
                changed[control[CHANGED_SLOTS]] = slot
                control[CHANGED_SLOTS] += 1
            if not _make_room(slot, sizes, free, control, heap, slots):
                return i

        tau = t if accepted else newest - terms[LATENESS]
        base = slots[slot, BASE]
        start = slots[slot, START]
        end = slots[slot, END]
        for w in range(len(windows)):
            g = windows[w, GRID]
            d = windows[w, DELAY]
            if g == 1:
                edge = tau - d + 1
            elif d == 0:
                edge = (tau // g + 1) * g
            else:
                edge = (tau - d + 1) // g * g
            hint = SLOT_FIELDS + 2 * w
            last = _first_at_or_after(heap, start, end, edge, end if d == 0 else base + slots[slot, hint + 1])
            first = _first_at_or_after(heap, start, last, edge - windows[w, LENGTH], base + slots[slot, hint])
            slots[slot, hint] = first - base
            slots[slot, hint + 1] = last - base
            own = 0 if first <= held < last else windows[w, HOLDS_SELF]  # what came back is there already
            _summarise(first, last, own, tau, i, w, values, given, heap, scratch, control, integers)

        if accepted and held < 0:
            _remember(slot, i, t, position, values, given, heap, slots)
        slots[slot, TOUCHED_AT] = max(slots[slot, TOUCHED_AT], positions[i])
        judgement = TOO_LATE if not accepted else LATE if t < newest else ON_TIME
        timing[rows[i]] = max(timing[rows[i]], judgement)
    return len(slot_of)
