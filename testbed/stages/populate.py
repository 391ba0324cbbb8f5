"""Stage four of a network that comes up: nodes and applications."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import signal
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import psycopg

from decisions.parameters import MODE
from mtls.identity import Identity, Role
from telemetry.journal import Journal
from testbed.audit import RECORDS, collected
from testbed.database.postgres import ClusterError
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.errors import UserError
from testbed.fibres.captures import Captures
from testbed.network import expose
from testbed.network.emulation import Emulation
from testbed.network.expose import FILE, LOOPBACK, PROMETHEUS_FILE
from testbed.network.faults import Faults
from testbed.network.operator_calls import ControlRoom
from testbed.network.readiness import wait_until_ready
from testbed.planning.documents import SharedDatabaseAt
from testbed.planning.plan import OPERATOR
from testbed.stages.prepare import Machine
from testbed.stages.serve import Services
from testbed.vpn.tunnels import Tunnels


def populate(services: Services) -> Emulation:
    """Stage four: nodes and applications; the network, once it has key material."""
    fabric, machine = services.fabric, services.fabric.machine
    plan, run, processes, down = machine.plan, machine.run, machine.processes, machine.down
    control_room = ControlRoom(plan, machine.identities[OPERATOR], fabric.network.pid("ctl"))
    journal = Journal(run.make("faults") / "journal.jsonl", "faults")
    faults = Faults(
        plan, processes, journal,
        set_carrier=fabric.set_carrier,
        set_port=lambda host, up: fabric.network.set_port(host, up=up),
        break_qcs=functools.partial(_break_qcs, machine), database=services.database.breakable,
        leader=control_room.leader,
        kill_machine=None if fabric.fleet is None else fabric.fleet.kill,
    )  # fmt: skip
    captures = Captures(plan, run, processes)
    down.callback(_collect_records, services, faults)
    if isinstance(services.database.breakable, ReplicatedDatabase):
        down.callback(services.database.breakable.close)
        services.database.breakable.watch(journal)
    down.callback(captures.close)
    down.callback(processes.stop, "qcs", "sae", "node")
    down.callback(control_room.close)
    down.callback(processes.stop, "exposure")
    for name in (FILE, PROMETHEUS_FILE):
        down.callback((run.path / name).unlink, missing_ok=True)
    audit_secret = secrets.token_hex(32)
    tunnels = Tunnels(
        plan, run, processes, pid=fabric.network.pid, call=control_room.sae, identities=machine.identities,
        audit_secret=audit_secret,
    )  # fmt: skip
    down.callback(processes.stop, "vpn")
    _start_nodes(services, audit_secret)
    machine.say("waiting for switches, nodes and first key material")
    wait_until_ready(
        plan, processes, control_room, ttl_slots=machine.wishes.parameters["ttl_slots"],
        first_bytes=machine.wishes.first_bytes,
    )  # fmt: skip
    exposed = None if machine.wishes.expose is None else _expose(services, machine.wishes.expose)
    return Emulation(
        plan, run, machine.outside, processes, fabric.network, fabric.shaper, fabric.datapath, services.fibres,
        services.links, services.database, control_room, faults, captures, tunnels, exposed, machine.identities,
    )  # fmt: skip


def _start_nodes(services: Services, audit_secret: str) -> None:
    machine = services.fabric.machine
    plan, run, processes = machine.plan, machine.run, machine.processes
    machine.say(f"starting {len(plan.nodes)} nodes and {len(plan.applications)} applications")
    waiting = []
    for node in plan.nodes:
        document = plan.node_config(
            node, run.make(f"nodes/{node}"), machine.identities[Identity(Role.NODE, node)],
            database=SharedDatabaseAt(services.database.node_url(node), services.database.schema),
            policies={name: own for name, own in machine.wishes.policies.items() if name == MODE.name},
        )  # fmt: skip
        config, there = run.write(f"config/node-{node}.json", document), services.fabric.place(node)
        waiting.append(processes.component(f"node-{node}", "node.__main__", config, inside=there))
    for node in sorted({s.node for s in plan.applications}):
        credentials = {s.id: machine.identities[s.identity] for s in plan.applications if s.node == node}
        document = plan.sae_config(
            node, run.make(f"saes/{node}"), credentials, audit_secret=audit_secret, habits=machine.wishes.habits
        )
        config, there = run.write(f"config/sae-{node}.json", document), services.fabric.place(node)
        waiting.append(processes.component(f"sae-{node}", "sae.__main__", config, inside=there))
    for process in [*waiting, processes.named("qcs")]:
        process.wait_ready()


def _break_qcs(machine: Machine, broken: Collection[str], off: Collection[str], eve: Mapping[str, float]) -> None:
    machine.write_qcs(broken, off, eve)
    machine.processes.named("qcs").signal(signal.SIGHUP)


def _expose(services: Services, first: int) -> Mapping[str, Any]:
    """Publish the servers, by a forwarder of their own: strangers' connections are not to slow down OpenFlow."""
    machine = services.fabric.machine
    report = machine.run.path / "config" / "exposed-ports.json"
    routes = expose.routes(machine.plan, first, outside=machine.outside_network, inside=services.fabric.inside)
    config = machine.run.write("config/exposure.json", {"routes": routes, "report": str(report)})
    machine.processes.component("exposure", "testbed.machine.forwarder", config).wait_ready()
    ports = json.loads(report.read_text())["ports"]
    exposed = expose.document(machine.plan, ports, machine.identities, ca_key=machine.ca_key)
    path = machine.run.write(FILE, exposed)
    machine.run.write(PROMETHEUS_FILE, expose.prometheus(exposed))  # JSON is YAML
    machine.say(f"exposed on {LOOPBACK}, controller at port {ports[0]}; all URLs are in {path}")
    return exposed


def _collect_records(services: Services, faults: Faults) -> None:
    """Write down what an audit needs, now that nothing changes any more."""
    machine = services.fabric.machine
    with contextlib.suppress(UserError):  # then there are no records, and that is said
        faults.heal_database()
    fleet = services.fabric.fleet
    try:
        for why in [] if fleet is None else fleet.finish():
            machine.say(f"results are missing: {why}")
        allocations, keys = services.database.allocations()
        meant = machine.plan.meant(machine.wishes.parameters["ttl_slots"])
        if isinstance(services.database.breakable, ReplicatedDatabase):
            meant = replace(meant, switches=services.database.breakable.lossy_switches)
        local = {node: machine.run.path / "nodes" / node / "local.db" for node in machine.plan.nodes}
        machine.run.write(RECORDS, collected.document(meant, local, allocations, keys))
    except (psycopg.Error, OSError, ClusterError) as error:
        said = " ".join(str(error).split()) or "no reason was given"
        machine.say(f"no audit: the run's records cannot be kept: {said}")
