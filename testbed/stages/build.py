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
from testbed.network.fabric import Network
from testbed.planning.capacity import needs
from testbed.planning.plan import DATABASE, DATABASE_PORT
from testbed.quantum.qc_keys import share_qc_key
from testbed.stages.prepare import Machine


@dataclass(frozen=True, slots=True)
class Fabric:
    """What has been built."""

    machine: Machine
    network: Network
    shaper: str
    datapath: str
    database: Callable[[Network], SharedDatabase]

    def inside(self, host: str) -> str:
        """The file of a host's network namespace."""
        return f"/proc/{self.network.pid(host)}/ns/net"


def build(machine: Machine) -> Fabric:
    """Stage two: hosts, switches, links; meanwhile, the files of the shared database. Then QCs begin."""
    database = _database(machine)
    machine.say("starting Open vSwitch")
    datapath, shaper = OpenVSwitch(machine.run.path / "ovs", machine.processes).start(), find_shaper()
    machine.say(
        f"building {len(machine.plan.hosts)} hosts, {len(machine.plan.switches)} switches (datapath {datapath}),"
        f" {len(machine.plan.links)} links (shaped by {shaper})"
    )
    network = Network(machine.plan, shaper=shaper, datapath=datapath)
    machine.down.callback(network.stop)
    machine.down.callback(machine.processes.stop)  # all that is in the network, first
    network.build()
    _start_qcs(machine)
    machine.run.write("hosts.json", {host: network.pid(host) for host in machine.plan.hosts})
    return Fabric(machine, network, shaper, datapath, database)


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
