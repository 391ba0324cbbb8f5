"""Stage two of a network that comes up: hosts, switches and links, and QCs that begin."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.database import controllers
from testbed.database.postgres import Cluster
from testbed.database.private_database import PrivateDatabase
from testbed.database.shared_database import OwnDatabase, SharedDatabase, members
from testbed.fibres.shapers import find_shaper
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Place
from testbed.network.fabric import Network
from testbed.planning.capacity import needs
from testbed.planning.plan import DATABASE, DATABASE_PORT, LinkPlan
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
        found = OwnDatabase(server, ip, machine.run.path, machine.identities)
        cluster.create(found.schema)
        cluster.admit(found.schema, members(machine.plan))
        if len(machine.plan.controllers) > 1:
            names = [each.name for each in machine.plan.controllers]
            controllers.admit(cluster, found.schema, names, round_trip_s=machine.plan.round_trip_s)
        return found

    return serve
