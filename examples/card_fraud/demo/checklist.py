"""The checklist: what is set up before the stream, each step shown while it happens, with what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

NAME_WIDTH = 19
FRAMES_A_SECOND = 8


@dataclass
class Step:
    """A step under way: what is said of it lately."""

    name: str
    words: str = ""
    begun: float = field(default_factory=time.monotonic)

    def say(self, words: str) -> None:
        """What it is doing now, or what came of it."""
        self.words = words

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.begun


class Checklist:
    """Shows steps on a console: live on a terminal, a line at the end of each elsewhere.

    Args:
        console: where to.
        plain: no live line, on a terminal either.
    """

    def __init__(self, console: Console, plain: bool) -> None:
        self._console = console
        self._plain = plain or not console.is_terminal
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show a step while the block runs."""
        step = Step(name)
        try:
            if self._plain:
                yield step
            else:
                with Live(_Line(step), console=self._console, refresh_per_second=FRAMES_A_SECOND, transient=True):
                    yield step
        except BaseException:
            self._print(_line("failed", step), step)
            raise
        self.seconds[name] = step.seconds
        self._print(_line("", step), step)

    def _print(self, head: Text, step: Step) -> None:
        """A line in a file; on a terminal as many as it takes, aligned."""
        if not self._console.is_terminal:
            self._console.print(Text.assemble(head, step.words), soft_wrap=True)
            return
        table = Table.grid()
        table.add_row(head, step.words)
        self._console.print(table)

    def wait(self, step: Step, is_over: Callable[[], bool], timeout_seconds: float, late: Callable[[], Exception]) -> None:
        """Wait until something is so.

        Raises:
            Exception: what `late` gives, if it is not so in time; or whatever `is_over` raises.
        """
        while not is_over():
            if step.seconds > timeout_seconds:
                raise late()
            time.sleep(0.02)


class _Line:
    """A step's line with a spinner, drawn anew each time."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._spinner = Spinner("line")

    def __rich__(self) -> Text:
        spun = self._spinner.render(time.monotonic())
        frame = spun.plain if isinstance(spun, Text) else "-"
        text = Text.assemble(_line(frame, self._step), self._step.words)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def _line(mark: str, step: Step) -> Text:
    return Text.assemble(f"{mark:>6} ", (f"{step.name:<{NAME_WIDTH}}", "bold"), (f"{step.seconds:6.1f} s  ", "cyan"))
