"""The pipelines of the long run: the example in one stage and in two with labels, and pipelines made up from a seed."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.handbook.stream import write_model
from streams.definition.load import load_bound
from tests.live.random_pipeline import make
from tests.live.scene import CUSTOMERS_ONLY, Scene
from tests.live.stage_scene import StageScene
from tests.services import Broker

NAME = "hurt"
NOWHERE = Broker("127.0.0.1:1")
KINDS = ("two_stages", "two_stages", "one_stage", "made_up")  # most rounds are of two stages: they have more that can break


def pipeline_of(seed: int, folder: Path, kind: str = "") -> tuple[str, Path]:
    """The kind of pipeline that a round's seed asks for, or the one that is given, and its file, written to a new folder."""
    kind = kind or random.Random(seed).choice(KINDS)
    if kind == "made_up":
        made = make(NAME, seed, 1)
        folder.mkdir(parents=True)
        file = made.write(folder / NAME)
        write_model(load_bound(file))
        return kind, file
    changes = CUSTOMERS_ONLY if kind == "one_stage" else {}
    scene = (Scene if kind == "one_stage" else StageScene)(
        folder, NOWHERE, "redis://127.0.0.1:1", make_topics=False, name=NAME, changes=changes
    )
    return kind, scene.file
