"""The simulated world: the same for a seed, each day by itself, with habits and frauds as described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.card_fraud import simulate
from examples.card_fraud.simulate import (
    COMPROMISED_CARD,
    COMPROMISED_TERMINAL,
    DAY_MS,
    GENUINE,
    LARGE_AMOUNT,
    LIMIT_CENTS,
    MONDAY_MS,
    Payments,
    Simulator,
    due_seconds,
)
from schemas.avro import load_schema
from schemas.codec import Decoder, Encoder
from schemas.columns import Constant, PackedBytes

WORLD = Simulator(seed=3, customers=2_000, terminals=3_000)


@pytest.fixture(scope="module")
def months() -> Payments:
    return WORLD.days(0, 60)


def same(one: Payments, other: Payments) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Payments.__slots__)


def test_a_seed_makes_one_world_and_another_seed_another() -> None:
    assert same(WORLD.days(5, 2), replace(WORLD).days(5, 2))
    assert not same(WORLD.days(5, 2), replace(WORLD, seed=4).days(5, 2))


@settings(max_examples=25)
@given(st.integers(0, 40), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_a_stretch_of_days_is_the_same_in_whatever_pieces_it_is_made(first: int, pieces: list[int]) -> None:
    small = Simulator(seed=1, customers=60, terminals=50)
    whole = small.days(first, sum(pieces))
    starts = first + np.cumsum([0, *pieces[:-1]])
    parts = [Simulator(seed=1, customers=60, terminals=50).days(int(start), days) for start, days in zip(starts, pieces, strict=True)]
    joined = Payments(*(np.concatenate([getattr(part, name) for part in parts]) for name in Payments.__slots__))
    assert same(whole, joined)


def test_payments_come_in_order_of_time_each_within_its_day_under_an_id_of_its_own(months: Payments) -> None:
    assert (np.diff(months.event_ms) >= 0).all()
    day = (months.event_ms - MONDAY_MS) // DAY_MS
    assert set(day.tolist()) == set(range(60))
    np.testing.assert_array_equal(months.number // simulate.MOST_A_DAY, day)
    assert (np.diff(months.number) > 0).all()


def test_customers_make_as_many_payments_as_is_their_habit(months: Payments) -> None:
    made = np.bincount(months.customer, minlength=WORLD.customers)
    expected = WORLD._habits.daily_rate * 60
    assert len(made) == WORLD.customers
    assert abs(len(months) / 60 / WORLD.payments_per_day - 1) < 0.02
    apart = (made - expected) / np.sqrt(expected + 1)  # a Poisson count's deviation
    assert np.abs(apart).max() < 6
    assert 0.9 < apart.std() < 1.1


def test_amounts_follow_the_customer_s_mean_and_deviation(months: Payments) -> None:
    habits = WORLD._habits
    honest = months.scenario != COMPROMISED_CARD
    mean_cents = habits.shape * habits.scale_cents
    standing = (months.amount_cents[honest] - mean_cents[months.customer[honest]]) / (np.sqrt(habits.shape) * habits.scale_cents)[
        months.customer[honest]
    ]
    assert abs(standing.mean()) < 0.02
    assert 0.97 < standing.std() < 1.03
    assert 5_00 <= mean_cents.min() <= mean_cents.max() <= 90_00
    assert months.amount_cents.min() >= 1


def test_a_customer_pays_within_reach_of_home_or_at_the_nearest_terminal() -> None:
    sparse = Simulator(seed=2, customers=300, terminals=100)
    random = sparse._generator(simulate._PEOPLE, 0)
    random.uniform(0, 4, 300), random.uniform(5, 90, 300), random.uniform(0, 1, 300)
    homes, shops = random.uniform(0, 100, (300, 2)), random.uniform(0, 100, (100, 2))
    payments = sparse.days(0, 30)
    apart = np.linalg.norm(homes[:, None] - shops[None], axis=2)
    went = apart[payments.customer, payments.terminal]
    nearest = apart.min(axis=1)[payments.customer]
    assert ((went <= 5) | (went == nearest)).all()
    assert (went > 5).any()
    assert (went > nearest).any()


def test_people_pay_by_day(months: Payments) -> None:
    hour = (months.event_ms - MONDAY_MS) // (DAY_MS // 24) % 24
    share = np.bincount(hour, minlength=24) / len(months)
    assert share[12:17].sum() > 0.4
    assert share[1:5].sum() < 0.03
    assert share.min() > 0.002


def test_every_amount_above_the_limit_is_a_fraud(months: Payments) -> None:
    assert (months.scenario[months.amount_cents > LIMIT_CENTS] != GENUINE).all()
    assert (months.amount_cents[months.scenario == LARGE_AMOUNT] > LIMIT_CENTS).all()
    assert np.count_nonzero(months.scenario == LARGE_AMOUNT) > 20


def test_on_a_compromised_terminal_every_payment_is_a_fraud_and_elsewhere_none_of_its_kind(months: Payments) -> None:
    lost = np.array([WORLD._lost(simulate._TERMINALS_LOST, day) for day in range(60)])
    there = lost[(months.event_ms - MONDAY_MS) // DAY_MS, months.terminal]
    assert np.isin(months.scenario[there], [COMPROMISED_TERMINAL, COMPROMISED_CARD]).all()
    assert (months.scenario[~there] != COMPROMISED_TERMINAL).all()


@pytest.mark.parametrize(("kind", "days"), [(simulate._TERMINALS_LOST, 28), (simulate._CARDS_LOST, 14)])
def test_what_is_compromised_stays_so_for_its_number_of_days(kind: int, days: int) -> None:
    lost = np.array([WORLD._lost(kind, day) for day in range(6 * days)])
    runs = [len(run) for each in lost.T[lost.any(axis=0)] for run in "".join("x" if on else " " for on in each).split()]
    assert max(set(runs), key=runs.count) == days
    assert runs.count(days) > len(runs) / 2  # the rest is cut off at an end, or two in one


def test_a_third_of_a_compromised_card_s_payments_are_frauds_of_five_times_the_amount(months: Payments) -> None:
    lost = np.array([WORLD._lost(simulate._CARDS_LOST, day) for day in range(60)])
    day = (months.event_ms - MONDAY_MS) // DAY_MS
    on_lost_cards = lost[day, months.customer]
    stolen = months.scenario == COMPROMISED_CARD
    assert not (stolen & ~on_lost_cards).any()
    assert 0.28 < np.count_nonzero(stolen) / np.count_nonzero(on_lost_cards) < 0.39
    habits = WORLD._habits
    usual = (habits.shape * habits.scale_cents)[months.customer]
    assert 4.6 < months.amount_cents[stolen].sum() / usual[stolen].sum() < 5.4
    assert (months.amount_cents[stolen] % 5 == 0).all()


def test_the_scenarios_have_their_shares(months: Payments) -> None:
    shares = np.bincount(months.scenario, minlength=4) / len(months)
    assert 0.0001 < shares[LARGE_AMOUNT] < 0.001
    assert 0.003 < shares[COMPROMISED_TERMINAL] < 0.009
    assert 0.0015 < shares[COMPROMISED_CARD] < 0.005
    assert (months.fraud == (months.scenario > 0)).all()


def test_columns_are_those_of_the_schema_with_ids_as_text_and_amounts_of_two_decimals() -> None:
    payments = Simulator(seed=1, customers=50, terminals=40).days(7, 2)
    columns = payments.columns()
    assert list(columns) == ["payment_id", "event_time", "customer_id", "terminal_id", "amount", "currency"]
    for name, letter, digits, numbers in (
        ("payment_id", "P", 12, payments.number),
        ("customer_id", "C", 6, payments.customer),
        ("terminal_id", "T", 6, payments.terminal),
    ):
        packed = columns[name]
        assert isinstance(packed, PackedBytes)
        assert [text.decode() for text in packed] == [f"{letter}{number:0{digits}d}" for number in numbers.tolist()]
    assert columns["currency"] == Constant(b"EUR", len(payments))
    amount = np.asarray(columns["amount"])
    assert amount.tolist() == [float(f"{cents // 100}.{cents % 100:02d}") for cents in payments.amount_cents.tolist()]


def test_no_days_hold_no_payments() -> None:
    assert len(WORLD.days(3, 0)) == 0
    assert len(WORLD.days(3, 0).columns()["payment_id"]) == 0


@pytest.mark.parametrize(("first", "days"), [(-1, 1), (0, -1), (99_999, 2)])
def test_days_outside_the_calendar_are_refused(first: int, days: int) -> None:
    with pytest.raises(ValueError, match="wanted 0 to 99999"):
        WORLD.days(first, days)


def test_a_day_a_second_is_a_speed_up_of_86400() -> None:
    due = due_seconds(np.array([MONDAY_MS, MONDAY_MS + DAY_MS // 2, MONDAY_MS + 3 * DAY_MS]), MONDAY_MS, 86_400)
    assert due.tolist() == [0, 0.5, 3]


def test_the_speed_up_for_a_rate_gives_that_rate_over_whole_days() -> None:
    payments = WORLD.days(0, 10)
    due = due_seconds(payments.event_ms, MONDAY_MS, WORLD.speed_up(5_000))
    seconds = 10 * DAY_MS / 1000 / WORLD.speed_up(5_000)
    assert due[-1] < seconds
    assert abs(len(payments) / seconds - 5_000) < 150


def test_payments_survive_avro() -> None:
    schema = load_schema(Path(simulate.__file__).with_name("schemas") / "1-payments-value.avsc")
    columns = Simulator(seed=1, customers=50, terminals=40).days(3, 2).columns()
    decoded = Decoder(schema, "bare", None).decode(Encoder(schema, "bare").encode(columns))
    assert not decoded.rejected.any()
    assert list(decoded.columns) == list(columns)
    for name in ("event_time", "amount"):
        np.testing.assert_array_equal(np.asarray(decoded.columns[name]), np.asarray(columns[name]))
    for name in ("payment_id", "customer_id", "terminal_id"):
        read, written = decoded.columns[name], columns[name]
        assert isinstance(read, PackedBytes)
        assert isinstance(written, PackedBytes)
        assert list(read) == list(written)
    currency = decoded.columns["currency"]
    assert isinstance(currency, PackedBytes)
    assert currency.equals("EUR").all()
