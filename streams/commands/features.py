"""The verbs of `millrace features`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import HistoryError, MissingProgram, SettingsError
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

if TYPE_CHECKING:
    from streams.definition.bound import Bound
    from streams.offline.history import History

app = typer.Typer(help="Features over history: what they are, and what they were.", no_args_is_help=True)

MIB = 1 << 20
NEEDED = ("jinja2", "pyarrow")


@app.callback()
def _check_extra(context: typer.Context) -> None:
    if context.invoked_subcommand == "get":  # reads Redis, and needs neither tables nor pages
        return
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingProgram(f"{', '.join(missing)} not installed; `pip install 'millrace[features]'` brings what these verbs need")


@app.command("build")
def build(
    pipeline: PipelineFile,
    sources: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Files, a folder or a pattern (Parquet, CSV, Avro, JSON lines), or kafka:TOPIC; may be given again.",
            show_default=False,
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the features go.", show_default=False)],
    which: Which = None,
    start: Annotated[
        str | None, typer.Option(metavar="OFFSET|TIME", help="Of a topic: the first events wanted.", show_default=False)
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="OFFSET|TIME", help="Of a topic: the first not wanted any more.", show_default=False)
    ] = None,
    time_zone: Annotated[str | None, typer.Option(metavar="NAME", help="Of times that have none, such as UTC.", show_default=False)] = None,
    arrived: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Says when each record arrived; a guard needs it.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet or CSV: event id, label, when known; for entities that count them.", show_default=False),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Of the labels: when each became known; by default as the pipeline has it.", show_default=False
        ),
    ] = None,
    rows_per_file: Annotated[int, typer.Option(min=1, help="Of each file but the last.")] = 1_000_000,
    unique_ids: Annotated[bool, typer.Option("--unique-ids", help="Refuse an event id that comes twice.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features that are there.")] = False,
    state_memory: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Most memory for state; by default 60% of the machine's.", show_default=False)
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Compute the features of past events, to the bit what a worker would have served, and write them as Parquet."""
    from streams.offline.build import BuildOptions, build_features, build_words

    bound = bound_of(pipeline, which)
    history = _history(bound, sources, start, end, time_zone, arrived, settings)
    if labels is not None:
        from streams.offline.labelled_history import with_labels

        history = with_labels(bound, history, labels, known_at, time_zone)
    options = BuildOptions(rows_per_file, unique_ids, overwrite, None if state_memory is None else state_memory * MIB)
    with _progress("events", history.rows) as progress:
        facts = build_features(bound, history, to, options, progress)
    say(facts, as_json, build_words)


def _history(
    bound: Bound,
    sources: list[str],
    start: str | None,
    end: str | None,
    time_zone: str | None,
    arrived: str | None,
    settings: Path | None,
) -> History:
    from streams.offline.history import TOPIC_PREFIX, open_files

    topics = [source.removeprefix(TOPIC_PREFIX) for source in sources if source.startswith(TOPIC_PREFIX)]
    if not topics:
        if start or end:
            raise SettingsError("--start and --end are of a topic; files are read whole")
        return open_files(bound, sources, time_zone, arrived)
    if len(sources) > 1:
        raise HistoryError(f"{', '.join(sources)}: a topic is read alone, since one log has no place among others")
    from streams.offline.topic_history import Edge, TopicHistory

    edges = [None if text is None else Edge.parse(text) for text in (start, end)]
    return TopicHistory(bound, settings_of(settings), topics[0], *edges)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where somebody looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


