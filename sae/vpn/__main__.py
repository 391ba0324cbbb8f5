"""`python -m sae.vpn CONFIG.json`: runs the gateway of one datacenter until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from mtls.identity import Role
from mtls.server import Server
from sae.client import Failed
from sae.vpn import config
from sae.vpn.gateway import Gateway
from sae.vpn.gateway_http import REQUESTS_OF_ONE, THREADS, make_app
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.signals import Signals


def main(path: Path) -> int:
    """Run the gateway that `path` describes; the exit status."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        options = config.load(path)
    except (ValueError, OSError) as error:
        return _give_up(f"{path}: {error}")
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    sae = options.sae.saes[0]
    try:
        options.sae.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(options.sae.directory / "journal.jsonl", f"{Role.SAE}:{sae.id}", context=trace.ids)
        gateway = Gateway(options, journal)
        server = Server(
            make_app(gateway), options.sae.host, sae.port, sae.credentials, threads=THREADS, per_party=REQUESTS_OF_ONE
        )
        server.start()
    except OSError as error:
        return _give_up(f"{sae.name}: {error.strerror or error}")
    except Failed as failure:
        return _give_up(f"{sae.name}: {failure}")
    journal.event("started", saes={sae.id: sae.name})
    print("ready", flush=True)
    signals.next()
    gateway.stop()
    journal.event("stopped")
    return 0


def _give_up(why: str) -> int:
    print(f"gateway: {' '.join(why.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m sae.vpn CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("gateway", lambda: main(Path(sys.argv[1])))
