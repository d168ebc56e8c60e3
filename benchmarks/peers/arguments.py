"""The command line that every peer is started with. It needs nothing but Python, since peers import it into environments of their own."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Arguments:
    """Where a peer reads, writes and keeps its state."""

    bootstrap_servers: str
    redis_url: str
    input: str
    output: str
    model: str  # an ONNX file
    group: str
    schemas: str  # the folder of payment.avsc and scored.avsc
    state_dir: str  # an empty folder
    guarantee: str


def parse() -> Arguments:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-servers", "redis-url", "input", "output", "model", "group", "schemas", "state-dir"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--guarantee", default="at_least_once")
    return Arguments(**vars(parser.parse_args()))
