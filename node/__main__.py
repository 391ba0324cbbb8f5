"""`python -m node CONFIG.json`: one SD-QKD node, which serves until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from node import config, limits
from node.node import Node
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.signals import Signals


def main(path: Path) -> int:
    """Serve as the node that `path` describes; the exit status."""
    try:
        options = config.load(path)
    except ValueError as error:
        print(f"node: {path}: {error}", file=sys.stderr)
        return 2
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(options.directory / "journal.jsonl", f"node:{options.name}", context=trace.ids)
    node = Node(options, journal)
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    try:
        node.start()
    except OSError as error:
        print(f"node {options.name}: {error.strerror}", file=sys.stderr)
        return 2
    print("ready", flush=True)
    signals.next()
    _cut_off_later(journal)
    node.stop()
    journal.event("stopped")
    return 0


def _cut_off_later(journal: Journal) -> None:
    """Nothing needs a long good-bye, as every store is durable: what still waits for a peer that is away is cut off."""

    def cut_off() -> None:
        journal.event("stopped", cut_off=True)
        os._exit(0)

    last_call = threading.Timer(limits.LAST_CALL_S, cut_off)
    last_call.daemon = True
    last_call.start()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m node CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("node", lambda: main(Path(sys.argv[1])))
