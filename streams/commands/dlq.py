"""The verbs of `millrace dlq`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import SettingsError
from streams.commands.common import AsJson, PipelineFile, SettingsFile, Which, bound_of, say, settings_of

if TYPE_CHECKING:
    from streams.definition.inlet import Inlet
    from streams.dlq.letters import Choice

app = typer.Typer(help="Refused records: why, and the way back.", no_args_is_help=True)

Labels = Annotated[bool, typer.Option("--labels", help="Those of the labels, not of the events.")]
Reasons = Annotated[list[str] | None, typer.Option("--reason", metavar="WORD", help="Refused for this reason.", show_default=False)]
Rules = Annotated[list[str] | None, typer.Option("--rule", metavar="NAME", help="Refused by this rule.", show_default=False)]
Fields = Annotated[list[str] | None, typer.Option("--field", metavar="PATH", help="Refused for this field.", show_default=False)]
SchemaIds = Annotated[list[int] | None, typer.Option("--schema", metavar="ID", help="Written with this schema.", show_default=False)]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Refused at or after this time (ISO 8601).", show_default=False)]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Refused before this time.", show_default=False)]
Places = Annotated[list[str] | None, typer.Option("--at", metavar="PARTITION@OFFSET", help="This letter.", show_default=False)]
Function = Annotated[
    str | None, typer.Option("--with", metavar="FILE.py:FUNCTION", help="Changes their events, as columns.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="For the audit record.")]
By = Annotated[str, typer.Option(metavar="NAME", help="For the audit record; by default user@host.")]


def _inlet(pipeline: Path, which: str | None, labels: bool) -> Inlet:
    from streams.definition.inlet import Inlet

    return Inlet.of(bound_of(pipeline, which), labels)


def _choice(
    reasons: list[str] | None,
    rules: list[str] | None,
    fields: list[str] | None,
    schema_ids: list[int] | None,
    since: str | None,
    until: str | None,
    places: list[str] | None,
) -> Choice:
    from streams.dlq.letters import Choice, moment_ms, place_of

    return Choice(
        frozenset(reasons or ()),
        frozenset(rules or ()),
        frozenset(fields or ()),
        frozenset(schema_ids or ()),
        moment_ms(since) if since else None,
        moment_ms(until) if until else None,
        frozenset(map(place_of, places or ())),
    )


@app.command("ls")
def ls(
    pipeline: PipelineFile,
    which: Which = None,
    labels: Labels = False,
    reason: Reasons = None,
    rule: Rules = None,
    field: Fields = None,
    schema: SchemaIds = None,
    since: Since = None,
    until: Until = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Count a pipeline's dead letters by stage and reason."""
    from streams.dlq.view import list_letters, list_words

    choice = _choice(reason, rule, field, schema, since, until, None)
    say(list_letters(_inlet(pipeline, which, labels), settings_of(settings), choice), as_json, list_words)


@app.command("show")
def show(
    pipeline: PipelineFile,
    at: Annotated[
        str,
        typer.Argument(metavar="PARTITION@OFFSET", help="Where the letter is in the dead-letter topic; see `dlq ls`.", show_default=False),
    ],
    which: Which = None,
    labels: Labels = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it was refused, where it came from, and what it says."""
    from streams.dlq.view import show_letter, show_words

    say(show_letter(_inlet(pipeline, which, labels), settings_of(settings), at), as_json, show_words)


@app.command("stats")
def stats(
    pipeline: PipelineFile,
    which: Which = None,
    labels: Labels = False,
    reason: Reasons = None,
    rule: Rules = None,
    field: Fields = None,
    schema: SchemaIds = None,
    since: Since = None,
    until: Until = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what became of dead letters: open, replayed, discarded; and which runs did it."""
    from streams.commands.dlq_words import stats_words
    from streams.dlq.replay import stats

    choice = _choice(reason, rule, field, schema, since, until, None)
    say(stats(_inlet(pipeline, which, labels), settings_of(settings), choice), as_json, stats_words)


@app.command("fix")
def fix(
    pipeline: PipelineFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write them; not there yet.", show_default=False)],
    which: Which = None,
    labels: Labels = False,
    reason: Reasons = None,
    rule: Rules = None,
    field: Fields = None,
    schema: SchemaIds = None,
    since: Since = None,
    until: Until = None,
    at: Places = None,
    function: Function = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write open letters to a file of JSON lines, to be edited and given to `dlq replay --edited`."""
    from streams.commands.dlq_words import copies_words
    from streams.dlq.replay import Wanted, copies

    wanted = Wanted(_choice(reason, rule, field, schema, since, until, at), function)
    say(copies(_inlet(pipeline, which, labels), settings_of(settings), wanted, out), as_json, copies_words)


@app.command("replay")
def replay(
    pipeline: PipelineFile,
    which: Which = None,
    labels: Labels = False,
    reason: Reasons = None,
    rule: Rules = None,
    field: Fields = None,
    schema: SchemaIds = None,
    since: Since = None,
    until: Until = None,
    at: Places = None,
    function: Function = None,
    edited: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Edited copies, as `dlq fix` writes them; no other letters.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    why: Why = "",
    by: By = "",
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Send open letters that would pass now back to their topic, each once; safe to interrupt and to repeat."""
    from streams.commands.dlq_words import replay_words
    from streams.dlq.replay import Wanted, replay

    wanted = Wanted(_choice(reason, rule, field, schema, since, until, at), function, edited, why, by)
    say(replay(_inlet(pipeline, which, labels), settings_of(settings), wanted, dry_run), as_json, replay_words)


@app.command("discard")
def discard(
    pipeline: PipelineFile,
    which: Which = None,
    labels: Labels = False,
    reason: Reasons = None,
    rule: Rules = None,
    field: Fields = None,
    schema: SchemaIds = None,
    since: Since = None,
    until: Until = None,
    at: Places = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are open.")] = False,
    dry_run: DryRun = False,
    why: Why = "",
    by: By = "",
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Close open letters for good: no replay takes them. They stay in their topic."""
    from streams.commands.dlq_words import discard_words
    from streams.dlq.replay import Wanted, discard

    choice = _choice(reason, rule, field, schema, since, until, at)
    if choice.everything != everything:
        raise SettingsError("say which letters to discard: --reason, --rule, --field, --schema, --since, --until, --at; or --all alone")
    if not why and not dry_run:
        raise SettingsError("letters are discarded for a reason: give it with --why")
    say(discard(_inlet(pipeline, which, labels), settings_of(settings), Wanted(choice, why=why, by=by), dry_run), as_json, discard_words)
