"""Runs command lines in tests, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams.commands.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        """What it printed, as JSON."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Done]


def runner(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `millrace` with arguments in a folder."""
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["millrace", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def written(file: Path, *events: Any) -> Path:
    """A file of JSON lines; text goes in as it is."""
    file.write_text("".join((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events))
    return file


def payment(number: int, **changes: Any) -> dict[str, Any]:
    """One payment of `tests.streams.payment`, as JSON has it."""
    return {
        "payment_id": f"p{number}",
        "event_time": 1_700_000_000_000 + number * 1_000,
        "customer_id": f"c{number % 2}",
        "terminal_id": "t",
        "amount": float(number),
        "currency": "EUR",
        **changes,
    }
