"""The long run of faults: one that is ended keeps what it has."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.faults import __main__ as run


def test_a_run_that_is_ended_keeps_what_it_has_and_says_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*given: Any) -> None:
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(run, "play", play)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["faults", "--rounds", "2", "--seed", "7"])
    with pytest.raises(RuntimeError, match="on fire"):
        run.main()
    (kept,) = tmp_path.glob("faults-*.json")
    facts = json.loads(kept.read_text())
    assert facts["ended_by"] == "RuntimeError: the machine is on fire"
    assert (facts["settings"]["seed"], facts["outputs"], facts["faults"]) == (7, 0, 0)


def test_one_whose_checker_fails_keeps_what_it_has_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(account: Any, under_way: Any) -> None:
        if under_way is not None:
            raise RuntimeError("no verdict")

    monkeypatch.setattr(run, "play", lambda *given: SimpleNamespace(history="played"))
    monkeypatch.setattr(run, "judge", len)
    monkeypatch.setattr(run, "_close", close)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["faults", "--rounds", "2", "--seed", "7"])
    with pytest.raises(RuntimeError, match="no verdict"):
        run.main()
    (kept,) = tmp_path.glob("faults-*.json")
    assert json.loads(kept.read_text())["ended_by"] == "RuntimeError: no verdict"
