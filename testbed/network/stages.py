"""How a network comes up: in stages, each of which returns the next one.

What a stage needs, the one before it has made, so nothing is ever half there. `Machine` has certificates, and can start
processes. `Fabric` has Mininet's hosts, switches and links. `Services` has what the network needs beside its nodes:
shared database, controller, delay line. The last one is the running network, `testbed.network.emulation.Emulation`.
Whatever a stage starts it also pushes on `down`, an ExitStack, in the order in which it is to be undone; so a network
that came up half way is taken down like any other one.

What runs where: a node and its datacenter's applications on each datacenter's host, the controller on `ctl`, the shared
database on `db`; switches, forwarder, QC emulators and this process in the root namespace of the run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from decisions.parameters import MODE
from mtls.authority import Authority
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from telemetry import bugs
from telemetry.journal import Journal
from testbed.audit import RECORDS, collected
from testbed.errors import UserError
from testbed.fibres.captures import Captures
from testbed.fibres.fibres import Fibres, MeasuredLink
from testbed.fibres.probe import wait_for_carrier
from testbed.fibres.shapers import NETEM, DelayLineControl, Netem, Shaper, find_shaper
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Processes, ProcessFailed
from testbed.machine.run_directory import RunDirectory
from testbed.network import expose
from testbed.network.emulation import Emulation
from testbed.network.expose import FILE, LOOPBACK, PROMETHEUS_FILE
from testbed.network.fabric import Network
from testbed.network.faults import Faults
from testbed.network.operator_calls import ControlRoom
from testbed.network.postgres import Cluster, ClusterError
from testbed.network.private_database import PrivateDatabase
from testbed.network.readiness import wait_until_ready
from testbed.network.shared_database import OwnDatabase, SharedDatabase, UserDatabase, members
from testbed.planning.capacity import needs
from testbed.planning.documents import SharedDatabaseAt
from testbed.planning.plan import (
    COMPONENTS,
    CONTROLLER,
    DATABASE,
    DATABASE_PORT,
    NOBODY,
    OPENFLOW_PORT,
    OPERATOR,
    Plan,
)
from testbed.quantum.devices import device_routes
from testbed.quantum.qc_keys import share_qc_key
from testbed.vpn.tunnels import Tunnels

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a network beyond its plan.

    `parameters`: of the controller, at the start. `seed`: of all QCs. `habits`: of the applications, see
    `Plan.sae_config`. `expose`: the first port of the machine at which servers can be reached, ANY_PORT for whatever is
    free, None for no port at all. `controller_python` runs the controller. `first_bytes`: key material that each QC has
    to have had before the network counts as up; None if nobody knows what will be asked for first.
    `policies`: those of the user's own, FILE.py:NAME by parameter.
    """

    parameters: Mapping[str, Any]
    seed: int | None = None
    habits: Mapping[str, str] = field(default_factory=dict)
    user_database: UserDatabase | None = None
    expose: int | None = None
    controller_python: str = sys.executable
    first_bytes: int | None = None
    policies: Mapping[str, str] = field(default_factory=dict)


def bring_up(
    plan: Plan, run: RunDirectory, wishes: Wishes, *, outside: int, say: Callable[[str], None],
    down: contextlib.ExitStack,
) -> Emulation:  # fmt: skip
    """The network of `plan` in run directory `run`, up; UserError if something does not come up.

    `outside` is the machine's own network namespace. Closing `down` takes down whatever is up.
    """
    try:
        return prepare(plan, run, wishes, outside=outside, say=say, down=down).build().serve().populate()
    except (ProcessFailed, ClusterError) as error:
        raise UserError(str(error)) from None


