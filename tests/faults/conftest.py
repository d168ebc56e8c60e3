"""A nursery for the tests of this folder, and stands: a scene whose workers come from it, sound or with a bug planted in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.faults.nursery import Nursery
from tests.faults.stand import ROOT, Stand
from tests.services import Broker


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks workers that plant the bug they are given, if any."""
    started = Nursery("tests.faults.planted", python_path=[str(ROOT)])
    yield started
    started.close()


@pytest.fixture
def stand_of(broker: Broker, redis_url: str, nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Makes stands on the run's broker and Redis: ``stand_of(partitions=2)``."""
    made: list[Stand] = []

    def make(**options: Any) -> Stand:
        made.append(Stand(tmp_path / f"stand-{len(made)}", broker, redis_url, nursery, **options))
        return made[-1]

    yield make
    for stand in made:
        stand.close()
