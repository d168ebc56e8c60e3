"""Bikes at stations: how many there are, from the weather and from how many there usually are at this station at this hour."""

from millrace import Entity, FixedPoint, Mean, Model, Pipeline, Topic, Window, days, minutes

ALWAYS = days(400)  # longer than there is data: a running mean
LATE = minutes(30)  # until a count is known, in the harder of the two settings

bikes = FixedPoint("bikes", scale=1, largest=100)

station_hour = Entity(
    "station_hour",
    key=("station", "hour"),
    windows=(Window(ALWAYS, include_self=False), Window(ALWAYS, delay_ms=LATE)),
    aggregates=(Mean(bikes),),
)

pipeline = Pipeline(
    "bikes",
    input=Topic("stations", schema="schemas/1-stations-value.avsc", key="station", event_time="event_time", event_id="status_id"),
    entities=(station_hour,),
    model=Model(
        "bikes",
        path="models/bikes.onnx",
        inputs=("clouds", "humidity", "pressure", "temperature", "wind", *station_hour.feature_names),
    ),
    output=Topic("stations.scored"),
)
