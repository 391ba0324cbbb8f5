"""Stage two of a network that comes up: hosts, switches and links, and QCs that begin."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mtls.authority import Authority
from mtls.identity import Identity, Role
from testbed.database import controllers
from testbed.database.patroni import Host
from testbed.database.postgres import Cluster
from testbed.database.private_database import PrivateDatabase
from testbed.database.replicated_database import ReplicatedDatabase
from testbed.database.shared_database import OwnDatabase, SharedDatabase, members
from testbed.fibres.shapers import find_shaper
from testbed.machine.namespaces import call_in_network, network_of
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Place
from testbed.network.fabric import Network
from testbed.planning.capacity import needs
from testbed.planning.databases import HA, SINGLE
from testbed.planning.plan import DATABASE, DATABASE_PORT, LinkPlan, Plan
from testbed.planning.shares import whole
from testbed.quantum.qc_keys import share_qc_key
from testbed.stages.prepare import Machine
from testbed.workers.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Fabric:
    """What has been built."""

    machine: Machine
    network: Network
    shaper: str
    datapath: str
    database: Callable[[Network], SharedDatabase]
    fleet: Fleet | None  # if there are other machines

    def inside(self, host: str) -> str:
        """The file of a host's network namespace."""
        return f"/proc/{self.network.pid(host)}/ns/net"

    def place(self, node: str) -> int | Place:
        """Where components of a datacenter run: a process in its host's namespaces, or another machine."""
        far = None if self.fleet is None else self.fleet.place(node)
        return self.network.pid(node) if far is None else far

    def set_carrier(self, link: LinkPlan, up: bool) -> None:
        """Cut a fibre, or join it, wherever its ends are."""
        self.network.set_carrier(link, up=up)
        if self.fleet is not None:
            self.fleet.set_carrier(link, up=up)


def build(machine: Machine) -> Fabric:
    """Stage two: hosts, switches, links; meanwhile, the files of the shared database. Then QCs begin."""
    database = _database(machine)
    machine.say("starting Open vSwitch")
    datapath, shaper = OpenVSwitch(machine.run.path / "ovs", machine.processes).start(), find_shaper()
    fleet = _assembled(machine, shaper)
    shaper = shaper if fleet is None else fleet.kind
    machine.say(
        f"building {len(machine.plan.hosts)} hosts, {len(machine.plan.switches)} switches (datapath {datapath}),"
        f" {len(machine.plan.links)} links (shaped by {shaper})"
    )
    share, addresses = (whole(machine.plan), {}) if fleet is None else (fleet.home, fleet.addresses)
    network = Network(share, shaper=shaper, datapath=datapath, addresses=addresses)
    machine.down.callback(network.stop)
    machine.down.callback(machine.processes.stop)  # all that is in the network, first
    with ThreadPoolExecutor(1) as beside:
        if fleet is not None:
            machine.down.callback(fleet.close)
            elsewhere = beside.submit(fleet.build)
        network.build()
        if fleet is not None:
            elsewhere.result()
    _start_qcs(machine)
    if fleet is not None:
        fleet.start_passages(machine.identities)
    machine.run.write("hosts.json", {host: network.pid(host) for host in share.hosts})
    return Fabric(machine, network, shaper, datapath, database, fleet)


def _assembled(machine: Machine, shaper: str) -> Fleet | None:
    """The machines that a network has beside this one, joined with it; None if there are none."""
    machines = machine.plan.topology.machines
    if not machines:
        return None
    machine.say(f"reaching {', '.join(each.name for each in machines)}")
    fleet = Fleet(machine.plan, machine.run, machine.processes, outside=machine.outside_network)
    fleet.assemble(shaper)
    return fleet


def _start_qcs(machine: Machine) -> None:
    """QCs make key material from here on, and keep it until their nodes are there."""
    for ends in machine.plan.qc_keys(machine.run.make("nodes")):
        share_qc_key(ends)
    machine.processes.component("qcs", "testbed.quantum.qc_emulator", machine.write_qcs())


def _database(machine: Machine) -> Callable[[Network], SharedDatabase]:
    """What gives the shared database, once its host is there."""
    ip = machine.plan.hosts["db"].ip
    if machine.wishes.user_database is not None:
        reached = machine.wishes.user_database.reached_at(ip, outside=machine.outside)
        return lambda _: reached
    if machine.plan.database != SINGLE:
        return _replicated(machine)
    cluster = Cluster(machine.run.path / "db", machine.identities[DATABASE])
    pool = ThreadPoolExecutor(1)
    machine.down.callback(pool.shutdown)
    made = pool.submit(
        cluster.initialise, listen=ip, port=DATABASE_PORT, connections=needs(machine.plan).connections,
        round_trip_s=machine.plan.round_trip_s,
    )  # fmt: skip

    def serve(network: Network) -> SharedDatabase:
        made.result()
        server = PrivateDatabase(cluster, machine.processes, network.enter("db"))
        server.start()
        cluster.create(OwnDatabase.schema)
        cluster.admit(OwnDatabase.schema, members(machine.plan))
        _admit_controllers(machine.plan, cluster)
        return OwnDatabase(server, machine.plan.database_servers, machine.run.path, machine.identities)

    return serve


def _replicated(machine: Machine) -> Callable[[Network], SharedDatabase]:
    """The same of a database that fails over."""
    plan, folder = machine.plan, machine.run.path / "db"
    addresses = {name: plan.hosts[name].ip for name in plan.database_hosts}
    inner = Authority(machine.run.make("pki") / "database", name="QKD testbed's database")
    hosts = []
    for name, address in addresses.items():
        identity = Identity(Role.DATABASE, name)
        own, among = machine.identities[identity], inner.issue(identity, addresses=[address])
        hosts.append(Host(folder, name, address, own, among))
    pool = ThreadPoolExecutor(1)
    machine.down.callback(pool.shutdown)

    def prepare() -> None:
        for host in hosts:
            host.prepare(
                addresses, port=DATABASE_PORT, connections=needs(plan).connections, round_trip_s=plan.round_trip_s,
                waits=plan.database == HA, first=host is hosts[0],
            )  # fmt: skip

    made = pool.submit(prepare)

    def serve(network: Network) -> SharedDatabase:
        made.result()

        def on(name: str, step: Callable[[], bool]) -> bool:
            fd = network_of(network.pid(name))
            try:
                return call_in_network(fd, step)
            finally:
                os.close(fd)

        database = ReplicatedDatabase(hosts, machine.processes, enter=network.enter, on=on, waits=plan.database == HA)
        database.start(OwnDatabase.schema, members(plan))
        _admit_controllers(plan, database.cluster)
        return OwnDatabase(database, plan.database_servers, machine.run.path, machine.identities)

    return serve


def _admit_controllers(plan: Plan, cluster: Cluster) -> None:
    """Let controllers into the shared database, where there are several."""
    if len(plan.controllers) > 1:
        names = [each.name for each in plan.controllers]
        controllers.admit(cluster, OwnDatabase.schema, names, round_trip_s=plan.round_trip_s)
