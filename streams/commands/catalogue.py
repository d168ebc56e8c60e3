"""`millrace catalogue`: topics, schemas, versions, constraints, who writes and reads, and what hangs on a field."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from streams.commands.common import AsJson, SettingsFile, say, settings_of


def catalogue(
    pipelines: Annotated[
        list[Path] | None, typer.Argument(metavar="[PIPELINE]...", help="Pipeline files; none = all in the folder.", show_default=False)
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Where pipelines are looked for, if none is named.")] = Path(),
    field: Annotated[
        str | None, typer.Option(metavar="PATH", help="Topics with this field only, and what hangs on it.", show_default=False)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the broker for partitions, retention and groups.")] = False,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Of inputs of which neither broker nor definition says how many.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page as well; not there yet.", show_default=False)] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what topics there are: schemas, versions, constraints, who writes and reads them, what hangs on a field. Works offline."""
    from schemas.errors import DefinitionError, MissingProgram
    from streams.catalogue.catalogue import catalogue as topics_of
    from streams.catalogue.catalogue import of_field
    from streams.catalogue.words import catalogue_words
    from streams.definition.load import load_bounds
    from streams.schema.check import pipeline_files

    if html is not None and find_spec("jinja2") is None:
        raise MissingProgram("jinja2 not installed; `pip install 'millrace[features]'` brings what pages need")
    files = pipelines or pipeline_files(folder)
    if not files:
        raise DefinitionError(f"no pipeline file in {folder.resolve()}; wanted some, or --dir with the folder that has them")
    facts = topics_of([(file, bound) for file in files for bound in load_bounds(file)], settings_of(settings), partitions, live)
    if field is not None:
        facts = of_field(facts, field)
        if not facts["topics"]:
            raise DefinitionError(f"no topic here has a field {field!r}")
    if html is not None:
        from streams.catalogue.page import write_page

        write_page(facts, html)
    say(facts, as_json, catalogue_words)
