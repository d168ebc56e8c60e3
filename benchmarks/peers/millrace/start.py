"""Starts a worker with the peers' command line: a copy of the pipeline under the given topics' names, with the given model."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from benchmarks.peers.arguments import Arguments, parse
from streams.definition.load import load_bound
from streams.planning.create_topics import create
from streams.settings import KafkaSettings, Settings

HERE = Path(__file__).parent


def main() -> None:
    """Make the pipeline and its topics, and become the worker."""
    given = parse()
    path = pipeline(given)
    create(load_bound(path), Settings(kafka=KafkaSettings(bootstrap_servers=given.bootstrap_servers)))
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": given.bootstrap_servers,
        "REDIS_URL": given.redis_url,
        "MILLRACE_KAFKA__GROUP": given.group,
        "MILLRACE_KAFKA__START": "earliest",
        "MILLRACE_WORKER__DELIVERY": given.guarantee,
        "MILLRACE_HEALTH__PORT": "0",
    }
    os.execve(sys.executable, [sys.executable, "-m", "millrace", "run", str(path)], environment)


def pipeline(given: Arguments) -> Path:
    """A copy of the pipeline that reads and writes the given topics."""
    folder = Path(given.state_dir)
    text = (HERE / "pipeline.py").read_text(encoding="utf-8")
    for name, wanted in (("payments.scored", given.output), ("payments", given.input)):
        if text.count(f'Topic("{name}"') != 1:
            raise SystemExit(f"{HERE / 'pipeline.py'} names the topic {name!r} {text.count(name)} times, wanted once")
        text = text.replace(f'Topic("{name}"', f'Topic("{wanted}"')
    shutil.copytree(HERE / "schemas", folder / "schemas")
    (folder / "models").mkdir()
    (folder / "models" / "peers.onnx").symlink_to(given.model)
    (folder / "pipeline.py").write_text(text, encoding="utf-8")
    return folder / "pipeline.py"


if __name__ == "__main__":
    main()
