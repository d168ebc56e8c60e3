"""The broker's jars, fetched once by Maven into a cache folder, and the Java that runs them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.errors import LocalServiceError, MissingProgram
from streams.local.process import find_program

POM = Path(__file__).with_name("pom.xml")
LEAST_JAVA = 17
FETCH_SECONDS = 600.0
CONTAINERS = "or run the services in containers: docker compose up"


def kafka_version() -> str:
    """The version of Apache Kafka that `pom.xml` names."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", POM.read_text(encoding="utf-8"))
    if found is None:
        raise LocalServiceError(f"{POM} names no version of kafka_2.13")
    return found[1]


def find_java(environment: Mapping[str, str] = os.environ) -> str:
    """The full path of a Java that runs the broker: JAVA_HOME's, else the one on PATH.

    Raises:
        MissingProgram: there is none, or it is too old.
    """
    java = find_program("java", environment.get("JAVA_HOME"))
    how = f"Install one (Debian, Ubuntu: apt install openjdk-{LEAST_JAVA}-jre-headless; macOS: brew install openjdk), {CONTAINERS}"
    if java is None:
        raise MissingProgram(f"Java was not found, neither by JAVA_HOME nor on PATH; a local Kafka needs Java {LEAST_JAVA} or newer. {how}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if version is None:
        raise MissingProgram(f"{java} does not say which Java it is; a local Kafka needs Java {LEAST_JAVA} or newer. {how}")
    if int(version[1]) < LEAST_JAVA:
        raise MissingProgram(f"{java} is Java {version[1]}; a local Kafka needs Java {LEAST_JAVA} or newer. {how}")
    return java


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the jars are kept, for this `pom.xml`: MILLRACE_CACHE_DIR, else ``millrace`` in the user's cache folder."""
    above = environment.get("MILLRACE_CACHE_DIR")
    root = Path(above) if above else Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    return root / f"kafka-{kafka_version()}-{digest}"


def kafka_jars(say: Callable[[str], None], folder: Path | None = None) -> Path:
    """The folder with the broker's jars; they are fetched if they are not there.

    Args:
        say: told when it takes a while, and why.
        folder: where they are kept, by default `cache_folder`.

    Raises:
        MissingProgram: they have to be fetched, and there is no Maven.
        LocalServiceError: Maven could not fetch them.
    """
    folder = folder or cache_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two of us fetch once
        if not folder.is_dir():
            _fetch(folder, say)
    return folder


def _fetch(folder: Path, say: Callable[[str], None]) -> None:
    maven = find_program("mvn")
    if maven is None:
        raise MissingProgram(
            f"Maven (mvn) was not found on PATH; it fetches Apache Kafka {kafka_version()}, once. "
            f"Install it (Debian, Ubuntu: apt install maven; macOS: brew install maven), {CONTAINERS}"
        )
    say(f"fetching Apache Kafka {kafka_version()} by Maven, once (44 MB)")
    # In a folder beside it, renamed when it is whole: what has the right name is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        jars = Path(scratch) / "jars"
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        command = [maven, "--quiet", "--batch-mode", "--file", str(POM), *goal]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise LocalServiceError(f"Maven did not fetch Apache Kafka within {FETCH_SECONDS:.0f} s; try again, {CONTAINERS}") from None
        if done.returncode != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise LocalServiceError(
                f"Maven could not fetch Apache Kafka: {said[0] if said else f'exit code {done.returncode}'}; {CONTAINERS}"
            )
        shutil.move(jars, folder)
