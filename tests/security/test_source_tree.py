"""What the source may not contain: ways in which data becomes code, and doors left open."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = ("millrace", "schemas", "transforms", "inference", "streams", "examples", "benchmarks")
# Modules that make objects, or commands, of bytes.
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop", "telnetlib"}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "ssl._create_unverified_context"}
FORBIDDEN_KEYWORDS = {("shell", True), ("allow_pickle", True), ("verify", False), ("check_hostname", False)}
EVERYWHERE = {"0.0.0.0", "::", "[::]"}


def offences(text: str) -> Iterator[str]:
    """What is forbidden in a module's text."""
    tree = ast.parse(text)
    careful = {each.name for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and "yaml.SafeLoader" in map(ast.unparse, each.bases)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (f"line {node.lineno}: imports {name}" for name in names if name.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            loads_carefully = called == "yaml.load" and len(node.args) == 2 and ast.unparse(node.args[1]) in careful
            if called in FORBIDDEN_BUILTINS | FORBIDDEN_CALLS and not loads_carefully:
                yield f"line {node.lineno}: calls {called}"
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in FORBIDDEN_KEYWORDS:
                    yield f"line {node.lineno}: says {keyword.arg}={keyword.value.value!r}"
        elif isinstance(node, ast.Constant) and node.value in EVERYWHERE:
            yield f"line {node.lineno}: listens, or asks, everywhere"
        elif isinstance(node, ast.Attribute) and node.attr == "CERT_NONE":
            yield f"line {node.lineno}: trusts any certificate"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_data_becomes_code_and_no_door_stands_open(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [f"{file.relative_to(ROOT)} {each}" for file in files for each in offences(file.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "exec(open('x').read())",
        "import yaml\nyaml.load('x')",
        "class Mine(yaml.Loader): ...\nyaml.load('x', Mine)",
        "run('ls', shell=True)",
        "np.load('x', allow_pickle=True)",
        "Client(verify=False)",
        "bind('0.0.0.0')",
        "context.verify_mode = ssl.CERT_NONE",
    ],
)
def test_each_of_them_would_be_found(text: str) -> None:
    assert list(offences(text))


def test_words_that_only_look_like_it_are_not_taken_for_it() -> None:
    assert list(offences("import re\nre.compile('x')\nast.literal_eval('1')\nyaml.safe_load('x')\nrun(['ls'], shell=False)")) == []


def test_the_pages_are_for_this_machine_alone_unless_told_otherwise() -> None:
    assert Settings().health.host == "127.0.0.1"
    compose = (ROOT / "docker-compose.yml").read_text().splitlines()
    published = [
        line.strip(' -"') for line in compose if line.strip().startswith('- "') and line.count(":") == 2 and line.strip(' -"')[0].isdigit()
    ]
    assert published
    assert all(each.startswith("127.0.0.1:") for each in published), published
