"""The examples' way of playing a table to a real worker: every reading is scored by the live path as it is offline."""

from __future__ import annotations

import numpy as np

from examples.anomaly.__main__ import PIPELINE, score
from examples.anomaly.readings import made_up
from examples.replay import replay
from streams.local.services import Services
from tests.examples.test_anomaly import by_definition


def test_made_up_series_are_scored_by_a_worker_as_defined(services: Services) -> None:
    series = made_up(3, 400)
    with replay(PIPELINE, ["anomaly"], 2, services) as stream:
        scores = score(stream, series)
    for one, found in zip(series, scores, strict=True):
        assert np.abs(found - by_definition(one)).max() < 1e-5
