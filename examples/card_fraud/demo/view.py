"""The live view: a scoreboard's snapshot on a terminal of 80 by 24 or more, or as a line where nobody watches."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from examples.card_fraud.demo.records import Kind
from examples.card_fraud.demo.scoreboard import Alert, Snapshot

FIXED_LINES = 13  # all but alerts and letters
LEAST_WIDTH = 80
PLANTED = {
    Kind.GENUINE: "-",
    Kind.LARGE_AMOUNT: "large amount",
    Kind.COMPROMISED_TERMINAL: "bad terminal",
    Kind.COMPROMISED_CARD: "stolen card",
}


class View:
    """Draws a snapshot; fills the height it is given.

    Args:
        snapshot: what is shown.
        title: what runs here.
    """

    def __init__(self, snapshot: Snapshot, title: str) -> None:
        self._now = snapshot
        self._title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        room = max(height - FIXED_LINES, 2)
        letters = max(room // 3, 1)
        yield self._head(width)
        yield ProgressBar(self._now.seconds, min(self._now.elapsed_seconds, self._now.seconds), width=width)
        yield Segment.line()  # a bar ends without one
        yield Text()
        yield self._figures()
        yield _line(Text(f" {'labels':<9}{_label_words(self._now)}"))
        yield _line(Text(f" {'behind':<9}{_lag_words(self._now)}"))
        yield Text()
        yield _line(Text.assemble((" ALERTS  ", "bold"), self._alert_words()))
        yield self._alerts(room - letters)
        yield Text()
        yield _line(Text.assemble((" DEAD LETTERS  ", "bold"), f"{self._now.refused:,}"))
        yield _line(Text("  " + "  ".join(f"{reason} {count:,}" for reason, count in self._now.reasons.items()), "yellow"))
        for words in self._now.letters[:letters]:
            yield _line(Text(f"  {_short(words)}", "dim"))

    def _head(self, width: int) -> Text:
        clock = f"{_clock(min(self._now.elapsed_seconds, self._now.seconds))} of {_clock(self._now.seconds)} "
        return _line(Text.assemble((f" {self._title}".ljust(width - len(clock))[: width - len(clock)], "bold"), clock))

    def _figures(self) -> RenderableType:
        now = self._now
        table = Table.grid(padding=(0, 1), pad_edge=True)
        for justify in ("left", "right", "right", "left", "right", "left"):
            table.add_column(justify=justify, no_wrap=True)
        late = now.timings.get("late", 0) + now.timings.get("too_late", 0)
        table.add_row(
            "sent", f"{now.sent:,}", f"{now.sent_rate:,.0f}/s", "   event to score  p50", _ms(now.p50_ms), f"   {_simulated(now)}"
        )
        table.add_row(
            "answered",
            f"{now.scored + now.refused:,}",
            f"{now.answered_rate:,.0f}/s",
            "                   p99",
            _ms(now.p99_ms),
            f"   {now.speed_up:,.0f} x life",
        )
        table.add_row("waiting", f"{now.waiting:,}", "", "   worker CPU an event", _us(now.cpu_us), f"   {late:,} flagged late")
        return table

    def _alert_words(self) -> str:
        now = self._now
        return f"{now.alerts:,}, {now.caught:,} of them planted; {now.planted:,} frauds planted so far. Highest lately:"

    def _alerts(self, rows: int) -> RenderableType:
        table = Table(box=None, pad_edge=True, padding=(0, 1, 0, 0), header_style="dim", width=None)
        table.add_column("  score", justify="right", no_wrap=True)
        for name in ("customer", "amount", "x mean", "1d", "7d", "30d", "term"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("time", no_wrap=True)
        table.add_column("planted", no_wrap=True)
        for alert in self._now.highest[: rows - 1]:
            table.add_row(*_cells(alert))
        for _ in range(rows - 1 - len(self._now.highest)):
            table.add_row()
        return table


def _cells(alert: Alert) -> tuple[RenderableType, ...]:
    planted = Text(PLANTED.get(alert.kind, "-"), "green" if alert.kind in PLANTED and alert.kind != Kind.GENUINE else "dim")
    return (
        Text(f"{alert.score:.3f}", "bold red"),
        alert.customer,
        f"{alert.amount:,.2f}",
        f"{alert.ratio:.1f}",
        *(str(count) for count in alert.counts),
        f"{alert.terminal_frauds}/{alert.terminal_count}",
        datetime.fromtimestamp(alert.event_ms / 1_000, UTC).strftime("%d %b %H:%M"),
        planted,
    )


def plain_line(now: Snapshot) -> str:
    """A snapshot as one line."""
    return (
        f"{_clock(now.elapsed_seconds)}  sent {now.sent:,} ({now.sent_rate:,.0f}/s)  scored {now.scored:,} ({now.answered_rate:,.0f}/s)  "
        f"waiting {now.waiting:,}  p50 {_ms(now.p50_ms).strip()}  p99 {_ms(now.p99_ms).strip()}  "
        f"alerts {now.alerts:,} ({now.caught:,} planted)  dead letters {now.refused:,}  "
        f"labels {now.counters.labels_done:,} of {now.reported:,}"
    )


def _label_words(now: Snapshot) -> str:
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(now.counters.labels.items()))
    return f"{now.reported:,} sent" + (f": {told}" if told else "")


def _lag_words(now: Snapshot) -> str:
    return ", ".join(f"{stage} {records:,}" for stage, records in now.counters.lag.items())


def _short(words: str) -> str:
    """A letter's words with its offset alone: there is one topic, one partition, and the reason says the step."""
    return re.sub(r"^\S+@(\d+) refused by \w+: ", r"@\1  ", words)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _simulated(now: Snapshot) -> str:
    return datetime.fromtimestamp(now.event_ms / 1_000, UTC).strftime("%a %d %b %H:%M") if now.event_ms else ""


def _ms(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:,.0f} ms"


def _us(microseconds: float) -> str:
    return "-" if math.isnan(microseconds) else f"{microseconds:,.0f} us"
