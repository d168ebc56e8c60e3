"""Millrace's own rows, one after another, and the pages made of them: ``python -m benchmarks``, which is ``make bench``.

A benchmark that misses a floor, or whose run does not count, ends with an error; the others still run, and the pages show what there is.
All together takes less than twenty minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.result import ROOT

EXAMPLE = "examples/card_fraud/pipeline.py"
LOAD = ("benchmarks.load", EXAMPLE)


@dataclass(frozen=True, slots=True)
class Turn:
    """One benchmark, as it is run here."""

    name: str
    words: tuple[str, ...]  # module and arguments

    @property
    def command(self) -> str:
        """What runs it alone."""
        return f"python -m {' '.join(self.words)}"


TURNS = (
    Turn("codec", ("benchmarks.codec", "--keep")),
    Turn("scoring", ("benchmarks.scoring", "--keep")),
    Turn("kernel", ("benchmarks.kernel", "--keep")),
    Turn("parts", ("benchmarks.parts", "--keep")),
    Turn("store", ("benchmarks.store", "--record")),
    Turn("offline", ("benchmarks.offline", "--save")),
    Turn("growth", ("benchmarks.growth", "--most-keys", "100000")),
    Turn("worker", ("benchmarks.worker", "--events", "500000", "--seconds", "30")),
    Turn("stages", ("benchmarks.stages",)),
    Turn("constant", (*LOAD, "--rate", "10000", "--seconds", "60")),
    Turn("burst", (*LOAD, "--shape", "burst", "--rate", "20000", "--seconds", "60")),
    Turn("knee", (*LOAD, "--knee", "100", "--rate", "10000", "--hold", "15")),
)
PAGES = (Turn("page", ("benchmarks.report",)), Turn("scaling", ("benchmarks.scaling",)))


def main() -> int:
    """Run them, and say how each ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(turn.name for turn in TURNS)}")
    parser.add_argument("--list", action="store_true", help="show the commands, and run nothing")
    wanted = parser.parse_args()
    unknown = set(wanted.names) - {turn.name for turn in TURNS}
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; wanted some of {', '.join(turn.name for turn in TURNS)}")
    turns = [turn for turn in TURNS if not wanted.names or turn.name in wanted.names]
    if wanted.list:
        print("\n".join(f"{turn.name:10} {turn.command}" for turn in turns))
        return 0
    ended: list[str] = []
    try:
        for turn in (*turns, *PAGES):
            print(f"== {turn.command}", flush=True)
            begun = time.monotonic()
            code = subprocess.run([sys.executable, "-m", *turn.words], cwd=ROOT, check=False).returncode
            ended.append(f"{turn.name:10} {time.monotonic() - begun:6.0f} s  {'done' if code == 0 else f'ended with {code}'}")
    except KeyboardInterrupt:
        ended.append("interrupted; what was measured until then is kept")
        print("\n".join(["==", *ended]))
        return 130
    print("\n".join(["==", *ended]))
    return int(any("ended with" in each for each in ended))


if __name__ == "__main__":
    sys.exit(main())
