"""Payments by customer, then by device, then by terminal, which labels of weeks past say something about."""

from millrace import (
    Count,
    Derived,
    Distinct,
    Entity,
    EventColumns,
    FixedPoint,
    Ints,
    LabelCount,
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

payments = Topic("payments", schema="payments.avsc", key="customer_id", event_time="event_time", event_id="payment_id")
labels = Labels(
    Topic("payment-labels", schema="payment-labels.avsc", key="payment_id", event_time="event_time", event_id="payment_id"),
    value="fraud",
    time="label_time",
)
amount = FixedPoint("amount", scale=100, largest=50_000)


def night(event: EventColumns) -> Mask:
    """1 before seven in the morning."""
    time: Ints = event["event_time"]
    return time % days(1) // hours(1) <= 6


customer = Entity("customer", key="customer_id", windows=(Window(days(1)),), aggregates=(Count(), Mean(amount)))
device = Entity("device", key="device_id", windows=(Window(days(7)),), aggregates=(Count(), Distinct("country")), missing_key="absent")
terminal = Entity(
    "terminal",
    key="merchant.terminal_id",
    windows=(Window(days(7), delay_ms=days(7)),),
    aggregates=(Count(), LabelCount(), LabelRate()),
)

pipeline = Pipeline(
    "fraud",
    input=payments,
    labels=labels,
    derived=(Derived("night", night),),
    entities=(customer, device, terminal),
    model=Model(
        "fraud",
        path="fraud.onnx",
        inputs=("amount", "night", "rank", *customer.feature_names, *device.feature_names, *terminal.feature_names),
    ),
    output=Topic("payments.scored"),
)
