"""The verbs of `millrace schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from streams.commands.common import AsJson, SettingsFile, say, settings_of

app = typer.Typer(help="Schemas: what a new one would break, and how it gets into the registry.", no_args_is_help=True)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="NEW.avsc", help="The new schema.", show_default=False)],
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose; by default the one that describes the same record.", show_default=False)
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="FOLDER", help="Where versions (<id>-<subject>.avsc) and pipelines are looked for.")
    ] = Path(),
    mode: Annotated[str, typer.Option(metavar="MODE", help="The subject's compatibility mode.")] = "BACKWARD",
    pipeline: Annotated[
        list[Path] | None, typer.Option("--pipeline-file", metavar="FILE", help="These pipelines only.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a new schema would break: by mode, and which rules, features, models and outputs here; ends with 11 if anything. Offline."""
    from schemas.compatibility import Mode
    from streams.schema.check import check_schema, check_words, refuse

    facts = check_schema(file, folder, subject, cast(Mode, mode.upper()), tuple(pipeline or ()))
    say(facts, as_json, check_words)
    refuse(facts)


@app.command("register")
def register(
    file: Annotated[Path, typer.Argument(metavar="FILE.avsc", help="The schema.", show_default=False)],
    subject: Annotated[str, typer.Option(metavar="NAME", help="Such as payments-value.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option(help="A folder of files in place of the registry that the settings name.", show_default=False)
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Register a schema, and print its id; the id it has already, if the subject has it. Workers never do this."""
    from streams.schema.register import register_schema, register_words

    say(register_schema(file, subject, folder, settings_of(settings)), as_json, register_words)


@app.command("infer")
def infer(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Records: JSON lines.", show_default=False)],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the record, with its namespace.")] = "Event",
    out: Annotated[Path | None, typer.Option(metavar="FILE.avsc", help="Where the draft goes; not there yet.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Look at the first N lines only.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Draft a schema from data: types, what may be missing, ranges and domains; and say what does not fit the draft."""
    from streams.schema.infer import infer_schema, infer_words

    say(infer_schema(file, name, out, limit), as_json, infer_words)
