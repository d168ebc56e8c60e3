"""`millrace explain`: one past decision, made again."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import MissingProgram, SettingsError
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

NEEDED = ("jinja2", "pyarrow")


def explain(
    pipeline: PipelineFile,
    at: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC[P]@OFFSET", help="The event's record, or its scored event.", show_default=False),
    ] = None,
    event: Annotated[str | None, typer.Option("--event", metavar="ID", help="The event's id instead.", show_default=False)] = None,
    which: Which = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            "--snapshot", metavar="FOLDER", help="Begin with a snapshot, where the log is too short.", file_okay=False, show_default=False
        ),
    ] = None,
    accept_short_log: Annotated[
        bool, typer.Option("--accept-short-log", help="Make do with what the log has, if the windows look further back.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="The model that scored it, if the pipeline has another now.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page as well.", show_default=False)] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make one past decision again from the log and say what moved it; ends with 1 if a bit differs from what was served."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingProgram(f"{', '.join(missing)} not installed; `pip install 'millrace[features]'` brings what explain needs")
    from streams.explain.explain import OTHER, Options
    from streams.explain.explain import explain as make_again
    from streams.explain.words import explain_words

    facts = make_again(bound_of(pipeline, which), settings_of(settings), at, event, Options(snapshot, model, accept_short_log))
    if html is not None:
        from streams.explain.page import explain_page

        try:
            html.write_text(explain_page(facts), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--html {html} can't be written: {error}") from error
    say(facts, as_json, explain_words)
    if facts["verdict"] == OTHER:
        raise typer.Exit(1)