def prepare(
    plan: Plan, run: RunDirectory, wishes: Wishes, *, outside: int, say: Callable[[str], None],
    down: contextlib.ExitStack,
) -> Machine:  # fmt: skip
    """Stage one: certificates of all parties, and processes that import what they need."""
    _log_to(run.make("logs") / "run.log")
    processes = Processes(run.make("logs"), COMPONENTS)
    down.callback(processes.stop)
    processes.prepare()
    say("issuing certificates")
    authority = Authority(run.make("pki"))
    # Files are named as people know the party, so that a page can print them: an SAE by no random UUID.
    identities = {
        identity: authority.issue(
            identity, addresses=[plan.hosts[host].ip, LOOPBACK], stem=f"{identity.role}-{name}"
        )
        for identity, host, name in plan.identities()
    }
    return Machine(plan, run, wishes, outside, say, down, processes, identities, authority.ca_key)


@dataclass(frozen=True, slots=True)
class Machine:
    """What has been prepared. `identities`: the credentials of each party."""

    plan: Plan
    run: RunDirectory
    wishes: Wishes
    outside: int
    say: Callable[[str], None]
    down: contextlib.ExitStack
    processes: Processes
    identities: Mapping[Identity, Credentials]
    ca_key: Path

    def build(self) -> Fabric:
        """Stage two: hosts, switches, links; meanwhile, the files of the shared database. Then QCs begin."""
        database = self._database()
        self.say("starting Open vSwitch")
        datapath, shaper = OpenVSwitch(self.run.path / "ovs", self.processes).start(), find_shaper()
        self.say(
            f"building {len(self.plan.hosts)} hosts, {len(self.plan.switches)} switches (datapath {datapath}),"
            f" {len(self.plan.links)} links (shaped by {shaper})"
        )
        network = Network(self.plan, shaper=shaper, datapath=datapath)
        self.down.callback(network.stop)
        self.down.callback(self.processes.stop)  # all that is in the network, first
        network.build()
        self._start_qcs()
        self.run.write("hosts.json", {host: network.pid(host) for host in self.plan.hosts})
        return Fabric(self, network, shaper, datapath, database)

    def _start_qcs(self) -> None:
        """QCs make key material from here on, and keep it until their nodes are there."""
        for ends in self.plan.qc_keys(self.run.make("nodes")):
            share_qc_key(ends)
        self.processes.component("qcs", "testbed.quantum.qc_emulator", self.write_qcs())

    def write_qcs(
        self, broken: Collection[str] = (), off: Collection[str] = (), eve: Mapping[str, float] = NOBODY
    ) -> Path:
        """The file that tells the QC emulators which QCs are broken or off, and what is intercepted, by QC."""
        nodes, qcs = self.run.make("nodes"), self.run.make("qcs")
        document = self.plan.qc_config(qcs, nodes, seed=self.wishes.seed, broken=broken, off=off, eve=eve)
        return self.run.write("config/qcs.json", document)

    @property
    def outside_network(self) -> str:
        """The file of the machine's own network namespace, as this process (the run's first) holds it open."""
        return f"/proc/1/fd/{self.outside}"

    def _database(self) -> Callable[[Network], SharedDatabase]:
        """What gives the shared database, once its host is there."""
        ip = self.plan.hosts["db"].ip
        if self.wishes.user_database is not None:
            reached = self.wishes.user_database.reached_at(ip, outside=self.outside)
            return lambda _: reached
        cluster = Cluster(self.run.path / "db", self.identities[DATABASE])
        pool = ThreadPoolExecutor(1)
        self.down.callback(pool.shutdown)
        made = pool.submit(
            cluster.initialise, listen=ip, port=DATABASE_PORT, connections=needs(self.plan).connections,
            round_trip_s=self.plan.round_trip_s,
        )  # fmt: skip

        def serve(network: Network) -> SharedDatabase:
            made.result()
            server = PrivateDatabase(cluster, self.processes, network.enter("db"))
            server.start()
            found = OwnDatabase(server, ip, self.run.path, self.identities)
            cluster.create(found.schema)
            cluster.admit(found.schema, members(self.plan))
            return found

        return serve


