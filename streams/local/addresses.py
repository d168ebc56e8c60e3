"""What the services of `millrace up` mean for everything else here: their addresses as settings, and how they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import MissingProgram
from schemas.features import Json


def state_dir() -> Path:
    """Where `millrace up` keeps what it started: MILLRACE_STATE_DIR, else ``.millrace`` in the working directory."""
    return Path(os.environ.get("MILLRACE_STATE_DIR") or ".millrace")


def local_settings() -> dict[str, dict[str, str]]:
    """By section, the settings that running local services stand for; none where they don't run."""
    services = _running()
    if services is None:
        return {}
    return {"kafka": {"bootstrap_servers": services.bootstrap_servers}, "redis": {"url": services.redis_url}}


def local_status() -> list[Json]:
    """The services that were ever started here, and whether they answer."""
    folder = state_dir()
    if not folder.is_dir():
        return []
    from streams.local.services import status

    return [asdict(service) for service in status(folder)]


def start(kafka_port: int | None, redis_port: int | None) -> dict[str, Json]:
    """Start what does not run yet; returns where everything answers.

    Raises:
        MissingProgram: Java, Maven, Redis, or what this needs of Python's packages is not there.
        LocalServiceError: a service does not start.
    """
    if find_spec("psutil") is None:
        raise MissingProgram("local services need the packages of millrace[local]: pip install 'millrace[local]'")
    from streams.local.services import up

    services = up(state_dir(), kafka_port=kafka_port, redis_port=redis_port, say=lambda words: print(words, file=sys.stderr))
    return {
        "state_dir": str(services.state_dir),
        "bootstrap_servers": services.bootstrap_servers,
        "redis_url": services.redis_url,
        "redis_socket_url": services.redis_socket_url,
        "started": list(services.started),
    }


def stop(erase: bool) -> dict[str, Json]:
    """End what was started here, and only that."""
    from streams.local.services import down

    return {"state_dir": str(state_dir().resolve()), "ended": list(down(state_dir(), erase=erase)), "erased": erase}


def start_words(facts: Mapping[str, Any]) -> str:
    """Where the services are."""
    began = ", ".join(facts["started"])
    return "\n".join(
        [
            f"started {began}" if began else "all of it ran already",
            f"  Kafka  {facts['bootstrap_servers']}",
            f"  Redis  {facts['redis_url']}",
            f"  state  {facts['state_dir']}  (`millrace down` ends them)",
        ]
    )


def stop_words(facts: Mapping[str, Any]) -> str:
    """What was ended."""
    ended = ", ".join(facts["ended"])
    return (f"ended {ended}" if ended else "nothing of ours was running") + (f"; erased {facts['state_dir']}" if facts["erased"] else "")


def _running() -> Any:
    # The package that knows processes is an extra: a worker on its own machine does without it.
    if not state_dir().is_dir():
        return None
    from streams.local.services import running

    return running(state_dir())
