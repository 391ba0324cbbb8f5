"""From a topology to who lives where: hosts, addresses, switch ports, and the configuration of every process. PURE.

Names follow Mininet: datacenter number i has switch `s{i}`, whose ports are `s{i}-eth1` (towards the datacenter's
host), `-eth2` and so on; numbers that would make the name of a datacenter are left out. Hosts carry the names of the
topology's nodes; `ctl` and `db` are the controller's and the shared database's. Host interfaces are all called `eth0`:
Linux allows 15 characters, a node's name may have 31.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decisions.choice import READY_BYTES
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from node.tree.model import link_id, node_id
from scenario.machines import HOME
from scenario.quantum.qc_models import to_json
from scenario.topology_description import Link, Topology
from testbed.audit import evidence
from testbed.planning.databases import SINGLE, hosts_of
from testbed.planning.documents import (
    Ends,
    SharedDatabaseAt,
    controller_document,
    interfaces,
    node_document,
    qc_key_file,
)
from testbed.planning.round_trips import longest_s
from testbed.quantum.devices import device_documents

KME_PORT = 8443
AGENT_PORT = 8444
STREAM_PORT = 8445  # GS QKD 004
CONTROLLER_PORT = 8445
OPENFLOW_PORT = 6653
DATABASE_PORT = 5432
FIRST_SAE_PORT = 9001
GATEWAY_PORT = 9000
NO_POLICIES: Mapping[str, str] = {}
NOBODY: Mapping[str, float] = {}  # listens on a fibre
SLOT_S = 1.0  # of every QC, and of every node: both take it by default

# Modules that are processes of their own, what the controller imports later than at its start, and what is done once
# before any of them is forked.
COMPONENTS = (
    "node.__main__", "sae.__main__", "sae.vpn.__main__", "controller.__main__", "controller.openflow.openflow_app",
    "testbed.quantum.qc_emulator", "testbed.machine.forwarder", "testbed.fibres.delay_line",
    "testbed.workers.passage", "testbed.machine.rehearsal",
)  # fmt: skip

CONTROLLER = Identity(Role.CONTROLLER, "ctl")
STANDBY = Identity(Role.CONTROLLER, "ctl2")  # the second controller, where there is one
CONTROLLERS = CONTROLLER, STANDBY
DATABASE = Identity(Role.DATABASE, "db")
OPERATOR = Identity(Role.OPERATOR, "operator")



def process_of(controller: str) -> str:
    """The process of the controller of that name, and the folder of its journal."""
    return evidence.STANDBY if controller == STANDBY.name else "controller"




@dataclass(frozen=True, slots=True)
class HostPlan:
    """A Mininet host: its address (in 10.0.0.0/8), MAC, and the switch and port that it hangs at.

    `protected`: the address (in 172.30.0.0/15) that only tunnels lead to.
    """

    name: str
    ip: str
    mac: str
    switch: str
    port: str
    protected: str


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A fibre: the topology's link and the switch ports at its ends `a` and `b`."""

    link: Link
    switch_a: str
    port_a: str
    switch_b: str
    port_b: str


