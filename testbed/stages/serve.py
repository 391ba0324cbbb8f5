"""Stage three of a network that comes up: what serves the nodes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mtls.identity import Identity
from scenario.machines import HOME
from testbed.database.shared_database import SharedDatabase, controller_store
from testbed.fibres.fibres import Fibres, MeasuredLink
from testbed.fibres.probe import wait_for_carrier
from testbed.fibres.shapers import NETEM, DelayLineControl, Netem, Shaper
from testbed.machine.processes import Process, ProcessFailed
from testbed.network.expose import LOOPBACK
from testbed.planning.plan import DATABASE_PORT, OPENFLOW_PORT, delay_lines, process_of
from testbed.quantum.devices import device_routes
from testbed.stages.build import Fabric


@dataclass(frozen=True, slots=True)
class Services:
    """What serves the nodes."""

    fabric: Fabric
    fibres: Fibres
    database: SharedDatabase
    links: Sequence[MeasuredLink]


def serve(fabric: Fabric) -> Services:
    """Stage three: delay line, database, controller and forwarder, at the same time; then links are measured."""
    machine, plan, run = fabric.machine, fabric.machine.plan, fabric.machine.run
    waiting = []
    shaper: Shaper = Netem()
    if fabric.shaper != NETEM:
        file = "config/delay-line.json"
        document = delay_lines(fabric.network.plan.lines, str(run.path / "config" / "delay-line-answer.json"))
        process = machine.processes.component(
            "delay-line", "testbed.fibres.delay_line", run.write(file, document),
            inside=fabric.network.delay_line_pid,
        )  # fmt: skip
        waiting.append(process)
        shaper = DelayLineControl(process, functools.partial(run.write, file), document)
    fleet = fabric.fleet
    shaper = shaper if fleet is None else fleet.shape_by(shaper)
    fibres = Fibres(plan, shaper, ttl_slots=machine.wishes.parameters["ttl_slots"], ends=fleet)
    machine.say("starting controller and shared database")
    waiting += [_start_controller(fabric, each) for each in plan.controllers]
    config = run.write("config/forwarder.json", {"routes": _routes(fabric)})
    waiting.append(machine.processes.component("forwarder", "testbed.machine.forwarder", config))
    with ThreadPoolExecutor(1) as beside:
        database = beside.submit(fabric.database, fabric.network)
        for process in waiting:
            process.wait_ready()
        fabric.network.connect(LOOPBACK, plan.openflow_ports)
        if fleet is not None:
            fleet.connect()
        machine.say("measuring the links")
        if dark := wait_for_carrier(fabric.network.fabric_ports()):
            raise ProcessFailed(f"no carrier on {', '.join(dark)}")
        links = fibres.check()  # beside PostgreSQL's work, which is one processor's
        return Services(fabric, fibres, database.result(), links)


def _start_controller(fabric: Fabric, controller: Identity) -> Process:
    machine, plan, run = fabric.machine, fabric.machine.plan, fabric.machine.run
    credentials, name = machine.identities[controller], process_of(controller.name)
    store = None
    if len(plan.controllers) > 1:
        theirs = machine.wishes.user_database
        store = controller_store(plan, run.path, credentials, controller.name, theirs)
    document = plan.controller_config(
        controller.name, run.make(name), credentials, machine.wishes.parameters, machine.wishes.policies, store=store
    )
    return machine.processes.component(
        name, "controller.__main__", run.write(f"config/{name}.json", document),
        inside=fabric.network.pid(controller.name), python=machine.wishes.controller_python,
    )  # fmt: skip


def _routes(fabric: Fabric) -> list[dict[str, Any]]:
    plan = fabric.machine.plan
    switches_at = [LOOPBACK] if fabric.fleet is None else [LOOPBACK, fabric.fleet.addresses[HOME]]
    routes: list[dict[str, Any]] = [
        {"listen": ["/proc/1/ns/net", address, port],
         "connect": [fabric.inside(controller.name), LOOPBACK, OPENFLOW_PORT]}
        for address in switches_at for port, controller in zip(plan.openflow_ports, plan.controllers, strict=True)
    ]  # fmt: skip
    if (theirs := fabric.machine.wishes.user_database) is not None:
        routes.append(
            {"listen": [fabric.inside("db"), plan.hosts["db"].ip, DATABASE_PORT],
             "connect": [fabric.machine.outside_network, theirs.address, theirs.port]}
        )  # fmt: skip
    outside = fabric.machine.outside_network
    return routes + device_routes(
        plan.topology, inside=fabric.inside, outside=outside, network=fabric.machine.outside
    )
