"""Run peers side by side: ``python -m benchmarks.peers [NAME ...]``.

All run on one broker and one Redis, which are started for it; each is given the same log of payments and the same model. Before every
row Millrace drains the same payments, so that ratios are of the same minutes. A row's result is written as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import NoProgram, ready
from benchmarks.peers.events import Log
from benchmarks.peers.measure import Job, Measured, run_row
from benchmarks.peers.model import write_model
from benchmarks.peers.peer import HERE, Peer, PeerError, Row, choose, find_peers
from benchmarks.peers.result import RESULTS, as_result, keep, table
from benchmarks.peers.stand import Stand, stand
from schemas.errors import MillraceError
from streams.definition.load import load_bound
from streams.scored_event import output_schema

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
BESIDE_EVENTS = 200_000


def main(arguments: list[str] | None = None) -> int:
    """Run the peers, print the table, and return the exit code: 0, 1 = a row is incomplete, 2 = bad input, 130 = interrupted."""
    wanted = _parser().parse_args(arguments)
    try:
        peers = find_peers()
        rows = choose(peers, wanted.names)
        if wanted.list:
            _list(rows, wanted.json)
            return 0
        _check(wanted)
        prepared, code = _prepare(rows, named=bool(wanted.names))
        with stand(_say) as services:
            return _run(services, prepared, next(peer for peer in peers if peer.library == "millrace"), wanted) or code
    except (PeerError, MillraceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def _prepare(rows: list[tuple[Peer, Row]], named: bool) -> tuple[list[tuple[Peer, Row, Path]], int]:
    """Rows with the interpreters to run them, and the exit code so far: of all rows, those that can't be made are left out.

    That this machine lacks a program is no failure of theirs. What was named is wanted.
    """
    found, code = [], 0
    for peer, row in rows:
        try:
            found.append((peer, row, ready(peer, _say)))
        except PeerError as error:
            if named:
                raise
            _say(f"{row.name} is left out: {error}")
            code = code if isinstance(error, NoProgram) else FAILED
    return found, code


def _run(services: Stand, rows: list[tuple[Peer, Row, Path]], millrace: Peer, wanted: argparse.Namespace) -> int:
    bound = load_bound(millrace.folder / "pipeline.py")
    log, model = Log(customers=wanted.customers), services.folder / "model.onnx"
    _say("growing the forest")
    write_model(model, log, bound)
    job = Job(log, model, output_schema(bound))
    results: list[dict[str, Any]] = []
    code = 0

    def done(peer: Peer, row: Row, measured: Measured, beside: Measured | None, events: int) -> None:
        settings = {"customers": log.customers, "history": log.history, "events": events, "seconds": wanted.seconds}
        results.append(as_result(peer, row, measured, beside, settings))
        path = keep(results[-1], wanted.results)
        _say("; ".join([str(path.name), *measured.notes]))

    for peer, row, python in rows:
        events = min(row.events, wanted.events or row.events)
        beside = None
        if not wanted.alone:  # before its own row as well: that warms the broker, and shows the noise of the hour
            _say("millrace drains")
            fewer = min(BESIDE_EVENTS, wanted.events or BESIDE_EVENTS)
            beside = run_row(services, job, millrace, millrace.rows[0], Path(sys.executable), fewer, 0)
            for note in beside.notes:
                _say(f"millrace: {note}")
            if beside.interrupted:
                code = INTERRUPTED
                break
        _say(f"{row.name}: {log.history:,} + {events:,} events")
        measured = run_row(services, job, peer, row, python, events, wanted.seconds)
        done(peer, row, measured, beside, events)
        if measured.interrupted:
            code = INTERRUPTED
            break
        code = code or (0 if measured.complete else FAILED)
    print(json.dumps(results, indent=2) if wanted.json else table(results))
    return code


def _check(wanted: argparse.Namespace) -> None:
    if wanted.events is not None and wanted.events < 1_000:
        raise PeerError(f"--events {wanted.events}: wanted 1,000 at least")
    if wanted.seconds and wanted.seconds < 3:
        raise PeerError(f"--seconds {wanted.seconds:g}: wanted 3 at least, or 0 for no open loops")
    if not 10 <= wanted.customers <= 1_000_000:
        raise PeerError(f"--customers {wanted.customers}: wanted 10 to 1,000,000")


def _list(rows: list[tuple[Peer, Row]], as_json: bool) -> None:
    facts = [{"name": r.name, "peer": p.name, "version": p.version, "guarantee": r.guarantee, "how": r.how} for p, r in rows]
    print(json.dumps(facts, indent=2) if as_json else "\n".join(f"{f['name']:32} {f['peer']} {f['version']}: {f['how']}" for f in facts))


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Run peers of Millrace side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows, or folders of peers; all if none is given")
    parser.add_argument("--events", type=int, help="most events to drain after the history (default: what each row says)")
    parser.add_argument("--seconds", type=float, default=15, help="of each open loop; 0 = drain only")
    parser.add_argument("--customers", type=int, default=1_000, help="each brings 60 payments of history")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help=f"folder for the results (default: {RESULTS.relative_to(HERE.parents[1])})"
    )
    parser.add_argument("--alone", action="store_true", help="without Millrace's drain before each row")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the services are ended, and what was measured is kept
    sys.exit(main())