@dataclass(frozen=True, slots=True)
class Fabric:
    """What has been built."""

    machine: Machine
    network: Network
    shaper: str
    datapath: str
    database: Callable[[Network], SharedDatabase]

    def serve(self) -> Services:
        """Stage three: delay line, database, controller and forwarder, at the same time; then links are measured."""
        machine, plan, run = self.machine, self.machine.plan, self.machine.run
        waiting = []
        shaper: Shaper = Netem()
        if self.shaper != NETEM:
            file = "config/delay-line.json"
            document = plan.delay_line_config(str(run.path / "config" / "delay-line-answer.json"))
            process = machine.processes.component(
                "delay-line", "testbed.fibres.delay_line", run.write(file, document),
                inside=self.network.delay_line_pid,
            )  # fmt: skip
            waiting.append(process)
            shaper = DelayLineControl(process, functools.partial(run.write, file), document)
        fibres = Fibres(plan, shaper, ttl_slots=machine.wishes.parameters["ttl_slots"])
        machine.say("starting controller and shared database")
        document = plan.controller_config(
            run.make("controller"), machine.identities[CONTROLLER], machine.wishes.parameters,
            machine.wishes.policies,
        )
        config = run.write("config/controller.json", document)
        waiting.append(
            machine.processes.component(
                "controller",
                "controller.__main__",
                config,
                inside=self.network.pid("ctl"),
                python=machine.wishes.controller_python,
            )
        )
        config = run.write("config/forwarder.json", {"routes": self._routes()})
        waiting.append(machine.processes.component("forwarder", "testbed.machine.forwarder", config))
        with ThreadPoolExecutor(1) as beside:
            database = beside.submit(self.database, self.network)
            for process in waiting:
                process.wait_ready()
            self.network.connect()
            machine.say("measuring the links")
            if dark := wait_for_carrier(self.network.fabric_ports()):
                raise ProcessFailed(f"no carrier on {', '.join(dark)}")
            links = fibres.check()  # beside PostgreSQL's work, which is one processor's
            return Services(self, fibres, database.result(), links)

    def inside(self, host: str) -> str:
        """The file of a host's network namespace."""
        return f"/proc/{self.network.pid(host)}/ns/net"

    def _routes(self) -> list[dict[str, Any]]:
        routes: list[dict[str, Any]] = [
            {"listen": ["/proc/1/ns/net", LOOPBACK, OPENFLOW_PORT],
             "connect": [self.inside("ctl"), LOOPBACK, OPENFLOW_PORT]},
        ]  # fmt: skip
        if (theirs := self.machine.wishes.user_database) is not None:
            routes.append(
                {"listen": [self.inside("db"), self.machine.plan.hosts["db"].ip, DATABASE_PORT],
                 "connect": [self.machine.outside_network, theirs.address, theirs.port]}
            )  # fmt: skip
        outside = self.machine.outside_network
        return routes + device_routes(
            self.machine.plan.topology, inside=self.inside, outside=outside, network=self.machine.outside
        )


