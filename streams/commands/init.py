"""`millrace init`: a new pipeline project that runs at once, with a constant in the model's place."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from schemas.errors import SettingsError
from schemas.features import Json
from streams.commands.common import AsJson, say

TEMPLATES = Path(__file__).with_name("project")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
EVENTS, ACCOUNTS = 20, 3
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
TEN_MINUTES_MS = 600_000


def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="Of the pipeline, and of its new folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Make a new pipeline project: schema, pipeline, a constant for a model, tests, sample events, a compose file; it runs as it is."""
    say(make_project(folder), as_json, init_words)


def make_project(folder: Path) -> dict[str, Json]:
    """Write a project; aside first, so that there is a whole one or none.

    Raises:
        SettingsError: its name can't be a pipeline's, the folder is there already, or it can't be written.
    """
    name = folder.name.replace("-", "_")
    if not NAME.fullmatch(name):
        raise SettingsError(f"{folder.name!r} is no name for a pipeline: wanted a letter, then up to 99 of a-z, A-Z, 0-9, '-' and '_'")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is there already; wanted a new folder")
    topic = f"{name.replace('_', '-')}-events"
    words = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "topic": topic,
        "container": name.lower(),
    }
    files = {
        "pipeline.py": _filled("pipeline.py.txt", words),
        f"schemas/1-{topic}-value.avsc": _filled("schema.avsc.txt", words),
        "events.jsonl": "".join(json.dumps(event) + "\n" for event in sample_events()),
        "tests/test_pipeline.py": _filled("test_pipeline.py.txt", words),
        "docker-compose.yml": _filled("docker-compose.yml.txt", words),
        "README.md": _filled("README.md.txt", words),
        ".gitignore": _filled("gitignore.txt", words),
    }
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for path, text in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_text(text, encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        raise SettingsError(f"{folder} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {"pipeline": name, "folder": str(folder), "topic": topic, "files": list(files)}


def sample_events() -> list[dict[str, Json]]:
    """A few events of some accounts, ten minutes apart, the last one much larger than the others."""
    return [
        {
            "event_id": f"E-{number:05}",
            "event_time": START_MS + number * TEN_MINUTES_MS,
            "account_id": f"A{number % ACCOUNTS}",
            "amount": 9_999.0 if number == EVENTS - 1 else round(10 + number * 7.25 % 40, 2),
        }
        for number in range(EVENTS)
    ]


def _filled(template: str, words: Mapping[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)


def init_words(facts: Mapping[str, Any]) -> str:
    """What was made, and what to do next."""
    folder = facts["folder"]
    lines = [f"{folder}: pipeline {facts['pipeline']}, events on {facts['topic']}", *(f"  {file}" for file in facts["files"])]
    lines += [
        "next:",
        f"  cd {folder}",
        "  millrace up && millrace topics create pipeline.py",
        "  MILLRACE_KAFKA__START=earliest millrace run pipeline.py",
        "  millrace send pipeline.py events.jsonl        # in another terminal",
    ]
    return "\n".join(lines)
