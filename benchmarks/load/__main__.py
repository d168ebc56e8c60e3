"""``python -m benchmarks.load ...`` is ``millrace bench load ...``."""

from __future__ import annotations

import sys

from millrace.__main__ import main

sys.argv = ["millrace", "bench", "load", *sys.argv[1:]]
main()
