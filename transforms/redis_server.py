"""Whether a server keeps state the way we need it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import SettingsError
from transforms.resp import Replies, command
from transforms.wire import Wire

OLDEST_VERSION = (6, 2)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself."""

    address: str
    version: str
    eviction: str  # what it does when it is full
    max_bytes: int  # 0: no limit
    used_bytes: int
    appends: bool  # keeps an append-only file
    snapshots: bool | None  # saves snapshots; None: it doesn't say
    warnings: tuple[str, ...]


def ask_server(wire: Wire, address: str, probe: bytes, in_cluster: bool = False) -> ServerFacts:
    """Ask a server for its facts, and judge them.

    Args:
        wire: a connection to it.
        address: for errors.
        probe: a key that could be ours; of a cluster's node, one it keeps.
        in_cluster: it is asked as a cluster's node.

    Raises:
        SettingsError: it may throw state away, is too old, or lacks what the fence is made of.
        StoreDown: it does not answer, refuses us, or takes no writes.
    """
    info = _info(wire)
    _refuse(info, address, in_cluster)
    if info.get("role") == "slave":
        raise wire.refused("it is a replica, which takes no writes", "keep state")
    _probe(wire, address, probe)
    snapshots = _saves(wire)
    appends = info.get("aof_enabled") == "1"
    warnings = []
    if not appends and not snapshots:
        known = "keeps nothing on disk" if snapshots is False else "does not say whether it keeps anything on disk"
        warnings.append(f"{address} {known}: after it restarts, state is rebuilt from the log (appendonly yes would keep it)")
    return ServerFacts(
        address,
        info.get("redis_version", "unknown"),
        info.get("maxmemory_policy", "unknown"),
        int(info.get("maxmemory", 0)),
        int(info.get("used_memory", 0)),
        appends,
        snapshots,
        tuple(warnings),
    )


def together(address: str, facts: Sequence[ServerFacts]) -> ServerFacts:
    """The facts of a cluster, from those of its masters."""
    return ServerFacts(
        address,
        min(facts, key=lambda each: _version(each.version)).version,
        facts[0].eviction,
        sum(each.max_bytes for each in facts) if all(each.max_bytes for each in facts) else 0,
        sum(each.used_bytes for each in facts),
        all(each.appends for each in facts),
        None if any(each.snapshots is None for each in facts) else all(each.snapshots for each in facts),
        tuple(warning for each in facts for warning in each.warnings),
    )


def _info(wire: Wire) -> dict[str, str]:
    text = (wire.ask(command(b"INFO"), 1)[0] or b"").decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def _refuse(info: dict[str, str], address: str, in_cluster: bool) -> None:
    version = info.get("redis_version", "0")
    if _version(version) < OLDEST_VERSION:
        raise SettingsError(f"{address} is version {version}; wanted {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or later")
    if info.get("cluster_enabled") == "1" and not in_cluster:
        raise SettingsError(f"{address} is a node of a cluster; wanted redis+cluster:// (or rediss+cluster://) in redis.url")
    policy = info.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        raise SettingsError(
            f"{address} has maxmemory-policy {policy}: when full it would throw state away without a word. Wanted noeviction: "
            "`CONFIG SET maxmemory-policy noeviction`, and the same in its configuration file"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _probe(wire: Wire, address: str, key: bytes) -> None:
    """Some proxies, and some users' permissions, leave transactions out."""
    fenced = command(b"WATCH", key) + command(b"MULTI") + command(b"HMGET", key, b"o", b"e") + command(b"EXEC")
    error = _ask(wire, fenced, 4).error()
    if error is not None:
        raise SettingsError(f"{address} refuses WATCH, MULTI or EXEC, which keep two owners of a shard apart: {error}")


def _saves(wire: Wire) -> bool | None:
    replies = _ask(wire, command(b"CONFIG", b"GET", b"save"), 1)
    if replies.error() is not None:
        return None  # many hosted servers don't tell
    return bool(replies[len(replies) - 1])


def _ask(wire: Wire, payload: bytes, replies: int) -> Replies:
    wire.send(payload, replies)
    return wire.receive()
