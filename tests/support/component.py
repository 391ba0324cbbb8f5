"""A component to be forked, as node, controller and SAE processes are: it does what its configuration says."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path


def main(path: Path) -> int:
    """Tell who it is, be ready, wait if it is to; the exit status."""
    config = json.loads(path.read_text())
    told = {
        "parent": os.getppid(), "session": os.getsid(0), "network": str(Path("/proc/self/ns/net").readlink()),
        "folder": str(Path.cwd()), "threads": threading.active_count(), "argv": sys.argv,
        "descriptors": sorted(str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()),
        "random": os.urandom(8).hex(),
    }  # fmt: skip
    Path(config["tell"]).write_text(json.dumps(told))
    if config.get("bug"):
        raise ValueError(config["bug"])
    print("ready", flush=True)
    print("a last word", file=sys.stderr, flush=True)
    while config.get("wait"):
        signal.pause()
    return int(config.get("status", 0))
