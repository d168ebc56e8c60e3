"""A suggested change to a file of constraints, as a patch: what it would have to say for data to pass. Nobody applies it but its reader."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml

Changes = Mapping[tuple[str, str], Any]  # by field and word: the value it should have


def patch(file: Path, environment: str, changes: Changes) -> str:
    """The changes as a unified diff, with one more version; empty if there are none. What stands around them is left as it is.

    Args:
        file: of constraints, sound.
        environment: whose words are changed where it has its own.
        changes: see there; words that the file does not say are left out.
    """
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    edits = []
    for (name, word), value in changes.items():
        found = _find(root, ("environments", environment, "fields", name, word)) or _find(root, ("fields", name, word))
        if found is not None and word == "domain" and isinstance(found, yaml.MappingNode):
            found = _find(found, ("values",))
        if found is not None:
            edits.append((found.start_mark.index, _end(found, text), _flow(value)))
    version = _find(root, ("version",))
    if edits and isinstance(version, yaml.ScalarNode):
        edits.append((version.start_mark.index, version.end_mark.index, str(int(version.value) + 1)))
    changed = text
    for start, end, new in sorted(edits, reverse=True):
        changed = changed[:start] + new + changed[end:]
    return "".join(unified_diff(text.splitlines(True), changed.splitlines(True), f"a/{file.name}", f"b/{file.name}"))


def _find(node: Any, path: tuple[str, ...]) -> Any:
    for word in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == word), None)
    return node


def _end(node: Any, text: str) -> int:
    """Where a value ends: a block's mark stands at the start of what follows it."""
    end = int(node.end_mark.index)
    while end > node.start_mark.index and text[end - 1] in " \n":
        end -= 1
    return end


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")
