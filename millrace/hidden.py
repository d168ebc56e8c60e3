"""Find what hides Millrace's packages: four of them have names that anyone's folder may have."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("streams", "transforms", "inference", "schemas")


def hiding() -> str | None:
    """One line that names the first folder or file that stands before a package of ours on Python's path; None = nothing does."""
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        loaded = sys.modules.get(package)
        spec = getattr(loaded, "__spec__", None) or PathFinder.find_spec(package)
        places = list(spec.submodule_search_locations or [spec.origin]) if spec else []
        # A package spread over several folders (without __init__.py) never wins over a real one.
        if places and not any(place and Path(place).resolve() == home / package for place in places):
            return (
                f"{places[0]} hides Millrace's package {package!r}: it stands before it on Python's path. "
                "Rename it, or start from another folder: the `millrace` command, unlike `python -m`, does not look into the working one"
            )
    return None
