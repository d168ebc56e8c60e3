"""The verbs of `millrace dlq`."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.command import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

app = typer.Typer(help="Refused records, with the reason and the address.", no_args_is_help=True)


@app.command("ls")
def ls(
    pipeline: PipelineFile,
    which: Which = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Count a pipeline's dead letters by stage and reason."""
    from streams.dead_letter_view import list_letters, list_words

    say(list_letters(bound_of(pipeline, which), settings_of(settings)), as_json, list_words)


@app.command("show")
def show(
    pipeline: PipelineFile,
    at: Annotated[
        str,
        typer.Argument(metavar="PARTITION@OFFSET", help="Where the letter is in the dead-letter topic; see `dlq ls`.", show_default=False),
    ],
    which: Which = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it was refused, where it came from, and what it says."""
    from streams.dead_letter_view import show_letter, show_words

    say(show_letter(bound_of(pipeline, which), settings_of(settings), at), as_json, show_words)
