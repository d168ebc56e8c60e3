"""What the verbs of `millrace dlq` say, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def replay_words(facts: Mapping[str, Any]) -> str:
    """What came back, what would, and what would not and why."""
    if facts["dry_run"]:
        lines = [f"{facts['would_pass']:,} of {facts['chosen']:,} letters would pass now; nothing was sent"]
    else:
        lines = [f"{facts['replayed']:,} of {facts['chosen']:,} letters replayed as run {facts['run']}"]
    return "\n".join([*lines, *_judged(facts)])


def _judged(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{count:>10,}  {reason}" for reason, count in facts["by_reason"].items()]
    for each in facts["would_not"]:
        lines.append(f"{each['letters']:>10,}  {each['refused']}: stays, since now {each['now']} (letter {each['example']})")
    return lines


def discard_words(facts: Mapping[str, Any]) -> str:
    """What was closed."""
    if facts["dry_run"]:
        lines = [f"{facts['chosen']:,} letters would be discarded; nothing was done"]
    else:
        lines = [f"{facts['discarded']:,} letters discarded as run {facts['run']}"]
    return "\n".join([*lines, *(f"{count:>10,}  {reason}" for reason, count in facts["by_reason"].items())])


def copies_words(facts: Mapping[str, Any]) -> str:
    """What was written, and how much of it would pass as it is."""
    lines = [f"{facts['chosen']:,} letters written to {facts['file']}; {facts['would_pass']:,} of them would pass as they stand there"]
    return "\n".join([*lines, *_judged(facts)])


def stats_words(facts: Mapping[str, Any]) -> str:
    """A table of reasons, then the runs."""
    lines = [
        f"{facts['letters']:,} letters in {facts['topic']}: {facts['open']:,} open, {facts['replayed']:,} replayed, "
        f"{facts['discarded']:,} discarded; {facts['refused_again']:,} are of records that came back and were refused again"
    ]
    if facts["reasons"]:
        lines.append(f"{'letters':>10} {'open':>10} {'replayed':>10} {'discarded':>10}  stage    reason")
    for each in facts["reasons"]:
        counts = " ".join(f"{each[word]:>10,}" for word in ("letters", "open", "replayed", "discarded"))
        lines.append(f"{counts}  {each['stage']:8} {each['reason']}")
    for run in facts["runs"]:
        why = f": {run['why']}" if run["why"] else ""
        fix = f" with {run['fix']}" if run["fix"] else ""
        lines.append(f"run {run['name']} by {run['by']}: {run['letters']:,} letters {run['action']}{fix}{why}")
    return "\n".join(lines)
