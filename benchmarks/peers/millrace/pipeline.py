"""The peers' job as a pipeline: six features of the customer, one model, one stage."""

from millrace import Count, Entity, FixedPoint, Mean, Model, Pipeline, Topic, Window, days

payments = Topic("payments", schema="schemas/1-payments-value.avsc", key="customer_id", event_time="event_time", event_id="payment_id")
amount = FixedPoint("amount", scale=100, largest=50_000)

customer = Entity(
    "customer",
    key="customer_id",
    windows=(Window(days(1)), Window(days(7)), Window(days(30))),
    aggregates=(Count(), Mean(amount)),
    lateness_ms=days(1),
)

pipeline = Pipeline(
    "peers",
    input=payments,
    entities=(customer,),
    model=Model("peers", path="models/peers.onnx", inputs=customer.feature_names),
    output=Topic("payments.scored"),
)
