"""Addresses that may hold a password: which are whole, so that no part of a password is ever taken for a host, a port or a path.

A ``/``, ``?``, ``#`` or ``@`` in a password ends it early for whoever reads the address, and the rest of it would stand in messages.
"""

from __future__ import annotations

import re

# A user and password, as they may stand in an address: signs that part it into its pieces are written %2F, %3F, %23, %40, %5B and %5D.
_WHO = r"(?:[!$-.0->A-Z\\^-~]*@)?"
_PLACE = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?"
_QUERY = r"(?:\?[^\s#@]*)?"

_REDIS = re.compile(
    rf"rediss?://{_WHO}(?:{_PLACE})?(?:/\d*)?{_QUERY}"
    rf"|rediss?\+cluster://{_WHO}{_PLACE}(?:,{_PLACE})*(?:/\d*)?{_QUERY}"
    rf"|unix://{_WHO}/[^\s?#]+{_QUERY}"
)
_REGISTRY = re.compile(rf"https?://{_WHO}{_PLACE}(?:/[^\s?#@]*)?")
ESCAPES = "in a user's name or a password write %2F for /, %3F for ?, %23 for #, %40 for @, and so on"


def is_redis(url: str) -> bool:
    """Whether it is the address of a Redis server or cluster."""
    return _REDIS.fullmatch(url) is not None


def is_registry(url: str) -> bool:
    """Whether it is the address of a schema registry, or of several, or of one that is only pretended."""
    return url.startswith("mock://") or all(_REGISTRY.fullmatch(each) for each in re.split(r",\s*(?=https?://)", url))
