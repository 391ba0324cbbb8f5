"""`python -m testbed.bench.bare CONFIG.json`: a handler that answers a constant, on the same server as everything else.

What it costs to ask it is what any answer costs here; benchmarks put it beside the cost of a key.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Role
from mtls.serve import allow, json_body, new_app
from mtls.server import Server
from telemetry.signals import Signals

_KEY_ID = "00000000-0000-4000-8000-000000000000"


def main(path: Path) -> int:
    """Serve until SIGTERM."""
    options: dict[str, Any] = json.loads(path.read_text())
    app = new_app("bare")

    @app.post("/")
    @allow(Role.SAE)
    def constant() -> dict[str, Any]:
        # The same request as for keys, parsed alike, and an answer of the same length.
        body = json_body()
        key = "A" * (4 * (body.get("size", 128) // 24)) + "AA=="
        return {"keys": [{"key_ID": _KEY_ID, "key": key}] * body.get("number", 1)}

    signals = Signals(signal.SIGTERM)
    credentials = Credentials.from_config(options["credentials"], "credentials")
    server = Server(app, options["host"], options["port"], credentials)
    server.start()
    print("ready", flush=True)
    signals.next()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
