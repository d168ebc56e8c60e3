"""What the demo sends: payments as they should be, and misfits each of which is refused, or flagged, for its own reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.card_fraud import simulate
from examples.card_fraud.demo.feeder import input_encoder
from examples.card_fraud.demo.records import FLAGGED_AS, MISFITS, REFUSED_AS, Kind, Records, history, live
from examples.card_fraud.simulate import Simulator
from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.registry import FileRegistry
from schemas.reject import label
from schemas.rules import check
from streams.definition.bound import Bound
from streams.definition.load import load_bound
from streams.scored_event import TIMINGS
from transforms.label import LabelRows, event_id_hashes
from transforms.memory_store import MemoryStore
from transforms.shard import ShardState

PIPELINE = Path(simulate.__file__).with_name("labelled.py")
WORLD = Simulator(seed=3, customers=400, terminals=300)


@pytest.fixture(scope="module")
def bound() -> Bound:
    return load_bound(PIPELINE)


@pytest.fixture(scope="module")
def records(bound: Bound) -> Records:
    """Five days of the live stream, as one."""
    days = list(islice(live(WORLD, input_encoder(bound, 1), first_day=2), 5))
    values, keys = [value for day in days for value in day.values], [key for day in days for key in day.keys]
    return Records(values, keys, np.concatenate([day.kinds for day in days]), np.concatenate([day.event_ms for day in days]))


def reasons(bound: Bound, records: Records) -> list[str]:
    """Why each record is refused by the pipeline; "" = it is not."""
    decoded = Decoder(bound.schema, bound.input.framing, FileRegistry(bound.schema_folder)).decode(PackedBytes.pack(records.values))
    rejected = check(bound.rules, decoded.columns, decoded.rejected)
    customers = decoded.columns["customer_id"]
    assert isinstance(customers, PackedBytes)
    wrong_key = [key != customer for key, customer in zip(records.keys, customers, strict=True)]
    names = [rule.name for rule in bound.rules]
    return [
        label(code, names) if code else "key_mismatch" if wrong else "" for code, wrong in zip(rejected.tolist(), wrong_key, strict=True)
    ]


def timings(bound: Bound, records: Records, usable: NDArray[np.bool_]) -> list[str]:
    """How each record is timed by the pipeline's entities."""
    decoded = Decoder(bound.schema, bound.input.framing, FileRegistry(bound.schema_folder)).decode(PackedBytes.pack(records.values))
    store = MemoryStore()
    store.claim("0", {})
    state = ShardState("0", bound.pipeline.entities, store, bound.event_time.column, max_keys=1_000)
    none = np.zeros(len(records), np.int64)
    labels = LabelRows(none != 0, none, event_id_hashes(decoded.columns["payment_id"]))
    timing = state.advance(decoded.columns, usable, np.arange(len(records)), labels=labels).timing
    return [TIMINGS[code] for code in timing.tolist()]


def test_every_kind_of_misfit_is_in_the_stream(records: Records) -> None:
    assert {Kind(kind) for kind in records.kinds.tolist()} >= set(MISFITS)


def test_each_record_is_refused_for_the_reason_that_its_kind_says_and_for_no_other(bound: Bound, records: Records) -> None:
    assert reasons(bound, records) == [REFUSED_AS.get(Kind(kind), "") for kind in records.kinds.tolist()]


def test_each_record_is_on_time_late_or_too_late_as_its_kind_says(bound: Bound, records: Records) -> None:
    usable = ~np.isin(records.kinds, list(REFUSED_AS))
    timed = timings(bound, records, usable)
    wanted = [FLAGGED_AS.get(Kind(kind), "on_time") for kind in records.kinds.tolist()]
    assert [timed[row] for row in np.flatnonzero(usable)] == [wanted[row] for row in np.flatnonzero(usable)]


def test_without_its_misfits_the_stream_is_the_simulated_one(records: Records) -> None:
    payments = WORLD.days(2, 5)
    kept = ~np.isin(records.kinds, list(MISFITS))
    assert records.kinds[kept].tolist() == payments.scenario.tolist()
    assert records.event_ms[kept].tolist() == payments.event_ms.tolist()
    assert [key for key, keep in zip(records.keys, kept, strict=True) if keep] == list(payments.customer_id)


def test_the_history_holds_payments_alone(bound: Bound) -> None:
    past = history(WORLD, input_encoder(bound, 1), days=2)
    assert len(past) == len(WORLD.days(0, 2))
    assert set(reasons(bound, past)) == {""}


def test_another_seed_sends_other_records(bound: Bound, records: Records) -> None:
    other = next(live(replace(WORLD, seed=4), input_encoder(bound, 1), first_day=2))
    assert other.values[:50] != records.values[:50]
