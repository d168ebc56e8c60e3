"""Payments, each scored against the customer's own last day, week and month."""

from millrace import Count, Entity, FixedPoint, Mean, Model, Pipeline, RatioToMean, Topic, Window, days

amount = FixedPoint("amount", scale=100, largest=10_000)

customer = Entity(
    "customer",
    key="customer_id",
    windows=(Window(days(1)), Window(days(7)), Window(days(30))),
    aggregates=(Count(), Mean(amount), RatioToMean(amount)),
)

pipeline = Pipeline(
    "payments",
    input=Topic("payments", schema="avro/1-payments-value.avsc", key="customer_id", event_time="event_time", event_id="payment_id"),
    entities=(customer,),
    model=Model("payments", path="models/payments.onnx", inputs=("amount", *customer.feature_names)),
    output=Topic("payments.scored"),
)
