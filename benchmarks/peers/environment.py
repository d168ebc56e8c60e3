"""What a peer runs in: for Python an environment with its pinned packages, for Java its build. Made once, and kept.

Environments are in the user's cache folder (MILLRACE_CACHE_DIR, like the local broker's jars), one for each content of a
``requirements.txt``: a change of a pin makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.peers.peer import Build, Peer, PeerError

BUILD_SECONDS = 900.0
TAIL_LINES = 15

Say = Callable[[str], None]


class NoProgram(PeerError):
    """A peer needs a program that this machine doesn't have."""


def ready(peer: Peer, say: Say) -> Path:
    """Make what a peer runs in, if it is not there; the interpreter of a Python peer, else our own.

    Raises:
        NoProgram: what it takes is not on this machine.
        PeerError: it can't be made.
    """
    build(peer, say)
    return interpreter(peer, say)


def interpreter(peer: Peer, say: Say) -> Path:
    """The Python that runs a peer; its environment is made if it is not there.

    Raises:
        PeerError: the packages can't be installed.
    """
    if peer.requirements is None:
        return Path(sys.executable)
    folder = environment_folder(peer.requirements)
    python = folder / "bin" / "python"
    if python.exists():
        return python
    say(f"making an environment for {peer.name} {peer.version}")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        _run([sys.executable, "-m", "venv", str(unfinished)], peer.folder)
        pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(peer.requirements)], peer.folder)
        unfinished.rename(folder)  # only a finished one has this name; nothing but pip's own scripts knows the old one
    except OSError as error:
        if python.exists():  # another run has made it meanwhile
            return python
        raise PeerError(f"{folder} can't be made: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return python


def environment_folder(requirements: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the environment for these packages is kept."""
    above = environment.get("MILLRACE_CACHE_DIR")
    root = Path(above) if above else Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:8]
    return root / "peers" / f"{requirements.parent.name}-{digest}"


def build(peer: Peer, say: Say) -> None:
    """Build a peer that needs it and is not built, or whose sources have changed since.

    Raises:
        NoProgram: the program that builds is not there.
        PeerError: it fails.
    """
    if peer.build is None or is_built(peer.folder, peer.build):
        return
    say(f"building {peer.name} {peer.version}")
    _run(peer.build.command, peer.folder)
    if not (peer.folder / peer.build.result).exists():
        raise PeerError(f"{peer.folder}: {' '.join(peer.build.command)} made no {peer.build.result}")


def is_built(folder: Path, build: Build) -> bool:
    """Whether the result is there, and no input is newer."""
    result = folder / build.result
    if not result.exists():
        return False
    files = [file for name in build.inputs for file in ((folder / name).rglob("*") if (folder / name).is_dir() else [folder / name])]
    return all(file.stat().st_mtime <= result.stat().st_mtime for file in files if file.is_file())


def _run(command: Sequence[str], folder: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise NoProgram(f"{folder.name} needs {command[0]}, which is not on PATH")
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise PeerError(f"{' '.join(command)} in {folder} ended with {done.returncode}:\n{said}")
