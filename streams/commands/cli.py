"""The command line. Each verb loads what it needs when it runs, so that ``--help`` answers at once.

Facts go to standard output, with ``--json`` as JSON; everything else goes to standard error. What is refused is one line there, and
an exit code that says what kind of thing it was (docs/cli.md).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from schemas.errors import MillraceError, Refused, RetryLater
from streams.commands import bench, catalogue, dlq, explain, faults, features, init, online, schema, state
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

DEPENDENCY_DOWN, BUG, STOPPED_ITSELF = 75, 70, 20

app = typer.Typer(
    name="millrace", help="From a Kafka event to an explained model decision.", no_args_is_help=True, pretty_exceptions_enable=False
)
topics_app = typer.Typer(help="The topics a pipeline needs.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(bench.app, name="bench")
app.add_typer(dlq.app, name="dlq")
app.add_typer(features.app, name="features")
app.add_typer(schema.app, name="schema")
app.add_typer(state.app, name="state")
app.add_typer(faults.app, name="test")
app.command("catalogue")(catalogue.catalogue)
app.command("init")(init.init)
app.command("explain")(explain.explain)
features.app.command("get")(online.get)


def main() -> None:
    """Run the command line; the process ends here."""
    with _Told():
        app()


class _Told:
    """What Millrace raises on purpose is one line and an exit code; anything else is a bug, and shows its traceback first."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, MillraceError):
            _complain(error)
            sys.exit(exit_code(error))
        if isinstance(error, Exception):
            traceback.print_exception(error)
            print(f"millrace: stopped by a bug: {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(BUG)


def exit_code(error: MillraceError) -> int:
    """How the process ends after an error."""
    if isinstance(error, Refused):
        return error.exit_code
    return DEPENDENCY_DOWN if isinstance(error, RetryLater) else STOPPED_ITSELF


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may have enough of it before the end: nothing is wrong then."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try to flush the rest once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _complain(error: MillraceError) -> None:
    for line in str(error).splitlines():
        print(f"millrace: {line}", file=sys.stderr)


@app.command()
def run(
    pipeline: PipelineFile,
    which: Which = None,
    settings: SettingsFile = None,
    on_conflict: Annotated[
        str | None, typer.Option(metavar="refuse|rebuild|adopt", help="Where offsets and state contradict each other.", show_default=False)
    ] = None,
    stages: Annotated[
        str, typer.Option(metavar="NAME[,NAME]", help="Run these stages of the pipeline only; see `millrace plan`.", show_default=False)
    ] = "",
    apart: Annotated[
        bool, typer.Option("--apart", help="Run each stage in a process of its own; the pages are at health.port and up.")
    ] = False,
    ends_with: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Score events until told to stop: SIGTERM or Ctrl-C finishes what is under way, a second one ends at once."""
    environment = dict(os.environ) | ({"MILLRACE_WORKER__ON_CONFLICT": on_conflict} if on_conflict else {})
    from streams.load_settings import load_settings
    from streams.local.addresses import local_settings
    from streams.log import write_log

    loaded = load_settings(settings, environment, local_settings())
    write_log(loaded.log.level)
    bound = bound_of(pipeline, which)
    wanted = [name.strip() for name in stages.split(",") if name.strip()]
    if apart:
        from streams.apart import run_apart, stage_names

        arguments = [name for name in sys.argv[1:] if name != "--apart"]
        sys.exit(run_apart([sys.executable, "-m", "millrace", *arguments], wanted or stage_names(bound, loaded), loaded))
    from streams import worker

    if ends_with:
        from streams.apart import end_with

        end_with(ends_with)
    sys.exit(worker.run(bound, loaded, wanted))


@app.command()
def check(pipeline: PipelineFile, which: Which = None, settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Hold a pipeline against its schema, its model and the settings; needs no broker and no store."""
    from streams.commands.check import check_pipeline, check_words

    loaded = settings_of(settings)
    say(check_pipeline(bound_of(pipeline, which), loaded), as_json, check_words)


@app.command()
def plan(
    pipeline: PipelineFile,
    which: Which = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="How many the input is to have, if it is not there.", show_default=False),
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a pipeline's stages, topics and state, and what is missing or in the way on the broker; needs no broker."""
    from streams.planning.plan import plan as plan_of
    from streams.planning.plan import plan_words, refuse

    facts = plan_of(bound_of(pipeline, which), settings_of(settings), partitions)
    say(facts, as_json, plan_words)
    refuse(facts)


@app.command()
def dry_run(
    pipeline: PipelineFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Events: JSON lines, or an Avro container.", show_default=False)],
    which: Which = None,
    constant: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Score everything so, without the model.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first N events only.", show_default=False)] = None,
    settings: SettingsFile = None,
) -> None:
    """Score a file of events: scored events go to standard output as JSON lines, refusals and a summary to standard error."""
    from streams.commands.dry_run import dry_run as score_file

    loaded = settings_of(settings)
    with _reader_may_leave():
        summary = score_file(bound_of(pipeline, which), loaded, file, sys.stdout, sys.stderr, constant=constant, limit=limit)
    print(json.dumps(summary), file=sys.stderr)


@app.command()
def send(
    pipeline: PipelineFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Events: JSON lines, or an Avro container.", show_default=False)],
    which: Which = None,
    rate: Annotated[float | None, typer.Option(min=0.001, metavar="EVENTS/S", help="At most so many a second.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Send the first N events only.", show_default=False)] = None,
    labels: Annotated[bool, typer.Option("--labels", help="The file has labels: send them to their topic.")] = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a file of events to the pipeline's input, keyed and framed as the pipeline reads them."""
    from streams.producer.send_file import send_file, send_words

    say(send_file(bound_of(pipeline, which), settings_of(settings), file, rate=rate, limit=limit, labels=labels), as_json, send_words)


@app.command()
def up(
    kafka_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="For Kafka; by default the one it had, or a free one.", show_default=False)
    ] = None,
    redis_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="For Redis; likewise.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Start a Kafka and a Redis on 127.0.0.1 and wait until they answer; safe to repeat. Their state is in .millrace."""
    from streams.local.addresses import start, start_words

    say(start(kafka_port, redis_port), as_json, start_words)


@app.command()
def down(
    erase: Annotated[bool, typer.Option("--erase", help="Remove their data as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """End what `up` started here, and nothing else."""
    from streams.local.addresses import stop, stop_words

    say(stop(erase), as_json, stop_words)


@app.command()
def status(
    pipeline: Annotated[
        Path | None, typer.Argument(metavar="PIPELINE", help="Also its topics, lag and worker.", show_default=False)
    ] = None,
    which: Which = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """What runs here: local services, a pipeline's lag by partition, its worker's health."""
    from streams.commands.status import status_of, status_words

    bound = bound_of(pipeline, which) if pipeline else None
    say(status_of(bound, settings_of(settings)), as_json, status_words)


@topics_app.command("create")
def topics_create(
    pipeline: PipelineFile,
    which: Which = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="Of each topic; by default the input's, as it is or as declared, else 1.", show_default=False
        ),
    ] = None,
    replication: Annotated[int, typer.Option(min=-1, max=32_767, help="Copies of each partition; -1 = the broker's default.")] = -1,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make every topic of a pipeline, internal ones included, and register its schemas; says what is wrong with those that are there."""
    from streams.planning.create_topics import create, create_words

    say(create(bound_of(pipeline, which), settings_of(settings), partitions, replication), as_json, create_words)


@app.command("settings")
def show_settings(
    settings: SettingsFile = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a settings file, for editors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings that hold here, secrets left out."""
    from streams.load_settings import settings_schema, settings_words

    if schema:
        print(json.dumps(settings_schema(), indent=2))
        return
    loaded = settings_of(settings)
    say(loaded.model_dump(mode="json"), as_json, settings_words)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="How long payments stream in, once all is set up.")] = 60,
    rate: Annotated[float, typer.Option(min=1, max=50_000, metavar="PAYMENTS/S", help="How many a second.")] = 2_000,
    seed: Annotated[int, typer.Option(min=1, help="Another seed is another world; the model has learned from world 0.")] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="A line every few seconds, without the live view.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and Redis running afterwards, to look around.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score simulated card payments, live, on a Kafka and a Redis of its own, and check the sums; ends by itself and cleans up."""
    from streams.commands.demo import run_demo

    sys.exit(run_demo(seconds=seconds, rate=rate, seed=seed, plain=plain, keep=keep, as_json=as_json))


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version of Millrace and of what decides its numbers."""
    from streams.commands.version import versions, versions_words

    say(versions(), as_json, versions_words)