@app.command("ls")
def ls(
    pipeline: PipelineFile,
    which: Which = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page as well.", show_default=False)] = None,
    record: Annotated[bool, typer.Option("--record", help="Write down since when each is known, beside the pipeline file.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a pipeline's features: name, unit, entity, window, the models that use it, since when, and what it is."""
    from streams.offline.catalogue import catalogue, list_words

    bound = bound_of(pipeline, which)
    facts = catalogue(bound)
    if record:
        from datetime import UTC, datetime

        from streams.offline.since import record as write_down

        write_down(bound, facts, datetime.now(UTC).date())
        facts = catalogue(bound)
    if html is not None:
        from streams.offline.page import render

        try:
            html.write_text(render("catalogue.html", **facts), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--html {html} can't be written: {error}") from error
    say(facts, as_json, list_words)


@app.command("show")
def show(
    pipeline: PipelineFile,
    name: Annotated[str, typer.Argument(metavar="FEATURE", help="Its name.", show_default=False)],
    which: Which = None,
    as_json: AsJson = False,
) -> None:
    """Show one feature: what it is, where it comes from, and the definition behind its fingerprint."""
    from streams.offline.catalogue import show_feature, show_words

    say(show_feature(bound_of(pipeline, which), name), as_json, show_words)


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A pipeline file, or what `features ls --json` printed.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Likewise.", show_default=False)],
    which: Which = None,
    as_json: AsJson = False,
) -> None:
    """Say which features came, went or changed from one version of a pipeline to another, and what changed in them."""
    from streams.offline.catalogue import catalogue_of, diff_words
    from streams.offline.catalogue import diff as difference

    say(difference(catalogue_of(old, which), catalogue_of(new, which)), as_json, diff_words)


@app.command("label")
def label(
    pipeline: PipelineFile,
    features: Annotated[Path, typer.Option("--features", metavar="FOLDER", help="As `features build` left it.", show_default=False)],
    labels: Annotated[
        Path, typer.Option("--labels", metavar="FILE", help="Parquet or CSV: event id, label, when known.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the training set goes.", show_default=False)],
    splits: Annotated[
        list[str], typer.Option("--split", metavar="NAME=TIME..TIME", help="Events by time; may be given again.", show_default=False)
    ],
    delay: Annotated[str, typer.Option(metavar="DURATION", help="How long until what an event was is known, such as 7d.")],
    which: Which = None,
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Of the labels: true and false, or 1 and 0.")] = "label",
    known_at: Annotated[
        str, typer.Option(metavar="COLUMN", help="Of the labels: when each became known; - = after the delay.")
    ] = "known_at",
    known_by: Annotated[
        str | None, typer.Option(metavar="TIME", help="Use nothing that became known after this.", show_default=False)
    ] = None,
    negatives: Annotated[float, typer.Option(metavar="SHARE", help="Keep this share of the negatives, with weights.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Another one keeps others.")] = 0,
    time_zone: Annotated[str | None, typer.Option(metavar="NAME", help="Of times that have none.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a training set that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a training set: features with the labels known at its time, split by time with the label's delay between the parts."""
    from streams.offline.folder import open_features
    from streams.offline.known_labels import read_labels
    from streams.offline.label import LabelOptions, Split, label_features, label_words, parse_duration
    from streams.offline.topic_history import Edge

    bound = bound_of(pipeline, which)
    options = LabelOptions(
        tuple(sorted((Split.parse(text) for text in splits), key=lambda split: split.start_ms)),
        parse_duration(delay),
        None if known_by is None else Edge.parse(known_by).time_ms,
        known_at != "-",
        negatives,
        seed,
        overwrite,
    )
    folder = open_features(features, bound)
    known = read_labels(labels, bound.event_id, label, None if known_at == "-" else known_at, time_zone)
    say(label_features(bound, folder, known, to, options), as_json, label_words)


@app.command("skew")
def skew(
    pipeline: PipelineFile,
    which: Which = None,
    start: Annotated[
        str | None, typer.Option(metavar="OFFSET|TIME", help="The first events to compare; by default all.", show_default=False)
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="OFFSET|TIME", help="The first not to compare any more.", show_default=False)] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Compute a span of the live stream again and compare with what was served; ends with 1 if a bit differs."""
    from streams.offline.skew import skew as compare
    from streams.offline.skew import skew_words
    from streams.offline.topic_history import Edge

    first, last = (None if text is None else Edge.parse(text) for text in (start, end))
    with _progress("events", None) as progress:
        facts = compare(bound_of(pipeline, which), settings_of(settings), first, last, progress)
    say(facts, as_json, skew_words)
    if facts["reasons"]:
        raise typer.Exit(1)
