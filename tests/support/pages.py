"""`python -m tests.support.pages TOPOLOGY...`: the live view's page of networks that do not run, each at /NAME.

It prints its port. What the page shows is made up: some fibres are cut or short of key material, the rest is well. So
many networks can be looked at in a browser without being built.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import uvicorn
from fastapi import FastAPI
from nicegui import ui

from scenario.topology import load
from testbed.dashboard.collected.history import History
from testbed.dashboard.collected.snapshot import FibreNow, Figures, Heard, Sample, Snapshot, Tally
from testbed.dashboard.collected.timeline import FAILED, REFUSED, Happening
from testbed.dashboard.page import _Page
from testbed.dashboard.views.selection import selected
from testbed.dashboard.views.view_timeline import SIGNS
from testbed.errors import UserError
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


NOW = 1000.0


def made_up(plan: Plan) -> Snapshot:
    """Something of all that can be: of eight fibres one is cut, one is slow, one has many errors, one makes no key; the
    fifth one was short of key material a moment ago. A session was refused at the first datacenter, the second one is
    silent. Every other QC on demand is lit.
    """
    fibres = {}
    for i, link in enumerate(plan.topology.links):
        slow = replace(link.a_to_b, delay_ms=20.0, loss_percent=1.5)
        fibres[link.name] = FibreNow(i % 8 != 1, (slow if i % 8 == 2 else link.a_to_b, link.b_to_a))
    qcs = [(qc.name, i) for i, link in enumerate(plan.topology.links) for qc in link.qcs]
    qcs += [(one.qc.name, 4) for one in plan.topology.switched[::2]]
    sessions = sessions_of(plan)
    refused = {"time": NOW - 5, "master": "tax-office", "slave": "billing", "cause": "no_path", "trace": "t1"}
    told = {
        "status": {"parameters": {"ttl_slots": 15, "mode": "basic", "admission": "none", "keys_ahead": 4}},
        "qcs": [
            {"qc": qc, "status": "ACTIVE", "enabled": i % 8 != 0, "qber_percent": 5.2 if i % 8 == 3 else 1.9}
            for qc, i in qcs
        ],
        "sessions": sessions, "refusals": [refused],
    }  # fmt: skip
    nodes = {name: Heard({"qcs": []}) for name in plan.nodes}
    nodes[plan.topology.nodes[1].name] = Heard(silent_s=9.0)
    return Snapshot(
        number=1, time=NOW, controller=Heard(told), nodes=nodes, fibres=fibres,
        curves={qc: tuple(Sample(n, 33 + 7 * n % 15, n % 15 and 40, 20, 300 + n) for n in range(150)) for qc, _ in qcs},
        figures=figures_of(plan, sessions), happenings=happenings_of(plan),
    )  # fmt: skip


def sessions_of(plan: Plan) -> list[dict[str, Any]]:
    """One between every two SAEs that follow one another, if they are at different datacenters."""
    network = nx.Graph([(link.a, link.b, {"qc": link.qcs[0].name}) for link in plan.topology.links])
    found = []
    for i, (one, other) in enumerate(itertools.pairwise(plan.saes)):
        path = nx.shortest_path(network, one.node, other.node)
        if len(path) > 1:
            found.append({
                "ksid": f"{i:08}-0000-4000-8000-000000000001", "master": one.name, "slave": other.name,
                "master_sae": one.id, "slave_sae": other.id, "state": "open", "mode": "basic", "path": path,
                "qcs": [network.edges[hop]["qc"] for hop in itertools.pairwise(path)], "implicit": False,
                "qos": {"key_size_bits": 128, "interval_s": 5.0}, "opened_at": 0.0, "interruption": None,
            })  # fmt: skip
    return found


def figures_of(plan: Plan, sessions: Sequence[dict[str, Any]]) -> Figures:
    """Of hundreds of keys for each session, and of one that did not come."""
    nodes = {sae.name: sae.node for sae in plan.saes}
    tally = Tally(lambda name: nodes.get(name, ""))
    for i, session in enumerate(sessions):
        pair = {"master": session["master"], "slave": session["slave"], "ksid": session["ksid"], "time": NOW - i}
        hops = len(session["path"]) - 1
        for key in range(5):
            tally.take({**pair, "event": "key_delivered", "key_ids": [f"{i:04}{key:04}-0000"] * 87, "hops": hops,
                        "node": session["path"][0], "duration_ms": 4.0 * hops + key})  # fmt: skip
        if not i:
            tally.take({**pair, "event": "key_failed", "cause": "short_of_material", "qc": session["qcs"][0],
                        "short_bytes": 16, "trace": "t2"})  # fmt: skip
    return tally.figures()


def happenings_of(plan: Plan) -> tuple[Happening, ...]:
    """One of each kind, some of them at nearly the same time; the latest a moment ago."""
    first, links = plan.topology.nodes[0].name, plan.topology.links
    past = [Happening(NOW - 500 + 9 * i, kind, f"{kind} in {first}") for i, kind in enumerate((*SIGNS, *SIGNS))]
    short = links[4].qcs[0].name if len(links) > 4 else ""
    return (
        *past, Happening(NOW - 2, FAILED, "tax-office → billing, no key: too little", (), short, "t2"),
        Happening(NOW - 1, REFUSED, "tax-office → billing refused: there is no path", (first,), story="t1"),
    )  # fmt: skip


def answer(plan: Plan, name: str, /, **_: Any) -> Any:
    """How fibres are shaped; whatever else is asked for: there is no network."""
    if name == "fibres":
        return [
            {"name": p.link.name, "directions": [p.link.a_to_b.to_json(), p.link.b_to_a.to_json()]} for p in plan.links
        ]
    raise UserError(f"no network runs that does {name}")


@contextlib.contextmanager
def served(*topologies: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Where the pages of these networks are, and what serves them."""
    command = [sys.executable, "-P", "-m", "tests.support.pages", *topologies]
    root = TOPOLOGIES.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process
        finally:
            process.kill()


def main(topologies: list[str]) -> None:
    """Serve until it is killed."""
    plans = {Path(name).stem: make_plan(load(name, TOPOLOGIES)) for name in topologies}
    app = FastAPI()

    @ui.page("/{name}")
    def page(name: str, look: str = "") -> None:
        plan = plans[name]
        watch: Any = SimpleNamespace(latest=made_up(plan), history=History())
        _Page(plan, functools.partial(answer, plan), watch, selected(plan, look))

    ui.run_with(app, show_welcome_message=False, tailwind=False, binding_refresh_interval=None)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])


if __name__ == "__main__":
    main(sys.argv[1:])
