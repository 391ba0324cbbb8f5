"""The records of a run for its audit, collected when all that made and took keys has ended."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from telemetry import bugs
from testbed.audit.evidence import Meant
from testbed.machine.processes import how_it_ended

_log = logging.getLogger(__name__)
_UNREADABLE = 2  # exit status of node.material.local_db_dump: the file is none that an account can be made of


def document(
    meant: Meant,
    local_databases: Mapping[str, Path],
    allocations: Iterable[Sequence[Any]],
    keys: Iterable[Sequence[Any]],
) -> dict[str, Any]:
    """What `evidence.records` reads. A node whose account cannot be made is left out, and why is said."""
    nodes, lacking = {}, {}
    for node, path in local_databases.items():
        command = [sys.executable, "-P", "-m", "node.material.local_db_dump", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            nodes[node] = json.loads(done.stdout)
        elif done.returncode == _UNREADABLE:
            lacking[node] = " ".join(done.stderr.split())[-200:]
        else:
            lacking[node] = f"{bugs.MARK} kept its account from being made"
            _log.error("account of node %s: %s, %s\n%s", node, bugs.MARK, how_it_ended(done.returncode), done.stderr)
    return {
        "meant": {
            "nodes": sorted(meant.nodes),
            "qcs": {name: list(qc) for name, qc in meant.qcs.items()},
            "saes": {sae: list(of) for sae, of in meant.saes.items()},
            "ttl_slots": meant.ttl_slots,
            "gateways": dict(meant.gateways),
            **({"switches": [[at] for at in meant.switches]} if meant.switches else {}),
        },
        "nodes": nodes, "lacking": lacking,
        "allocations": [list(row) for row in allocations], "keys": [list(row) for row in keys],
    }  # fmt: skip
