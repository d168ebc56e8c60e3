"""The plots of the page of results, as SVG that is the same for the same results."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from benchmarks.report import loads, peers
from benchmarks.report.loads import run_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report.read import Result

STYLE = {
    "svg.hashsalt": "millrace",  # else the names within would differ each time
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.constrained_layout.use": True,
}
NAME = re.compile(r"\b([a-z])[0-9a-f]{10}\b")
OURS, THEIRS = "#1b6ca8", "#b9b9b9"


def draw(results: Mapping[str, Result], folder: Path) -> list[Path]:
    """Draw what the results of a page have to show; the files, in a fixed order."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        for kind, result in results.items():
            run = run_of(result.data)
            if kind.startswith(loads.PREFIX) and run is not None:
                found.append(_save(_load(kind, run), folder / f"{kind}.svg"))
        beside = [each.data for kind, each in results.items() if kind.startswith(peers.PREFIX) and each.data.get("cpu_us_per_event")]
        if beside:
            found.append(_save(_peers(beside), folder / "peers.svg"))
    return found


def _load(kind: str, run: Mapping[str, Any]) -> Figure:
    """Latency over time and by percentile, and CPU by process."""
    figure, (time, curve, cpu) = plt.subplots(1, 3, figsize=(11, 3), width_ratios=(2, 1.4, 1))
    slices = run["over_time"]
    seconds = [each["second"] for each in slices]
    for name, style in (("max_ms", ":"), ("p99_ms", "-"), ("p50_ms", "--")):
        time.plot(seconds, [each[name] for each in slices], style, label=name.removesuffix("_ms"), color=OURS)
    if run["warm_up_seconds"]:
        time.axvspan(0, run["warm_up_seconds"], color=THEIRS, alpha=0.4, label="warm-up")
    time.set(
        yscale="log",
        xlabel="second in which the event was due",
        ylabel="ms",
        title=f"{kind.removeprefix('load-')}, {run['rate']:,.0f} events/s",
    )
    time.legend(loc="upper right", fontsize=7)
    _percentiles(curve, run["curve"])
    names = list(run.get("cpu_us_per_event", {}))
    cpu.barh(names, [run["cpu_us_per_event"][name] for name in names], color=OURS)
    cpu.set(xlabel="us an event", title="CPU")
    cpu.invert_yaxis()
    return figure


def _percentiles(axes: Axes, curve: list[list[float]]) -> None:
    """Latency by percentile, on the scale of nines that HdrHistogram's plots have."""
    shown = [(1 / (1 - share / 100), ms) for share, ms in curve if share < 100]
    axes.plot([nines for nines, _ in shown], [ms for _, ms in shown], color=OURS)
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="ms", title="latency")
    axes.set_xticks([2, 10, 100, 1_000, 10_000], ["50", "90", "99", "99.9", "99.99"])
    axes.minorticks_off()


def _peers(rows: list[dict[str, Any]]) -> Figure:
    """CPU an event."""
    ordered = sorted(rows, key=lambda peer: peer["cpu_us_per_event"])
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(ordered) + 1))
    names = [str(peer.get("name")) for peer in ordered]
    bars = axes.barh(
        names, [peer["cpu_us_per_event"] for peer in ordered], color=[OURS if n.startswith("millrace") else THEIRS for n in names]
    )
    axes.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=7)
    axes.set(xlabel="us of CPU an event, all of the peer's processes", xscale="log")
    axes.invert_yaxis()
    return figure


def _save(figure: Figure, file: Path) -> Path:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    file.write_text(_numbered(drawn.getvalue()), encoding="utf-8")
    return file


def _numbered(svg: str) -> str:
    """The same drawing with its names numbered as they come: matplotlib makes some of them of addresses in memory."""
    numbers: dict[str, int] = {}
    return NAME.sub(lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers))}", svg)
