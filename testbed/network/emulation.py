"""A running QKD network: everything that a plan needs, brought up in order, watched, and taken down.

What runs where: a node and its datacenter's applications on each datacenter's host, the controller on `ctl`, the
shared database on `db`; switches, forwarder, QC emulators and this process in the root namespace of the run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psycopg

from etsi.gs004 import QoS
from mtls.authority import Authority
from mtls.call import Reply, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.material.shared_db import read_allocations
from telemetry import bugs
from telemetry.journal import Journal
from testbed.audit import RECORDS, collected
from testbed.errors import UserError
from testbed.fibres.captures import Captures
from testbed.fibres.fibres import Fibres, MeasuredLink
from testbed.fibres.probe import wait_for_carrier
from testbed.fibres.shapers import NETEM, DelayLineControl, Netem, Shaper, find_shaper
from testbed.machine.namespaces import call_in_network
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Process, Processes, ProcessFailed
from testbed.machine.run_directory import RunDirectory
from testbed.network import expose
from testbed.network.expose import FILE, LOOPBACK
from testbed.network.fabric import Network
from testbed.network.faults import Faults
from testbed.network.operator_calls import ControlRoom
from testbed.network.postgres import Cluster, ClusterError, node_url
from testbed.network.private_database import PrivateDatabase
from testbed.network.shared_database import UserDatabase, members
from testbed.planning.capacity import needs
from testbed.planning.plan import (
    COMPONENTS,
    CONTROLLER,
    DATABASE,
    DATABASE_PORT,
    OPENFLOW_PORT,
    OPERATOR,
    Plan,
    SaePlan,
)
from testbed.quantum.qc_keys import share_qc_key

_log = logging.getLogger(__name__)
_REGISTRATION_S, _REGISTRATION_S_A_NODE = 60.0, 1.0
# Processes that wait for a processor, by which a machine is not slow but overloaded.
_OVERLOAD_A_PROCESSOR = 5
# Material to begin with, so that the first keys of many applications at once do not fail for want of it.
_FIRST_SLOTS = 3
DEFAULT_QOS = QoS()


class Emulation:
    """The network of `plan` in run directory `run`; `outside` is the machine's own network namespace.

    `expose` is the first port of that one at which servers can be reached, ANY_PORT for whatever is free, None for no
    port at all. `habits`: of the applications, see `Plan.sae_config`. `controller_python` runs the controller.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunDirectory,
        *,
        outside: int,
        parameters: Mapping[str, Any],
        seed: int | None,
        user_database: UserDatabase | None,
        say: Callable[[str], None],
        expose: int | None = None,
        habits: Mapping[str, str] | None = None,
        controller_python: str = sys.executable,
    ) -> None:
        self.plan = plan
        self.run = run
        self._folder = os.open(run.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.links: list[MeasuredLink] = []
        self.shaper = ""
        self.datapath = ""
        self.processes = Processes(run.make("logs"), COMPONENTS)
        self.faults = Faults(
            plan, self.processes, Journal(run.make("faults") / "journal.jsonl", "faults"),
            network=lambda: self.network, break_qcs=self._break_qcs, database=lambda: self._database,
        )  # fmt: skip
        self.captures = Captures(plan, run, self.processes)
        self._parameters = parameters
        self._seed = seed
        self.outside = outside
        self._user_database = user_database
        self._say = say
        self._expose = expose
        self._habits = habits or {}
        self._controller_python = controller_python
        self.exposed: Mapping[str, Any] | None = None  # what expose.json says
        self._network: Network | None = None
        self._fibres: Fibres | None = None
        self._database: PrivateDatabase | None = None
        self._control_room: ControlRoom | None = None
        self._credentials: dict[Identity, Credentials] = {}

    @property
    def network(self) -> Network:
        """The Mininet network, once it is up."""
        assert self._network is not None  # noqa: S101 - start() came first
        return self._network

    @property
    def fibres(self) -> Fibres:
        """The links as they are shaped now, once the network is up."""
        assert self._fibres is not None  # noqa: S101 - start() came first
        return self._fibres

    @property
    def control_room(self) -> ControlRoom:
        """The operator's desk, once the network is up."""
        assert self._control_room is not None  # noqa: S101 - start() came first
        return self._control_room

    def start(self) -> None:
        """Bring everything up; UserError if something does not come up."""
        _log_to(self.run.make("logs") / "run.log")
        try:
            self.processes.prepare()
            self._say("issuing certificates")
            authority = Authority(self.run.make("pki"))
            for identity, host, name in self.plan.identities():
                # Files are named as people know the party, so that a page can print them: an SAE by no random UUID.
                self._credentials[identity] = authority.issue(
                    identity, addresses=[self.plan.hosts[host].ip, LOOPBACK], stem=f"{identity.role}-{name}"
                )
            self._start_network()
            self._start_services()
            self._measure_links()
            self._start_nodes()
            if self._expose is not None:
                self._start_exposure(self._expose, authority.ca_key)
        except (ProcessFailed, ClusterError) as error:
            raise UserError(str(error)) from None

    def stop(self) -> None:
        """Take everything down, whatever of it is up."""
        (self.run.path / FILE).unlink(missing_ok=True)
        self.processes.stop("exposure")
        if self._control_room is not None:
            self._control_room.close()
        self.processes.stop("qcs", "sae", "node")
        self.captures.close()
        if self.links:  # the network was up
            with contextlib.suppress(UserError):  # then there are no records, and that is said
                self.faults.heal_database()
            self._collect_records()
        self.processes.stop()
        if self._network is not None:
            self._network.stop()

    def credentials(self, identity: Identity) -> Credentials:
        """The certificate and key that this run issued to `identity`."""
        return self._credentials[identity]

    def connect_database(self, node: str) -> psycopg.Connection[Any]:
        """A connection to the private cluster as `node` makes it, with a scratch table `bare`, for benchmarks."""
        assert self._database is not None  # noqa: S101 - benchmarks use no other
        with self._database.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
            admin.execute("CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY, start_at bigint, end_at bigint)")
            admin.execute("GRANT INSERT ON bare TO qkd_node; GRANT USAGE ON SCHEMA public TO qkd_node")
        return psycopg.connect(self._database_url(node), autocommit=True)

    def open_session(
        self, master: SaePlan, slave: SaePlan, qos: QoS = DEFAULT_QOS, duration_s: float | None = None
    ) -> Future[Reply]:
        """Have application `master` open a key session with `slave`, which ends after `duration_s` if that is given."""
        wanted = {"peer": slave.id, "qos": qos.to_json(), "duration_s": duration_s}
        return self.control_room.sae(master, "POST", "/sae/v1/sessions", wanted)

    def dead(self) -> list[Process]:
        """Processes that ended on their own."""
        return self.processes.dead()

    def versions(self) -> dict[str, str]:
        """Versions of what a measurement may depend on."""
        # What the controller itself says that it runs on: it may have an environment of its own.
        framework = str(self.control_room.controller("GET", "/qkd/v1/status").body["framework"])
        packages = ("qkd-testbed", "mininet", "Flask", "networkx", "cryptography")
        found = {name: importlib.metadata.version(name) for name in packages}
        switch = subprocess.run(["ovs-vsctl", "--version"], capture_output=True, text=True, check=False).stdout
        database = self._user_database.url if self._user_database else ""
        return {
            **found,
            **dict([framework.split(" ")]),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "open_vswitch": switch.splitlines()[0].rpartition(" ")[2] if switch else "unknown",
            "postgresql": "the user's" if database else Cluster.version(),
        }

    def _collect_records(self) -> None:
        """Write down what an audit needs, now that nothing changes any more."""
        try:
            if self._user_database is not None:
                url = self._user_database.url
                # That server lives in the machine's own network.
                allocations, keys = call_in_network(self.outside, lambda: read_allocations(url, self._schema))
            else:
                assert self._database is not None  # noqa: S101 - the network was up
                with self._database.cluster.admin_url() as url:
                    allocations, keys = read_allocations(url, self._schema)
            meant = self.plan.meant(self._parameters["ttl_slots"])
            local = {node: self.run.path / "nodes" / node / "local.db" for node in self.plan.nodes}
            self.run.write(RECORDS, collected.document(meant, local, allocations, keys))
        except (psycopg.Error, OSError) as error:
            said = " ".join(str(error).split()) or "no reason was given"
            self._say(f"no audit: the run's records cannot be kept: {said}")

    def _start_network(self) -> None:
        self._say("starting Open vSwitch")
        self.datapath = OpenVSwitch(self.run.path / "ovs", self.processes).start()
        self.shaper = find_shaper()
        self._say(
            f"building {len(self.plan.hosts)} hosts, {len(self.plan.switches)} switches (datapath {self.datapath}),"
            f" {len(self.plan.links)} links (shaped by {self.shaper})"
        )
        self._network = Network(self.plan, shaper=self.shaper, datapath=self.datapath)
        self._network.build()
        pids = {host: self._network.pid(host) for host in self.plan.hosts}
        self.run.write("hosts.json", pids)

    def _start_services(self) -> None:
        """Delay line, database, controller and forwarder, at the same time."""
        waiting = []
        shaper: Shaper = Netem()
        if self.shaper != NETEM:
            file = "config/delay-line.json"
            document = self.plan.delay_line_config(str(self.run.path / "config" / "delay-line-answer.json"))
            process = self.processes.component(
                "delay-line", "testbed.fibres.delay_line", self.run.write(file, document),
                inside=self.network.delay_line_pid,
            )  # fmt: skip
            waiting.append(process)
            shaper = DelayLineControl(process, functools.partial(self.run.write, file), document)
        self._fibres = Fibres(self.plan, shaper, ttl_slots=self._parameters["ttl_slots"])
        self._say("starting controller and shared database")
        document = self.plan.controller_config(
            self.run.make("controller"), self._credentials[CONTROLLER], self._parameters
        )
        config = self.run.write("config/controller.json", document)
        waiting.append(
            self.processes.component(
                "controller",
                "controller.__main__",
                config,
                inside=self.network.pid("ctl"),
                python=self._controller_python,
            )
        )
        config = self.run.write("config/forwarder.json", {"routes": self._routes()})
        waiting.append(self.processes.component("forwarder", "testbed.machine.forwarder", config))
        self._start_database()
        for process in waiting:
            process.wait_ready()
        self._control_room = ControlRoom(self.plan, self._credentials[OPERATOR], self.network.pid("ctl"))

    def _routes(self) -> list[dict[str, Any]]:
        routes: list[dict[str, Any]] = [
            {"listen": ["/proc/1/ns/net", LOOPBACK, OPENFLOW_PORT],
             "connect": [self._inside("ctl"), LOOPBACK, OPENFLOW_PORT]},
        ]  # fmt: skip
        if self._user_database is not None:
            routes.append(
                {"listen": [self._inside("db"), self.plan.hosts["db"].ip, DATABASE_PORT],
                 "connect": [self._outside_file, self._user_database.address, self._user_database.port]}
            )  # fmt: skip
        return routes

    def _inside(self, host: str) -> str:
        """The file of a host's network namespace."""
        return f"/proc/{self.network.pid(host)}/ns/net"

    @property
    def _outside_file(self) -> str:
        """The file of the machine's own network namespace, as this process (the run's first) holds it open."""
        return f"/proc/1/fd/{self.outside}"

    def _start_exposure(self, first: int, ca_key: Path) -> None:
        """Publish the servers, by a forwarder of their own: strangers' connections are not to slow down OpenFlow."""
        report = self.run.path / "config" / "exposed-ports.json"
        routes = expose.routes(self.plan, first, outside=self._outside_file, inside=self._inside)
        config = self.run.write("config/exposure.json", {"routes": routes, "report": str(report)})
        self.processes.component("exposure", "testbed.machine.forwarder", config).wait_ready()
        ports = json.loads(report.read_text())["ports"]
        self.exposed = expose.document(self.plan, ports, self._credentials, ca_key=ca_key)
        path = self.run.write(FILE, self.exposed)
        self._say(f"exposed on {LOOPBACK}, controller at port {ports[0]}; all URLs are in {path}")

    def _start_database(self) -> None:
        if self._user_database is not None:
            return
        cluster = Cluster(self.run.path / "db", self._credentials[DATABASE])
        cluster.initialise(
            listen=self.plan.hosts["db"].ip, port=DATABASE_PORT, connections=needs(self.plan).connections,
            round_trip_s=self.plan.round_trip_s,
        )  # fmt: skip
        self._database = PrivateDatabase(cluster, self.processes, self.network.enter("db"))
        self._database.start()
        cluster.create(self._schema)
        cluster.admit(self._schema, members(self.plan))

    @property
    def _schema(self) -> str:
        return self._user_database.schema if self._user_database is not None else "qkd"

    def _database_url(self, node: str) -> str:
        ip = self.plan.hosts["db"].ip
        if self._user_database is not None:
            return self._user_database.node_url(ip)
        given = self._credentials[Identity(Role.NODE, node)]
        # libpq takes a colon in a key's path for the name of a cryptographic engine: by way of the folder's descriptor,
        # which this process (the run's first) holds open, no character of the run directory's path matters.
        folder = Path(f"/proc/1/fd/{self._folder}")
        certificate, key, ca = (folder / p.relative_to(self.run.path) for p in (given.certificate, given.key, given.ca))
        return node_url(node, Credentials(certificate, key, ca), DATABASE, ip, DATABASE_PORT)

    def _measure_links(self) -> None:
        self._say("measuring the links")
        down = wait_for_carrier(self.network.fabric_ports())
        if down:
            raise ProcessFailed(f"no carrier on {', '.join(down)}")
        self.links = self.fibres.check()

    def _start_nodes(self) -> None:
        self._say(f"starting {len(self.plan.nodes)} nodes and {len(self.plan.applications)} applications")
        audit_secret = secrets.token_hex(32)
        for ends in self.plan.qc_keys(self.run.make("nodes")):
            share_qc_key(ends)
        waiting = []
        for node in self.plan.nodes:
            document = self.plan.node_config(
                node, self.run.make(f"nodes/{node}"), self._credentials[Identity(Role.NODE, node)],
                database_url=self._database_url(node), schema=self._schema,
            )  # fmt: skip
            config = self.run.write(f"config/node-{node}.json", document)
            waiting.append(
                self.processes.component(f"node-{node}", "node.__main__", config, inside=self.network.pid(node))
            )
        for node in sorted({s.node for s in self.plan.applications}):
            credentials = {s.id: self._credentials[s.identity] for s in self.plan.applications if s.node == node}
            document = self.plan.sae_config(
                node, self.run.make(f"saes/{node}"), credentials, audit_secret=audit_secret, habits=self._habits
            )
            config = self.run.write(f"config/sae-{node}.json", document)
            there = self.network.pid(node)
            waiting.append(self.processes.component(f"sae-{node}", "sae.__main__", config, inside=there))
        config = self._write_qcs()
        waiting.append(self.processes.component("qcs", "testbed.quantum.qc_emulator", config))
        for process in waiting:
            process.wait_ready()
        self._wait_for_registration()

    def _write_qcs(self, broken: Collection[str] = (), off: Collection[str] = ()) -> Path:
        nodes, qcs = self.run.make("nodes"), self.run.make("qcs")
        document = self.plan.qc_config(qcs, nodes, seed=self._seed, broken=broken, off=off)
        return self.run.write("config/qcs.json", document)

    def _break_qcs(self, broken: Collection[str], off: Collection[str]) -> None:
        self._write_qcs(broken, off)
        self.processes.named("qcs").signal(signal.SIGHUP)

    def _wait_for_registration(self) -> None:
        """Return when the controller knows all switches, all nodes are in the database, and all QCs have material."""
        self._say("waiting for switches, nodes and first key material")
        within_s = _REGISTRATION_S + _REGISTRATION_S_A_NODE * len(self.plan.nodes)
        deadline = time.monotonic() + within_s
        lacking = "the controller does not answer"
        # Of each QC, what it is to have shown at one time or another: with a short TTL it does not keep it.
        slots = max(1, min(_FIRST_SLOTS, self._parameters["ttl_slots"] - 1))
        awaited = {qc.name: slots * qc.low_bytes_per_slot for link in self.plan.topology.links for qc in link.qcs}
        outside = set(self.plan.nodes)  # of the database, as far as is known
        while lacking:
            for process in self.dead():
                raise ProcessFailed(f"{process.name} ended: {process.last_words()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"after {within_s:g} s {lacking}{_overload()}")
            time.sleep(0.1)
            with contextlib.suppress(Unreachable):
                lacking = self._lacking(awaited, outside, deadline)

    def _lacking(self, awaited: dict[str, int], outside: set[str], deadline: float) -> str:
        """What is not there yet, "" if nothing; takes out of `awaited` and `outside` what has come.

        Looks no further when the monotonic clock says `deadline`.
        """
        status = self.control_room.controller("GET", "/qkd/v1/status").body
        missing = [s for s in self.plan.switches.values() if s not in status["switches"]]
        if missing:
            return f"the controller still lacks switches {', '.join(missing)}"
        missing = [n for n in self.plan.nodes if n not in status["nodes"]]
        if missing:
            said = self.processes.named("controller").end_of_log()
            return f"the controller still lacks nodes {', '.join(missing)}; it says: {said}"
        for node in sorted(outside):
            if time.monotonic() > deadline:
                break
            if self.control_room.agent(node, "GET", "/qkd/v1/status").body["in_database"]:
                outside.remove(node)
        if outside:
            one = min(outside)
            said = self.processes.named(f"node-{one}").end_of_log()
            return f"nodes {', '.join(sorted(outside))} do not reach the shared database; {one}: {said}"
        links = {q["qc"]: q for q in self.control_room.controller("GET", "/qkd/v1/links").body["links"]}
        for qc in [qc for qc, n_bytes in awaited.items() if links.get(qc, {}).get("stored_bytes", -1) >= n_bytes]:
            del awaited[qc]
        return f"there is too little key material on {', '.join(awaited)}" if awaited else ""


def _overload() -> str:
    """Words on a machine that has too few processors for what it runs; none on another."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load < _OVERLOAD_A_PROCESSOR * processors:
        return ""
    return f"; the machine is overloaded ({load:.0f} processes want its {processors} processors): use a smaller network"


def _log_to(path: Path) -> None:
    """Have the file `path` tell of bugs in this process, whichever thread they strike: the terminal is the user's."""
    logging.basicConfig(
        filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.raiseExceptions = False  # a log that cannot be written is no news on the terminal
    threading.excepthook = _report


def _report(uncaught: threading.ExceptHookArgs) -> None:
    bugs.report(_log, f"thread {uncaught.thread.name if uncaught.thread else 'of no name'}", uncaught.exc_value)
