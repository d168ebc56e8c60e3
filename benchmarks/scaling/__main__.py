"""Write the page about larger loads, or say what one takes: ``python -m benchmarks.scaling``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.report.read import newest, read_results
from benchmarks.result import RESULTS, ROOT
from benchmarks.scaling.held import held
from benchmarks.scaling.model import fit
from benchmarks.scaling.page import page
from benchmarks.scaling.plan import Assumed, plan
from schemas.errors import MillraceError, Refused

PAGE = ROOT / "docs" / "scaling.md"


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--to", type=Path, default=PAGE)
    parser.add_argument("--rate", type=float, help="say what this load takes, and write nothing")
    parser.add_argument("--keys", type=int, default=10_000_000, help="of each entity, with --rate")
    parser.add_argument("--json", action="store_true", help="facts as JSON")
    wanted = parser.parse_args()
    try:
        results = newest(read_results(wanted.results))
        model = fit(results)
        if wanted.rate is not None:
            found = plan(model, wanted.rate, wanted.keys, Assumed())
            print(json.dumps(asdict(found), indent=1) if wanted.json else "\n".join(f"{k:26} {v:,.2f}" for k, v in asdict(found).items()))
            return 0
        words = page(model, results, Assumed())
    except MillraceError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, Refused) else 1
    wanted.to.parent.mkdir(parents=True, exist_ok=True)
    wanted.to.write_text(words, encoding="utf-8")
    facts = {"model": asdict(model), "held": [{**asdict(each), "error": each.error} for each in held(model, results)]}
    print(json.dumps(facts, indent=1) if wanted.json else wanted.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
