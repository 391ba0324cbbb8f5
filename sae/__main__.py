"""`python -m sae CONFIG.json`: runs all applications of one datacenter until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mtls.server import Server
from sae import config
from sae.application import Application
from sae.sae_http import REQUESTS_OF_ONE, THREADS, make_app
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.signals import Signals

# Time for closing sessions, of the second in which the process has to end.
_CLOSE_S = 0.5


def main(path: Path) -> int:
    """Run the applications that `path` describes; the exit status."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        options = config.load(path)
    except (ValueError, OSError) as error:
        return _give_up(f"{path}: {error}")
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    try:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(options.directory / "journal.jsonl", f"sae:{options.name}", context=trace.ids)
    except OSError as error:
        return _give_up(f"directory {options.directory}: {error.strerror or error}")
    applications = []
    for sae in options.saes:
        try:
            application = Application(options, sae, journal)
            server = Server(
                make_app(application), options.host, sae.port, sae.credentials, threads=THREADS,
                per_party=REQUESTS_OF_ONE,
            )  # fmt: skip
        except OSError as error:
            return _give_up(f"{sae.name}: credentials cannot be used: {error.strerror or error}")
        try:
            server.start()
        except OSError as error:
            return _give_up(f"{sae.name}: {error.strerror}")
        applications.append(application)
    journal.event("started", saes={a.id: a.name for a in applications})
    print("ready", flush=True)
    signals.next()
    _close(applications)
    journal.event("stopped")
    return 0


def _close(applications: Sequence[Application]) -> None:
    """End all sessions at the same time, as far as that works."""
    deadline = time.monotonic() + _CLOSE_S
    for application in applications:
        application.master.stop()
    for application in applications:
        application.master.wait(deadline)


def _give_up(why: str) -> int:
    print(f"sae: {' '.join(why.split())}", file=sys.stderr)  # one line, whatever a library put into its text
    return 2


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m sae CONFIG.json", file=sys.stderr)
        sys.exit(2)
    # A call that still waits for a peer which is away would keep its thread, and with it this process, alive.
    bugs.exit_with("sae", lambda: main(Path(sys.argv[1])))
