"""A peer, as its folder describes it: ``peer.toml`` beside its program.

A folder stands for one program; its rows are the ways it is run, each a line of the table and a name on the command line.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MANIFEST = "peer.toml"
GUARANTEES = ("at_least_once", "exactly_once")
LANGUAGES = ("python", "java")
INSTALLED = "installed"  # for a version: that of the package in the runner's own environment
EVENTS = 400_000

_PEER = {"peer": str, "library": str, "version": str, "language": str, "code": list, "cannot": list, "row": list}
_ROW = {"name": str, "guarantee": str, "how": str, "command": list}
_BUILD = {"command": list, "inputs": list, "result": str}


class PeerError(Exception):
    """A peer can't be run: what was found, what was wanted, and where."""


@dataclass(frozen=True, slots=True)
class Build:
    """How a peer that is not Python is made."""

    command: tuple[str, ...]
    inputs: tuple[str, ...]  # files and folders; the result is made again when one is newer
    result: str


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run a peer."""

    name: str
    guarantee: str
    how: str
    command: tuple[str, ...]  # with {folder} and {python}
    events: int  # most to drain


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that does the job."""

    folder: Path
    name: str
    library: str
    version: str
    language: str
    code: tuple[str, ...]  # the files a user would write
    cannot: tuple[str, ...]
    rows: tuple[Row, ...]
    build: Build | None

    @property
    def requirements(self) -> Path | None:
        """The pinned packages of a Python peer; None = it runs in the runner's own environment."""
        path = self.folder / "requirements.txt"
        return path if path.exists() else None


def find_peers(above: Path = HERE) -> list[Peer]:
    """All peers below a folder, Millrace first, the others by name.

    Raises:
        PeerError: a description is wrong, or two rows have one name.
    """
    peers = [read_peer(path.parent) for path in sorted(above.rglob(MANIFEST))]
    names = [row.name for peer in peers for row in peer.rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PeerError(f"{above}: several rows are named {', '.join(twice)}")
    return sorted(peers, key=lambda peer: peer.library != "millrace")


def choose(peers: Sequence[Peer], names: Sequence[str]) -> list[tuple[Peer, Row]]:
    """The rows with these names, or of peers in folders of these names, if no row has them; all if none are given.

    Raises:
        PeerError: a name is not known.
    """
    every = [(peer, row) for peer in peers for row in peer.rows]
    of_rows = {row.name for _, row in every}
    folders = {peer.folder.name for peer in peers} - of_rows
    unknown = [name for name in names if name not in of_rows | folders]
    if unknown:
        raise PeerError(f"no peer is named {', '.join(unknown)}; there are {', '.join(row.name for _, row in every)}")
    return [(peer, row) for peer, row in every if not names or row.name in names or peer.folder.name in folders.intersection(names)]


def read_peer(folder: Path) -> Peer:
    """Read a folder's description.

    Raises:
        PeerError: something is missing in it, of another type, or unknown.
    """
    where = folder / MANIFEST
    try:
        said = tomllib.loads(where.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PeerError(f"{where} can't be read: {error}") from error
    _expect(said, _PEER, {"build": dict}, str(where))
    _one_of(said["language"], LANGUAGES, f"{where}: language")
    rows = []
    for row in said["row"]:
        _expect(row, _ROW, {"events": int}, f"{where}: row")
        _one_of(row["guarantee"], GUARANTEES, f"{where}: row {row['name']}: guarantee")
        rows.append(Row(row["name"], row["guarantee"], row["how"], tuple(row["command"]), row.get("events", EVENTS)))
    build = None
    if "build" in said:
        _expect(said["build"], _BUILD, {}, f"{where}: build")
        build = Build(tuple(said["build"]["command"]), tuple(said["build"]["inputs"]), said["build"]["result"])
    missing = [name for name in said["code"] if not (folder / name).is_file()]
    if missing or not said["code"]:
        raise PeerError(f"{where}: code names {', '.join(missing) or 'nothing'}: wanted files of the folder")
    version = importlib.metadata.version(said["library"]) if said["version"] == INSTALLED else said["version"]
    return Peer(
        folder, said["peer"], said["library"], version, said["language"], tuple(said["code"]), tuple(said["cannot"]), tuple(rows), build
    )


def _expect(said: Mapping[str, Any], wanted: Mapping[str, type], optional: Mapping[str, type], where: str) -> None:
    missing, unknown = sorted(set(wanted) - set(said)), sorted(set(said) - set(wanted) - set(optional))
    if missing or unknown:
        raise PeerError(f"{where}: {f'lacks {missing}' if missing else f'has unknown {unknown}'}; wanted {sorted(wanted)}")
    for name, value in said.items():
        kind = {**wanted, **optional}[name]
        if not isinstance(value, kind):
            raise PeerError(f"{where}: {name} is {value!r}, wanted a {kind.__name__}")


def _one_of(value: str, words: Sequence[str], where: str) -> None:
    if value not in words:
        raise PeerError(f"{where} is {value!r}, wanted one of {', '.join(words)}")
