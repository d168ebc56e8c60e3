"""What the verbs of the command line share: arguments, how facts are printed, how settings and pipelines are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.features import Json

if TYPE_CHECKING:
    from streams.definition.bound import Bound
    from streams.settings import Settings

PIPELINE_HELP = "The pipeline's Python file."

PipelineFile = Annotated[Path, typer.Argument(metavar="PIPELINE", help=PIPELINE_HELP, show_default=False)]
Which = Annotated[
    str | None, typer.Option("--pipeline", metavar="NAME", help="Which pipeline, if the file defines several.", show_default=False)
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="TOML or YAML; also MILLRACE_SETTINGS.", show_default=False, dir_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


def say(facts: Json, as_json: bool, words: Callable[[Any], str]) -> None:
    """Print facts, as JSON or in words."""
    print(json.dumps(facts, indent=2) if as_json else words(facts))


def settings_of(file: Path | None) -> Settings:
    """The settings that hold here."""
    from streams.load_settings import load_settings
    from streams.local.addresses import local_settings

    return load_settings(file, os.environ, local_settings())


def bound_of(file: Path, name: str | None) -> Bound:
    """The pipeline a file defines, held against its schema."""
    from streams.definition.load import load_bound

    return load_bound(file, name)