@dataclass(frozen=True, slots=True)
class SaePlan:
    """An application, the ID it has in this run, and the TCP port it listens on at its datacenter's host.

    An external one has no port: it is somebody else's software, of which the network knows no more than the name.
    """

    name: str
    node: str
    id: str
    port: int | None

    @property
    def identity(self) -> Identity:
        """Who it is in its certificate."""
        return Identity(Role.SAE, self.id)

    @property
    def external(self) -> bool:
        """Whether it runs outside the testbed."""
        return self.port is None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before anything is built."""

    topology: Topology
    switches: Mapping[str, str]  # node -> switch
    hosts: Mapping[str, HostPlan]
    links: tuple[LinkPlan, ...]
    saes: tuple[SaePlan, ...]
    gateways: Mapping[str, SaePlan]  # node -> the SAE that keys its tunnels; no workload draws it
    database: str = SINGLE

    def url(self, host: str, port: int) -> str:
        """URL of a server on that host."""
        return f"https://{self.hosts[host].ip}:{port}"

    @property
    def controllers(self) -> list[Identity]:
        """The controllers, each on the host of its name; the first one leads at the beginning."""
        return [each for each in CONTROLLERS if each.name in self.hosts]

    @property
    def nodes(self) -> list[str]:
        """Names of the datacenters, in the topology's order."""
        return [node.name for node in self.topology.nodes]

    @property
    def database_hosts(self) -> list[str]:
        """Names of the hosts of the shared database; those that may take writes are the first two of them."""
        return hosts_of(self.database)

    @property
    def database_servers(self) -> dict[Identity, str]:
        """The servers, one of which takes writes, with their addresses."""
        return {Identity(Role.DATABASE, name): self.hosts[name].ip for name in self.database_hosts[:2]}

    @property
    def applications(self) -> list[SaePlan]:
        """The SAEs that the testbed runs itself."""
        return [sae for sae in self.saes if not sae.external]

    @property
    def round_trip_s(self) -> float:
        """The longest round trip between two datacenters."""
        return longest_s(self.topology.links)

    @property
    def openflow_ports(self) -> list[int]:
        """Where switches find the controllers, in their order: the forwarder leads each on to its controller."""
        return [OPENFLOW_PORT + i for i, _ in enumerate(self.controllers)]

    def identities(self) -> Iterator[tuple[Identity, str, str]]:
        """Every party that needs a certificate, with the host whose address it serves on and the name people know."""
        for controller in self.controllers:
            yield controller, controller.name, controller.name
        for host in self.database_hosts:
            yield Identity(Role.DATABASE, host), host, host
        yield OPERATOR, "ctl", OPERATOR.name
        for node in self.nodes:
            yield Identity(Role.NODE, node), node, node
        for name in (HOME, *(machine.name for machine in self.topology.machines)) if self.topology.machines else ():
            yield Identity(Role.MACHINE, name), "ctl", name
        for sae in (*self.saes, *self.gateways.values()):
            yield sae.identity, sae.node, sae.name

    @property
    def places(self) -> dict[str, str]:
        """The node of each SAE, by ID."""
        return {s.id: s.node for s in (*self.saes, *self.gateways.values())}

    def sae(self, name_or_id: str) -> SaePlan | None:
        """The application of that name or ID. An ID counts letter by letter; a name does so, or in small letters."""
        words = (name_or_id, name_or_id.lower())
        return next((s for word in words for s in self.saes if word in (s.name, s.id)), None)

    def name_of(self, sae_id: str) -> str:
        """What people call an application, or its ID if it has no name here."""
        sae = self.sae(sae_id) or next((g for g in self.gateways.values() if g.id == sae_id), None)
        return sae_id if sae is None else sae.name

    def fabric(self) -> dict[str, Any]:
        """What the controller must know of the switches: ports, neighbours, hosts."""
        switches = []
        for switch in self.switches.values():
            ports = []
            for plan in self.links:
                ends = ((plan.switch_a, plan.port_a), (plan.switch_b, plan.port_b))
                outward = (plan.link.a_to_b, plan.link.b_to_a)
                for shape, (here, port), (there, far) in zip(outward, ends, ends[::-1], strict=True):
                    if here == switch:
                        ports.append(
                            {"interface": port, "peer_switch": there, "peer_interface": far,
                             "delay_ms": shape.delay_ms}
                        )  # fmt: skip
            hosts = [{"interface": h.port, "ip": h.ip} for h in self.hosts.values() if h.switch == switch]
            switches.append({"name": switch, "dpid": dpid(switch), "ports": ports, "hosts": hosts})
        return {"switches": switches}

    def controller_config(
        self, name: str, directory: Path, credentials: Credentials, parameters: Mapping[str, Any],
        policies: Mapping[str, str] = NO_POLICIES, *, store: SharedDatabaseAt | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A controller's configuration file. `policies`: those of the user's, FILE.py:NAME by parameter.

        `store`: where several controllers have theirs.
        """
        shared = None if store is None else {
            "url": store.url, "schema": store.schema,
            "controllers": {each.name: self.url(each.name, CONTROLLER_PORT) for each in self.controllers},
        }  # fmt: skip
        return controller_document(
            name, host=self.hosts[name].ip, port=CONTROLLER_PORT, directory=directory,
            credentials=credentials, agents={node: self.url(node, AGENT_PORT) for node in self.nodes},
            parameters=parameters, node_ids={node: node_id(node) for node in self.nodes},
            openflow={"host": "127.0.0.1", "port": OPENFLOW_PORT, "fabric": self.fabric()},
            saes=self.places, round_trip_s=self.round_trip_s, policies=dict(policies), switched=self._switched,
            spare=dict(self.topology.spare), **({} if shared is None else {"shared_store": shared}),
        )  # fmt: skip

    def node_config(
        self, node: str, directory: Path, credentials: Credentials, *, database: SharedDatabaseAt,
        policies: Mapping[str, str] = NO_POLICIES,
    ) -> dict[str, Any]:  # fmt: skip
        """A node's configuration file."""
        return node_document(
            node, host=self.hosts[node].ip, ports=(KME_PORT, AGENT_PORT, STREAM_PORT), directory=directory,
            credentials=credentials, database=database, agents={n: self.url(n, AGENT_PORT) for n in self.nodes},
            saes=self.places, qcs=self._ends, dark={one.qc.name for one in self.topology.switched},
            devices=device_documents(self.topology, node), limits=self.topology.limits.to_json(),
            round_trip_s=self.round_trip_s, policies=dict(policies),
        )  # fmt: skip

    def qc_keys(self, nodes_directory: Path) -> Iterator[list[Path]]:
        """For each QC where the nodes at its ends, in folders of their names, look for the key that they share."""
        for qc, *ends in self._ends:
            yield [qc_key_file(self._ends, node, qc, nodes_directory / node) for node in ends]

    @property
    def _ends(self) -> Ends:
        return [(qc.name, a, b) for qc, a, b in self.topology.qcs()]

    @property
    def _switched(self) -> list[dict[str, Any]]:
        """The QCs on demand, as the controller reads them."""
        numbers = {node: list(interfaces(self._ends, node)) for node in self.nodes}
        return [
            {
                **asdict(decided), "link_id": link_id(one.qc.name), "bytes_per_slot": one.qc.mean_bytes_per_slot,
                "interfaces": [numbers[end].index(one.qc.name) + 1 for end in (one.a, one.b)],
                "ready_s": one.setup_s + READY_BYTES / one.qc.mean_bytes_per_slot + 2 * SLOT_S,
            }
            for one, decided in zip(self.topology.switched, self.topology.on_demand(), strict=True)
        ]  # fmt: skip

    def sae_config(
        self,
        node: str,
        directory: Path,
        credentials: Mapping[str, Credentials],
        *,
        audit_secret: str,
        habits: Mapping[str, str],
    ) -> dict[str, Any]:
        """Configuration of the process that runs a datacenter's applications; `credentials` by SAE ID.

        `habits`: how they use keys, the optional members of `sae.config`.
        """
        ours = [(s, self.url(s.node, s.port)) for s in self.saes if s.port is not None]
        saes = [
            {"id": s.id, "name": s.name, "port": s.port, "credentials": credentials[s.id].to_config()}
            for s, _ in ours
            if s.node == node
        ]
        peers = {s.id: {"name": s.name, "url": url} for s, url in ours}
        return {**self._sae_document(node, directory, audit_secret, saes, peers), **habits}

    def gateway_config(
        self, node: str, directory: Path, credentials: Credentials, *, audit_secret: str
    ) -> dict[str, Any]:
        """Configuration of a datacenter's gateway."""
        gateway = self.gateways[node]
        peers = {g.id: {"name": g.name, "url": self.url(g.node, GATEWAY_PORT)} for g in self.gateways.values()}
        sae = {"id": gateway.id, "name": gateway.name, "port": GATEWAY_PORT, "credentials": credentials.to_config()}
        places = {
            g.id: {"name": g.node, "host": self.hosts[g.node].ip, "protected": self.hosts[g.node].protected}
            for g in self.gateways.values()
        }
        return {
            "sae": self._sae_document(node, directory, audit_secret, [sae], peers),
            "places": places,
        }

    def _sae_document(
        self, node: str, directory: Path, audit_secret: str, saes: list[dict[str, Any]], peers: dict[str, Any]
    ) -> dict[str, Any]:
        """What `sae.config` reads."""
        return {
            "name": node, "host": self.hosts[node].ip, "directory": str(directory), "audit_secret": audit_secret,
            "kme_url": self.url(node, KME_PORT), "kme_name": node, "saes": saes, "peers": peers,
            "round_trip_s": self.round_trip_s,
        }  # fmt: skip

    def qc_config(
        self,
        directory: Path,
        nodes_directory: Path,
        *,
        seed: int | None,
        broken: Collection[str] = (),
        off: Collection[str] = (),
        eve: Mapping[str, float] = NOBODY,
    ) -> dict[str, Any]:
        """Configuration of the QC emulators; `broken` and `off`: names of QCs; `eve`: what is intercepted, by QC."""
        setup = {one.qc.name: one.setup_s for one in self.topology.switched}
        qcs = [
            {
                "qc": qc.name,
                "low": qc.low_bytes_per_slot,
                "high": qc.high_bytes_per_slot,
                "model": None if qc.model is None else to_json(qc.model),
                "ends": [str(nodes_directory / a), str(nodes_directory / b)],
                "broken": qc.name in broken,
                "off": qc.name in off,
                "eve": eve.get(qc.name, 0.0),
                **({"dark": True, "setup_s": setup[qc.name]} if qc.name in setup else {}),
            }
            for qc, a, b in self.topology.qcs()
            if qc.source is None
        ]
        return {"directory": str(directory), "seed": seed, "qcs": qcs}

    def meant(self, ttl_slots: int) -> evidence.Meant:
        """What a run is measured by at its end; it begins with that TTL."""
        qcs = {qc.name: evidence.Qc(a, b, SLOT_S) for qc, a, b in self.topology.qcs()}
        saes = {sae.id: evidence.Sae(sae.node, int(not sae.external)) for sae in self.saes}
        # Gateways know no KSID, as SAEs of others, and have journals of another kind than applications.
        saes |= {gateway.id: evidence.Sae(gateway.node, 0) for gateway in self.gateways.values()}
        gateways = {node: gateway.id for node, gateway in self.gateways.items()}
        return evidence.Meant(frozenset(self.nodes), qcs, saes, ttl_slots, gateways)


def dpid(switch: str) -> int:
    """The OpenFlow datapath ID of a switch: its number."""
    return int(switch.removeprefix("s"))


def delay_lines(links: Sequence[LinkPlan], answer: str | None = None) -> dict[str, Any]:
    """Configuration of a user-space delay line; line i joins interfaces `dl{i}a` and `dl{i}b`.

    `answer` is the file in which it is to say how it took a change.
    """
    lines = [
        {
            "name": plan.link.name, "a": f"dl{i}a", "b": f"dl{i}b",
            "a_to_b": plan.link.a_to_b.to_json(), "b_to_a": plan.link.b_to_a.to_json(),
        }
        for i, plan in enumerate(links)
    ]  # fmt: skip
    return {"lines": lines, "seed": 0, "answer": answer}
