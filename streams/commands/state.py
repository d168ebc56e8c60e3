"""The verbs of `millrace state`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import SettingsError
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

app = typer.Typer(help="The state of windows: listed, kept in files, built anew, freed.", no_args_is_help=True)


@app.command("ls")
def ls(pipeline: PipelineFile, which: Which = None, settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """List what Redis keeps of a pipeline: the state of its present definition, and of older ones."""
    from streams.state.namespaces import list_state, list_words

    say(list_state(bound_of(pipeline, which), settings_of(settings)), as_json, list_words)


@app.command("drop")
def drop(
    pipeline: PipelineFile,
    namespace: Annotated[str, typer.Argument(metavar="NAMESPACE", help="As `state ls` shows it.", show_default=False)],
    which: Which = None,
    even_current: Annotated[bool, typer.Option("--even-current", help="Also if it is the present definition's.")] = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Free the Redis memory of a state that no worker is at work on."""
    from streams.state.namespaces import drop_state, drop_words

    say(drop_state(bound_of(pipeline, which), settings_of(settings), namespace, even_current=even_current), as_json, drop_words)


@app.command("snapshot")
def snapshot(
    pipeline: PipelineFile,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go.", file_okay=False, show_default=False)],
    which: Which = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the state to files, one a partition, each with the offset it goes by; workers may go on meanwhile."""
    _needs_pyarrow()
    from streams.state.snapshot import snapshot as take
    from streams.state.snapshot import snapshot_words

    say(take(bound_of(pipeline, which), settings_of(settings), to), as_json, snapshot_words)


@app.command("rebuild")
def rebuild(
    pipeline: PipelineFile,
    which: Which = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Begin with a snapshot.", file_okay=False, show_default=False),
    ] = None,
    from_log: Annotated[bool, typer.Option("--from-log", help="From the log alone.")] = False,
    accept_short_log: Annotated[
        bool, typer.Option("--accept-short-log", help="Make do with what the log has, if the windows look further back.")
    ] = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Build the state of this definition up to the committed offset, while none of its workers runs."""
    if (source is None) != from_log:
        raise typer.BadParameter("wanted either --from FOLDER or --from-log")
    _needs_pyarrow()
    from streams.state.rebuild import rebuild as build
    from streams.state.rebuild import rebuild_words

    done = build(bound_of(pipeline, which), settings_of(settings), source, accept_short_log=accept_short_log)
    say(done, as_json, rebuild_words)


def _needs_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise SettingsError("snapshots are Parquet files and need pyarrow, which is not installed; `pip install millrace[snapshots]`")
