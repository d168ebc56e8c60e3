"""A moment for people, UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(milliseconds: int) -> str:
    """``2026-01-31 12:00:00.000Z``; of a time that no calendar has, the number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
