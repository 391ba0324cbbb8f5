"""The plan built with Mininet: hosts and switches, shaped links between switches. Lives in the run's own namespaces.

What is Mininet's root namespace here is a fresh one that holds nothing but the switches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import mininet.link
import mininet.node
from mininet.log import lg, setLogLevel
from mininet.net import Mininet
from mininet.node import Node, OVSSwitch, RemoteController

from testbed.errors import UserError
from testbed.fibres.shapers import NETEM, Netem
from testbed.machine.processes import ProcessFailed, run_tool
from testbed.planning.plan import OPENFLOW_PORT, HostPlan, LinkPlan, dpid
from testbed.planning.shares import VXLAN_PORT, Ending, Share

# In the namespace of hosts and switches; no datacenter is called so, for their names are in lower case.
_CONTROLLER = "OpenFlow"
_SHELLS = 8  # that are started at a time
_BACKOFF_MS = 1000  # between two tries of a switch to reach the controller, at most: Open vSwitch takes no less


class _ForwardedController(RemoteController):
    """The controller as the switches see it: the forwarder's end on their own loopback."""

    def checkListening(self) -> None:  # noqa: N802 - Mininet's name
        """Do not ask for telnet to look: whether the switches are connected is checked later, and strictly."""


class Host(mininet.node.Host):
    """A host that is configured already, along with all others."""

    def config(self, **_: object) -> dict[str, object]:
        """Nothing is left to do."""
        return {}


class Intf(mininet.link.Intf):
    """An interface that is there and up already, with the address `ip` ("10.0.0.1/8") if that is given."""

    def config(self, ip: str | None = None, **_: object) -> dict[str, object]:
        """Keep the address, which others ask for."""
        if ip is not None:
            self.ip, self.prefixLen = ip.split("/")
        return {}


class Link(mininet.link.Link):
    """A link whose interfaces are there already. They go with the namespaces that they are in."""

    @classmethod
    def makeIntfPair(cls, *_: object, **__: object) -> None:  # noqa: N802 - Mininet's name
        """Both are there."""

    def stop(self) -> None:
        """Ask for no end of its interfaces."""


