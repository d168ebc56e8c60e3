"""The handbook's fifteen features: customers over 1, 7 and 30 days, terminals likewise a week later, when labels are known.

Definitions: Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection (2022), chapter 3.
"""

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
    Topic,
    Window,
    days,
    hours,
)

amount = FixedPoint("amount", scale=100, largest=10_000)


def weekend(event: EventColumns) -> Mask:
    """1 on Saturdays and Sundays; the epoch began on a Thursday."""
    time: Ints = event["event_time"]
    return (time // days(1) + 3) % 7 >= 5


def night(event: EventColumns) -> Mask:
    """1 from 00:00:00 to 06:59:59."""
    time: Ints = event["event_time"]
    return time % days(1) // hours(1) <= 6


customer = Entity("customer", key="customer_id", windows=tuple(Window(days(n)) for n in (1, 7, 30)), aggregates=(Count(), Mean(amount)))

# Its transactions come from many partitions, which may be up to a day apart.
terminal = Entity(
    "terminal",
    key="terminal_id",
    windows=tuple(Window(days(n), delay_ms=days(7)) for n in (1, 7, 30)),
    aggregates=(Count(), LabelRate()),
    lateness_ms=days(1),
)

pipeline = Pipeline(
    "handbook",
    input=Topic("handbook", schema="schemas/1-handbook-value.avsc", key="customer_id", event_time="event_time", event_id="transaction_id"),
    labels=Labels(
        Topic(
            "handbook-labels",
            schema="schemas/2-handbook-labels-value.avsc",
            key="transaction_id",
            event_time="event_time",
            event_id="transaction_id",
        ),
        value="fraud",
        time="label_time",
    ),
    derived=(Derived("weekend", weekend), Derived("night", night)),
    entities=(customer, terminal),
    model=Model(
        "handbook",
        path="models/handbook.onnx",
        inputs=("amount", "weekend", "night", *customer.feature_names, *terminal.feature_names),
    ),
    output=Topic("handbook.scored"),
)
