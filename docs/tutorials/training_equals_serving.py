"""The pictures of "How training equals serving", made by the code: ``python docs/tutorials/training_equals_serving.py FOLDER``."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from millrace import load_bound

HERE = Path(__file__).parent
START = datetime(2026, 1, 1, tzinfo=UTC)


def payments(seed: int = 0) -> pl.DataFrame:
    """A customer's payments over ten weeks, in the order they came in: one in ten comes up to half a day late."""
    random = np.random.default_rng(seed)
    hours = np.sort(random.uniform(0, 70 * 24, 160))
    arrived = hours + np.where(random.random(160) < 0.1, random.uniform(1, 12, 160), 0)
    order = np.argsort(arrived)
    amounts = np.round(random.lognormal(3, 0.6, 160), 2)
    return pl.DataFrame(
        {
            "payment_id": [f"P{row}" for row in order],
            "event_time": [START + timedelta(hours=float(hours[row])) for row in order],
            "customer_id": "C1",
            "amount": amounts[order],
        },
        schema_overrides={"event_time": pl.Datetime("ms", "UTC")},
    )


def served_and_resorted() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features of the log as it came in, and of the same payments sorted by their times, which nobody could have known."""
    pipeline = load_bound(HERE / "ten_minutes" / "pipeline.py")
    log = payments()
    return pipeline.transform(log), pipeline.transform(log.sort("event_time"))


def draw(to: Path) -> None:
    """The pictures, as SVG: the same bytes each time."""
    mpl.use("svg")
    plt.rcParams.update({"svg.hashsalt": "millrace", "svg.fonttype": "none", "figure.figsize": (8, 3), "font.size": 9})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    served, resorted = served_and_resorted()

    figure, axes = plt.subplots()
    for days, shade in ((1, "0.8"), (7, "C0"), (30, "C1")):
        axes.plot(served["event_time"], served[f"customer_amount_mean_{days}d"], color=shade, label=f"mean of {days} days")
    axes.scatter(served["event_time"], served["amount"], s=8, color="0.3", label="payment")
    axes.set_ylabel("euros")
    axes.legend(frameon=False, ncols=4)
    figure.savefig(to / "transform.svg", metadata={"Date": None}, bbox_inches="tight")

    both = served.join(resorted, on="payment_id", suffix="_resorted").sort("event_time")
    apart = both["customer_amount_mean_7d_resorted"] - both["customer_amount_mean_7d"]
    figure, axes = plt.subplots()
    axes.stem(both["event_time"], apart, linefmt="C3-", markerfmt=" ", basefmt="0.8")
    axes.set_ylabel("euros, 7-day mean")
    axes.set_title("what a re-sorted history would know too much", loc="left", fontsize=9)
    figure.savefig(to / "resorted.svg", metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
