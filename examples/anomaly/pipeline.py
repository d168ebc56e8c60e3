"""Anomalies in metrics: each reading against the mean and deviation of its own series over the thirty days before it."""

from millrace import Count, Entity, FixedPoint, Mean, Model, Pipeline, Std, Topic, Window, days

LARGEST = 19_000_000  # units; with 25,000 readings the squares still add up exactly

value = FixedPoint("value", scale=1, largest=LARGEST)

# A reading that comes late, up to a day, is still remembered; whatever came before it stays as it was answered.
series = Entity(
    "series",
    key="series",
    windows=(Window(days(30), include_self=False),),
    aggregates=(Count(), Mean(value), Std(value)),
    lateness_ms=days(1),
    max_records=25_000,
)

pipeline = Pipeline(
    "anomaly",
    input=Topic("readings", schema="schemas/1-readings-value.avsc", key="series", event_time="event_time", event_id="reading_id"),
    entities=(series,),
    model=Model("anomaly", path="models/anomaly.onnx", inputs=("value", *series.feature_names)),
    output=Topic("readings.scored"),
)