@dataclass(frozen=True, slots=True)
class Services:
    """What serves the nodes."""

    fabric: Fabric
    fibres: Fibres
    database: SharedDatabase
    links: Sequence[MeasuredLink]

    def populate(self) -> Emulation:
        """Stage four: nodes and applications; the network, once it has key material."""
        fabric, machine = self.fabric, self.fabric.machine
        plan, run, processes, down = machine.plan, machine.run, machine.processes, machine.down
        faults = Faults(
            plan, processes, Journal(run.make("faults") / "journal.jsonl", "faults"),
            set_carrier=lambda link, up: fabric.network.set_carrier(link, up=up), break_qcs=self._break_qcs,
            database=self.database.breakable,
        )  # fmt: skip
        captures = Captures(plan, run, processes)
        down.callback(self._collect_records, faults)
        down.callback(captures.close)
        down.callback(processes.stop, "qcs", "sae", "node")
        control_room = ControlRoom(plan, machine.identities[OPERATOR], fabric.network.pid("ctl"))
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
        self._start_nodes(audit_secret)
        machine.say("waiting for switches, nodes and first key material")
        wait_until_ready(
            plan, processes, control_room, ttl_slots=machine.wishes.parameters["ttl_slots"],
            first_bytes=machine.wishes.first_bytes,
        )  # fmt: skip
        exposed = None if machine.wishes.expose is None else self._expose(machine.wishes.expose)
        return Emulation(
            plan, run, machine.outside, processes, fabric.network, fabric.shaper, fabric.datapath, self.fibres,
            self.links, self.database, control_room, faults, captures, tunnels, exposed, machine.identities,
        )  # fmt: skip

    def _start_nodes(self, audit_secret: str) -> None:
        machine, network = self.fabric.machine, self.fabric.network
        plan, run, processes = machine.plan, machine.run, machine.processes
        machine.say(f"starting {len(plan.nodes)} nodes and {len(plan.applications)} applications")
        waiting = []
        for node in plan.nodes:
            document = plan.node_config(
                node, run.make(f"nodes/{node}"), machine.identities[Identity(Role.NODE, node)],
                database=SharedDatabaseAt(self.database.node_url(node), self.database.schema),
                policies={name: own for name, own in machine.wishes.policies.items() if name == MODE.name},
            )  # fmt: skip
            config, there = run.write(f"config/node-{node}.json", document), network.pid(node)
            waiting.append(processes.component(f"node-{node}", "node.__main__", config, inside=there))
        for node in sorted({s.node for s in plan.applications}):
            credentials = {s.id: machine.identities[s.identity] for s in plan.applications if s.node == node}
            document = plan.sae_config(
                node, run.make(f"saes/{node}"), credentials, audit_secret=audit_secret, habits=machine.wishes.habits
            )
            config, there = run.write(f"config/sae-{node}.json", document), network.pid(node)
            waiting.append(processes.component(f"sae-{node}", "sae.__main__", config, inside=there))
        for process in [*waiting, processes.named("qcs")]:
            process.wait_ready()

    def _break_qcs(self, broken: Collection[str], off: Collection[str], eve: Mapping[str, float]) -> None:
        self.fabric.machine.write_qcs(broken, off, eve)
        self.fabric.machine.processes.named("qcs").signal(signal.SIGHUP)

    def _expose(self, first: int) -> Mapping[str, Any]:
        """Publish the servers, by a forwarder of their own: strangers' connections are not to slow down OpenFlow."""
        machine = self.fabric.machine
        report = machine.run.path / "config" / "exposed-ports.json"
        routes = expose.routes(machine.plan, first, outside=machine.outside_network, inside=self.fabric.inside)
        config = machine.run.write("config/exposure.json", {"routes": routes, "report": str(report)})
        machine.processes.component("exposure", "testbed.machine.forwarder", config).wait_ready()
        ports = json.loads(report.read_text())["ports"]
        exposed = expose.document(machine.plan, ports, machine.identities, ca_key=machine.ca_key)
        path = machine.run.write(FILE, exposed)
        machine.run.write(PROMETHEUS_FILE, expose.prometheus(exposed))  # JSON is YAML
        machine.say(f"exposed on {LOOPBACK}, controller at port {ports[0]}; all URLs are in {path}")
        return exposed

    def _collect_records(self, faults: Faults) -> None:
        """Write down what an audit needs, now that nothing changes any more."""
        machine = self.fabric.machine
        with contextlib.suppress(UserError):  # then there are no records, and that is said
            faults.heal_database()
        try:
            allocations, keys = self.database.allocations()
            meant = machine.plan.meant(machine.wishes.parameters["ttl_slots"])
            local = {node: machine.run.path / "nodes" / node / "local.db" for node in machine.plan.nodes}
            machine.run.write(RECORDS, collected.document(meant, local, allocations, keys))
        except (psycopg.Error, OSError) as error:
            said = " ".join(str(error).split()) or "no reason was given"
            machine.say(f"no audit: the run's records cannot be kept: {said}")


def _log_to(path: Path) -> None:
    """Have the file `path` tell of bugs in this process, whichever thread they strike: the terminal is the user's."""
    logging.basicConfig(
        filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.raiseExceptions = False  # a log that cannot be written is no news on the terminal
    threading.excepthook = _report


def _report(uncaught: threading.ExceptHookArgs) -> None:
    bugs.report(_log, f"thread {uncaught.thread.name if uncaught.thread else 'of no name'}", uncaught.exc_value)
