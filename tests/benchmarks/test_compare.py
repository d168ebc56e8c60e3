"""The rule that says whether a change made a part slower, and what it is held against."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.compare import NotComparable, Side, floor_of, judge, measure
from benchmarks.parts import PARTS

LAUNCHES, PAIRS = 5, 15


def played(random: np.random.Generator, slower: float) -> compare.Verdict:
    """Noise as it is: each process has a speed of its own, pairs share what the machine does, and some rounds are disturbed."""
    shared = 1 + 0.3 * random.random((LAUNCHES, PAIRS)) + 2.0 * (random.random((LAUNCHES, PAIRS)) < 0.05)
    sides = []
    for factor in (1.0, slower):
        own = 1 + random.normal(0, 0.01, (LAUNCHES, 1))
        single = 1 + np.abs(random.normal(0, 0.03, (LAUNCHES, PAIRS))) + 1.0 * (random.random((LAUNCHES, PAIRS)) < 0.05)
        sides.append(factor * shared * own * single)
    return judge(sides[0], sides[1], margin=0.02)


def test_a_revision_beside_itself_is_hardly_ever_called_slower() -> None:
    random = np.random.default_rng(1)
    words = [played(random, 1.0).word for _ in range(100)]
    assert words.count("slower") <= 1
    assert words.count("faster") <= 1


@pytest.mark.parametrize(("factor", "word"), [(1.1, "slower"), (0.9, "faster")])
def test_a_tenth_is_seen_through_the_noise(factor: float, word: compare.Word) -> None:
    random = np.random.default_rng(2)
    assert [played(random, factor).word for _ in range(20)].count(word) >= 18


def test_one_launch_that_disagrees_is_enough_to_say_nothing() -> None:
    old = np.ones((5, 15))
    new = np.full((5, 15), 1.2)
    assert judge(old, new, 0.02).word == "slower"
    new[3] = 0.99
    assert judge(old, new, 0.02).word == "no difference"


def test_the_floor_is_held_against_what_was_hardly_disturbed() -> None:
    times = np.array([[0.5] * 5 + [9.0] * 10] * 5)
    assert not judge(times, times, 0.02, floor_us=0.6).misses_floor
    assert judge(times, times, 0.02, floor_us=0.4).misses_floor
    assert floor_of("decode") is not None
    assert floor_of("store") is None
    assert all(part in PARTS for part in compare.FLOORS)


def fake_tree(folder: Path, body: str) -> Path:
    """A tree whose only part runs this."""
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / "__init__.py").touch()
    (folder / "benchmarks" / "parts.py").write_text(body)
    return folder


ECHO = """
import json, sys
print(json.dumps({"ready": sys.argv[1]}), flush=True)
for number, _ in enumerate(sys.stdin):
    print(json.dumps({"units": 1, "cpu_us": %s, "wall_us": 1}), flush=True)
"""


def test_rounds_are_paired_and_each_side_runs_its_own_code(tmp_path: Path) -> None:
    trees = fake_tree(tmp_path / "a", ECHO % "100 + number"), fake_tree(tmp_path / "b", ECHO % "200 + number")
    old, new = measure(("a", "b"), trees, "decode", 2, 3, {"PATH": ""})
    assert old.tolist() == [[103, 104, 105]] * 2  # after three rounds to warm up, in processes of their own
    assert new.tolist() == [[203, 204, 205]] * 2


def test_a_part_that_does_not_run_on_a_revision_is_named_with_the_reason(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path, "raise ImportError('no module of that name')")
    with pytest.raises(NotComparable, match="windows does not run on v1: ImportError: no module of that name"):
        Side("v1", tree, "windows", {"PATH": ""})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", *arguments], cwd=compare.ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_can_not_be_compared_is_one_line_and_leaves_no_worktree() -> None:
    before = subprocess.run(["git", "worktree", "list"], cwd=compare.ROOT, capture_output=True, text=True, check=True).stdout
    done = run("no-such-revision", "--parts", "decode")
    assert done.returncode == 2
    assert done.stderr.startswith("compare: no revision 'no-such-revision'")
    assert "no part is called sing" in run("HEAD", "--parts", "sing").stderr
    after = subprocess.run(["git", "worktree", "list"], cwd=compare.ROOT, capture_output=True, text=True, check=True).stdout
    assert after == before
