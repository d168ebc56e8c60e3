"""The page of guarantees names, for each promise, the tests that fail if it breaks: each of them is there, and none is empty."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())


@cache
def functions_of(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def asserts(function: ast.FunctionDef) -> bool:
    """Whether it can fail: by an assert or `pytest.raises`, its own or of what it calls in its file."""
    words = ast.unparse(function)
    return "assert" in words or "raises(" in words


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{Path(file).stem}::{name}" for file, name in NAMED])
def test_a_test_that_a_promise_rests_on_is_there_and_is_run(file: str, name: str) -> None:
    function = functions_of(file).get(name)
    assert function is not None, f"{PAGE.name} names {file}::{name}, which is not there"
    assert name.startswith("test_")
    assert not [each for each in function.decorator_list if "skip" in ast.unparse(each) or "xfail" in ast.unparse(each)]
    called = {ast.unparse(each.func) for each in ast.walk(function) if isinstance(each, ast.Call)}
    helpers = [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef) and node.name in called]
    assert asserts(function) or any(asserts(each) for each in helpers), f"{file}::{name} asserts nothing"


def test_each_promise_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in rows] == list(range(1, len(rows) + 1))
    assert [line for line in rows if "::" not in line] == []


def test_pages_and_programs_it_points_at_are_there() -> None:
    text = PAGE.read_text()
    for page in re.findall(r"\]\(([\w/.-]+\.md)\)", text):
        assert (PAGE.parent / page).is_file(), page
    for program in re.findall(r"`(benchmarks/\w+\.py)`", text):
        assert (ROOT / program).is_file(), program
