"""The lock file: every package of the environment that the tests run in, by its exact version, and no other."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OF_OTHERS = {"pip", "setuptools", "wheel", "millrace"}


def declared() -> list[Requirement]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    return [Requirement(each) for each in named]


def pins() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pinned = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line)
            assert pinned, f"{line!r} pins nothing: wanted name==version"
            name = canonicalize_name(pinned[1])
            assert name not in found, f"{name} is pinned twice"
            found[name] = pinned[2]
    return found


def reached(wanted: list[Requirement]) -> dict[str, list[Requirement]]:
    """Everything that these need here, and what they need of it; by what is installed."""
    found: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    while wanted:
        each = wanted.pop()
        name = canonicalize_name(each.name)
        found.setdefault(name, []).append(each)
        try:
            needs = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue
        for extra in ("", *each.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                wanted += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


def test_everything_that_is_needed_is_pinned_within_the_bounds_of_all_who_need_it() -> None:
    pinned = pins()
    missing, outside = [], []
    for name, needs in reached(declared()).items():
        if name in OF_OTHERS:
            continue
        if name not in pinned:
            missing.append(name)
        outside += [
            f"{name}=={pinned[name]}, {each}" for each in needs if name in pinned and not each.specifier.contains(pinned[name], True)
        ]
    assert missing == [], "not in constraints.txt"
    assert outside == []


def test_nothing_is_pinned_that_nothing_needs() -> None:
    assert sorted(set(pins()) - set(reached(declared()))) == []


def test_the_tests_run_on_what_is_pinned() -> None:
    installed = {}
    for name in pins():
        try:
            installed[name] = distribution(name).version
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
    assert installed == {name: version for name, version in pins().items() if name in installed}
    assert len(installed) > len(pins()) / 2