class Network:
    """This machine's share of an emulated network; `net` is its Mininet.

    `addresses`: of the machines that share it, among one another.
    """

    def __init__(
        self, plan: Share, *, shaper: str, datapath: str, addresses: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.plan = plan
        self._addresses = addresses
        self.shaper = shaper
        self.datapath = datapath
        self.delay_node: Node | None = None
        setLogLevel("output")  # what the CLI prints, and no progress reports
        lg.handlers[0].setStream(sys.stdout)
        # Mininet would raise limits of the whole machine; what a run needs, it sets in its own namespace.
        Mininet.inited = True
        OVSSwitch.setup()
        self.net = Mininet(topo=None, build=False, controller=None, host=Host, link=Link, intf=Intf)

    def build(self) -> None:
        """Make all namespaces, interfaces and bridges."""
        controller = self.net.addController(
            _CONTROLLER, controller=_ForwardedController, ip="127.0.0.1", port=OPENFLOW_PORT
        )
        switches = self._add_nodes()
        self._lay_links()
        for host in self.plan.hosts.values():
            self.net.addLink(
                self.net[host.name], switches[host.switch], intfName1="eth0", intfName2=host.port, addr1=host.mac,
                port2=_number(host.port), params1={"ip": _address(host)},
            )  # fmt: skip
        for link in self.plan.links:
            self.net.addLink(
                switches[link.switch_a], switches[link.switch_b], intfName1=link.port_a, port1=_number(link.port_a),
                intfName2=link.port_b, port2=_number(link.port_b),
            )  # fmt: skip
        for ending in self.plan.endings:
            self._end(ending)
        self.net.build()
        controller.start()
        for switch in switches.values():
            switch.start([])  # which says what is to be done
        # All at once: a call for each switch would wait for all that are there already to be looked at again.
        OVSSwitch.batchStartup(list(switches.values()), run=_in_shell)
        self._shape()
        self._configure_hosts()

    def _add_nodes(self) -> dict[str, OVSSwitch]:
        """Hosts, switches, and the place of the delay line: each waits for a shell of its own. The switches by name."""

        def host(name: str) -> None:
            found = self.plan.hosts[name]
            self.net.addHost(name, ip=_address(found), mac=found.mac)

        def switch(name: str) -> None:
            self.net.addSwitch(
                name, cls=OVSSwitch, dpid=f"{dpid(name):016x}", datapath=self.datapath,
                protocols="OpenFlow13", failMode="secure", batch=True,
            )  # fmt: skip

        hosts, names = list(self.plan.hosts), list(self.plan.switches.values())
        with ThreadPoolExecutor(_SHELLS) as pool:
            delay = None if self.shaper == NETEM else pool.submit(Node, "delay", inNamespace=True)
            for made in [*(pool.submit(host, name) for name in hosts), *(pool.submit(switch, name) for name in names)]:
                made.result()
            self.delay_node = None if delay is None else delay.result()
        # In the plan's order, whichever was made first.
        self.net.hosts.sort(key=lambda node: hosts.index(node.name))
        self.net.switches.sort(key=lambda node: names.index(node.name))
        return {name: self.net[name] for name in names}

    def _lay_links(self) -> None:
        """All links, by one call: Mininet would ask shells some ten times for each, and wait for every answer.

        A link between switches by way of the delay line is to Mininet one link, in truth two veth pairs. Their inner
        ends, `dl0a` and `dl0b` for the first, lie where the delay line runs.
        """
        orders = ["link set lo up"]
        for host in self.plan.hosts.values():
            peer = f"peer name eth0 address {host.mac} netns {self.net[host.name].pid}"
            orders += [f"link add name {host.port} type veth {peer}", f"link set {host.port} up"]
        for i, link in enumerate(self.plan.links):
            if self.delay_node is None:
                orders.append(f"link add name {link.port_a} type veth peer name {link.port_b}")
            for port, inner in ((link.port_a, f"dl{i}a"), (link.port_b, f"dl{i}b")):
                if self.delay_node is not None:
                    there = self.delay_node.pid
                    orders.append(f"link add name {port} type veth peer name {inner} netns {there}")
                orders.append(f"link set {port} up")
        run_tool("ip", "-batch", "-", given="\n".join(orders))

    def _end(self, ending: Ending) -> None:
        """One end of a fibre to another machine: its VXLAN, at the far side of the delay line if that is here."""
        ours, theirs = self._addresses[self.plan.machine], self._addresses[ending.far]
        name = ending.port
        if self.delay_node is not None and ending.shaped:
            there, line = str(self.delay_node.pid), f"dl{self.plan.lines.index(ending.link)}"
            name = f"{line}b"
            run_tool("ip", "link", "add", ending.port, "type", "veth", "peer", "name", f"{line}a", "netns", there)
        run_tool(
            "ip", "link", "add", name, "mtu", "1500", "type", "vxlan", "id", str(ending.vni), "local", ours,
            "remote", theirs, "dstport", str(VXLAN_PORT), "nolearning",
        )  # fmt: skip
        # What it made of several frames would be longer than a switch in user space takes.
        run_tool("ethtool", "-K", name, "gro", "off")
        if name != ending.port:
            run_tool("ip", "link", "set", name, "netns", there)
        run_tool("ip", "link", "set", ending.port, "up")
        Intf(ending.port, node=self.net[ending.switch], port=_number(ending.port))

    def connect(self, address: str, ports: Sequence[int]) -> None:
        """Have the switches look for their controllers, each of which listens at one of the ports by now.

        They would look for one that does not again after a second; until then no frame would pass, and who connects to
        somebody over them would try again after a second, too.
        """
        words = []
        for name in self.plan.switches.values():
            ids = [f"@{name}-{port}" for port in ports]
            for port, each in zip(ports, ids, strict=True):
                target = f'target="tcp:{address}:{port}"'
                words += ["--", f"--id={each}", "create", "Controller", target, f"max_backoff={_BACKOFF_MS}"]
            words += ["--", "set", "Bridge", name, f"controller=[{','.join(ids)}]"]
        run_tool("ovs-vsctl", *words)

    def enter(self, host: str) -> list[str]:
        """What to put before a command so that it runs in a host's namespaces."""
        return ["mnexec", "-a", str(self.pid(host))]

    def pid(self, host: str) -> int:
        """A process in that host's namespaces; UserError if the host is on another machine."""
        if host not in self.plan.hosts:
            raise UserError(f"{host} is on another machine, which this does not reach yet")
        return int(self.net[host].pid)

    def fabric_ports(self) -> list[str]:
        """All ends of links that are here."""
        return self.plan.ports

    def set_carrier(self, link: LinkPlan, *, up: bool) -> None:
        """Cut a fibre, or join it: both its ends, if they are here, lose the link, or get it back."""
        for port in {link.port_a, link.port_b} & {*self.plan.ports}:
            run_tool("ip", "link", "set", port, "up" if up else "down")

    def set_port(self, host: str, *, up: bool) -> None:
        """Pull the cable of a host, or put it back: it keeps its address, and nothing comes or goes."""
        run_tool("ip", "link", "set", self.plan.hosts[host].port, "up" if up else "down")

    @property
    def delay_line_pid(self) -> int:
        """A process where the delay line's interfaces are."""
        if self.delay_node is None:
            raise ProcessFailed("links are shaped by netem: there is no delay line")
        return int(self.delay_node.pid)

    def stop(self) -> None:
        """Take everything down."""
        self.net.stop()
        if self.delay_node is not None:
            self.delay_node.terminate()

    def _shape(self) -> None:
        # After the switches are up: Open vSwitch touches the queues of a port that it gets.
        if self.shaper == NETEM:
            for link in self.plan.links:
                shapes = link.link.a_to_b, link.link.b_to_a
                Netem().apply(link, before=shapes, after=shapes)
            for ending in self.plan.endings:
                fibre = ending.link.link
                Netem().shape_port(ending.port, fibre.a_to_b if ending.shaped else fibre.b_to_a)

    def _configure_hosts(self) -> None:
        # The machine's name server cannot be reached from there: who asks for a name is to be told so at once.
        nameless = "{ [ ! -e /etc/resolv.conf ] || mount --bind /dev/null /etc/resolv.conf; }"
        # Switches in user space drop frames whose checksum the kernel left to a network card.
        whole = "ethtool -K eth0 tx off" if self.datapath == "user" else "true"

        def configure(host: HostPlan) -> None:
            addressed = f"ip address add {_address(host)} brd + dev eth0 && ip link set eth0 up"
            commands = f"ip link set lo up && {addressed} && {nameless} && {whole}"
            run_tool(*self.enter(host.name), "sh", "-c", commands)

        with ThreadPoolExecutor(_SHELLS) as pool:
            list(pool.map(configure, self.plan.hosts.values()))


def _address(host: HostPlan) -> str:
    return f"{host.ip}/8"


def _in_shell(command: str, *, shell: bool) -> None:
    assert shell  # noqa: S101 - as Mininet asks for it
    run_tool("sh", "-c", command)


def _number(port: str) -> int:
    """The OpenFlow port number that an interface's name ends in."""
    return int(port.rpartition("eth")[2])
