"""Card fraud with labels: a terminal is judged by the share of its payments that turned out to be frauds, as far as that is known."""

from millrace import (
    Count,
    Derived,
    Entity,
    EventColumns,
    FixedPoint,
    Ints,
    LabelRate,
    Labels,
    Mask,
    Mean,
    Model,
    Pipeline,
    RatioToMean,
    Std,
    Topic,
    Window,
    days,
    hours,
    in_range,
    one_of,
)

payments = Topic(
    "payments",
    schema="schemas/1-payments-value.avsc",
    key="customer_id",
    event_time="event_time",
    event_id="payment_id",
)

# A fraud is reported a week after its payment. A payment that nobody reports counts as a genuine one.
labels = Labels(
    Topic(
        "payment-labels",
        schema="schemas/3-payment-labels-value.avsc",
        key="payment_id",
        event_time="event_time",
        event_id="payment_id",
    ),
    value="fraud",
    time="label_time",
)

# Amounts are counted in cents, so that sums are exact and a feature has the same bits online and offline.
amount = FixedPoint("amount", scale=100, largest=50_000)


def weekend(event: EventColumns) -> Mask:
    """1 on Saturdays and Sundays; the epoch began on a Thursday."""
    time: Ints = event["event_time"]
    return (time // days(1) + 3) % 7 >= 5


def night(event: EventColumns) -> Mask:
    """1 from 00:00:00 to 06:59:59."""
    time: Ints = event["event_time"]
    return time % days(1) // hours(1) <= 6


customer = Entity(
    "customer",
    key="customer_id",
    windows=(Window(days(1)), Window(days(7)), Window(days(30))),
    aggregates=(Count(), Mean(amount), Std(amount), RatioToMean(amount)),
    lateness_ms=hours(1),
)

# A terminal is judged by what was known a week ago: by then its frauds have been reported.
terminal = Entity(
    "terminal",
    key="terminal_id",
    windows=tuple(Window(days(n), delay_ms=days(7)) for n in (1, 7, 30)),
    aggregates=(Count(), LabelRate()),
    lateness_ms=hours(1),
)

pipeline = Pipeline(
    "card_fraud_labelled",
    input=payments,
    labels=labels,
    rules=(
        in_range("amount", 0, 50_000),
        one_of("currency", ("EUR",)),
    ),
    derived=(Derived("weekend", weekend), Derived("night", night)),
    entities=(customer, terminal),
    model=Model(
        "card_fraud_labelled",
        path="models/card_fraud_labelled.onnx",
        inputs=("amount", "weekend", "night", *customer.feature_names, *terminal.feature_names),
    ),
    output=Topic("payments.scored.labelled"),
)
