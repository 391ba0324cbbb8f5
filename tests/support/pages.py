"""`python -m tests.support.pages TOPOLOGY...`: the live view's page of networks that do not run, each at /NAME.

It prints its port. What the page shows is made up: some fibres are cut or short of key material, the rest is well. So
many networks can be looked at in a browser without being built.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from scenario.topology import load
from testbed.dashboard.collected.history import History
from testbed.dashboard.collected.snapshot import FibreNow, Heard, Sample, Snapshot
from testbed.dashboard.page import _Page
from testbed.dashboard.views.selection import WHOLE
from testbed.errors import UserError
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


def made_up(plan: Plan) -> Snapshot:
    """Every fourth fibre is cut, every fourth QC does not generate, and every other QC on demand is lit."""
    qcs = [qc.name for link in plan.topology.links for qc in link.qcs]
    qcs += [one.qc.name for one in plan.topology.switched[::2]]
    told = {
        "status": {"parameters": {"ttl_slots": 15, "mode": "basic", "admission": "none", "keys_ahead": 4}},
        "qcs": [
            {"qc": qc, "status": "ACTIVE", "enabled": bool(i % 4), "qber_percent": 1.9} for i, qc in enumerate(qcs)
        ],
        "sessions": [], "refusals": [],
    }  # fmt: skip
    return Snapshot(
        number=1, time=1000.0, controller=Heard(told), nodes={n: Heard({"qcs": []}) for n in plan.nodes},
        fibres={p.link.name: FibreNow(i % 4 != 1, (p.link.a_to_b, p.link.b_to_a)) for i, p in enumerate(plan.links)},
        curves={qc: (Sample(1, 40, 10, 0, 600),) for qc in qcs},
    )  # fmt: skip


def refuse(name: str, /, **_: Any) -> Any:
    """Whatever is asked for: there is no network."""
    raise UserError(f"no network runs that does {name}")


def main(topologies: list[str]) -> None:
    """Serve until it is killed."""
    plans = {Path(name).stem: make_plan(load(name, TOPOLOGIES)) for name in topologies}
    app = FastAPI()

    @ui.page("/{name}")
    def page(name: str) -> None:
        plan = plans[name]
        watch: Any = SimpleNamespace(latest=made_up(plan), history=History())
        _Page(plan, refuse, watch, WHOLE)

    ui.run_with(app, show_welcome_message=False, tailwind=False, binding_refresh_interval=None)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])


if __name__ == "__main__":
    main(sys.argv[1:])
