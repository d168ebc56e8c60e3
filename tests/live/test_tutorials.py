"""The tutorials, played: every command is run as it stands there, and prints what stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.live.scene import ROOT, Scene, Worker, wait_for
from tests.live.test_dlq_replay import last_offset
from tests.streams.command_line import Run, runner

TUTORIALS = ROOT / "docs" / "tutorials"


@dataclass
class Step:
    """A file to write, or a command with the lines it prints; "..." stands for any."""

    command: str = ""
    lines: list[str] = field(default_factory=list)
    file: str = ""


def steps(page: Path) -> Iterator[Step]:
    """The steps of a page: its indented blocks, in order."""
    step: Step | None = None
    for line in [*page.read_text().splitlines(), "end"]:
        if line.startswith("    $ "):
            if step is not None:
                yield step
            step = Step(command=line.removeprefix("    $ "))
        elif line.startswith("    # ") and step is None:
            step = Step(file=line.removeprefix("    # "))
        elif step is not None and (line.startswith("    ") or (step.file and not line)):
            step.lines.append(line[4:])
        elif line and step is not None:
            yield step
            step = None


class Player:
    """Plays a page on a scene: what it calls `payments` has a name of the test's own."""

    def __init__(self, scene: Scene, run: Run) -> None:
        self.scene, self.run = scene, run
        self.worker: Worker | None = None

    def play(self, step: Step) -> None:
        if step.file:
            (self.scene.folder / step.file).write_text(self._here("\n".join(step.lines)))
        elif step.command.startswith("millrace run"):
            self.worker = self.scene.worker()
        elif step.command == "kill %1":
            assert self.worker is not None
            self._settled()
            assert self.worker.stop() == 0, self.worker.log
        else:
            self._prints(step, self._output(step.command))

    def _output(self, command: str) -> str:
        words = shlex.split(self._here(command))
        if words[0] == "millrace":
            if "dlq" in words or "validate" in words:
                self._settled()
            done = self.run(*words[1:])
            assert done.code in (0, 11), done.err
            return done.out + done.err
        if words[:2] == ["python", "-c"]:
            self._python(words[2])
            return ""
        shell = subprocess.run(self._here(command), shell=True, cwd=self.scene.folder, capture_output=True, text=True, timeout=60)
        assert shell.returncode == 0, shell.stderr
        return shell.stdout

    def _python(self, code: str) -> None:
        """In this process: an interpreter of its own would take longer to start than all the rest."""
        sys.path.insert(0, str(self.scene.folder))
        try:
            exec(code, {})
        finally:
            sys.path.remove(str(self.scene.folder))
            sys.modules.pop("producer", None)

    def _settled(self) -> None:
        """Everything sent so far is seen, and the worker has answered it, if one runs."""
        wait_for("what was sent to be seen", lambda: self.scene.ends()[0] == last_offset(self.scene))
        if self.worker is not None and self.worker.lives:
            self.scene.drained(self.worker)

    def _here(self, text: str) -> str:
        return (
            text.replace("payments", self.scene.name).replace("pipeline.py", f"{self.scene.name}.py").replace("card_fraud", self.scene.name)
        )

    def _prints(self, step: Step, out: str) -> None:
        found = [self._plain(line) for line in out.splitlines()]
        at = 0
        for line in step.lines:
            if line.strip() == "...":
                continue
            wanted = self._plain(line)
            assert wanted in found[at:], f"$ {step.command}\nprints no line\n{wanted}\nbut\n" + "\n".join(found)
            at = found.index(wanted, at) + 1

    def _plain(self, line: str) -> str:
        """A line with one word for all that has a name of its own in the test."""
        line = re.sub(r"\d{4}-?\d\d-?\d\dT[\d:.]+Z?[\w-]*", "TIME", line.rstrip())
        return re.sub(rf"\b({self.scene.name}|payments|card_fraud|pipeline)\b", "NAME", line)


@pytest.mark.parametrize("page", ["renamed-field.md"])
def test_a_tutorial_prints_what_it_says(
    scene: Scene, page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", scene.broker.bootstrap_servers)
    player = Player(scene, runner(scene.folder, monkeypatch, capsys))
    played = list(steps(TUTORIALS / page))
    assert len(played) > 10
    for step in played:
        player.play(step)
    assert (len(scene.outputs()), len(scene.letters())) == (200, 100)
