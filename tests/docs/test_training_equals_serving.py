"""The page's pictures and figures come from its code."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "training-equals-serving.md"
SCRIPT = PAGE.with_name("training_equals_serving.py")


def test_the_figures_of_the_page_are_those_of_its_code() -> None:
    served, resorted = runpy.run_path(str(SCRIPT))["served_and_resorted"]()
    counts = dict(served["timing"].value_counts().iter_rows())
    both = served.join(resorted, on="payment_id", suffix="_resorted")
    apart = int(np.sum((both["customer_amount_mean_7d"] != both["customer_amount_mean_7d_resorted"]).to_numpy()))
    text = PAGE.read_text()
    assert all(f"| {name} | {count} |" in text for name, count in counts.items())
    assert f"{apart} of the {len(served)} payments have another mean of seven days" in text
    assert set(counts) == {"on_time", "too_late"}


def test_the_pictures_of_the_page_are_drawn_by_its_code(tmp_path: Path) -> None:
    runpy.run_path(str(SCRIPT))["draw"](tmp_path)
    for name in ("transform.svg", "resorted.svg"):
        assert f"(training_equals_serving/{name})" in PAGE.read_text()
        # Another version of the library may draw other paths; the words and numbers are ours.
        assert _words(tmp_path / name) == _words(PAGE.with_name("training_equals_serving") / name)


def _words(picture: Path) -> list[str]:
    return [line.strip() for line in picture.read_text().splitlines() if "<text" in line]
