"""Carries OpenFlow events to forwarding.py and its answers to the switches. Decides nothing itself.

Where there are two controllers, each switch is connected to both, and does what its master says (OpenFlow 1.3, 6.3.5):
the one that asked last to be that, in no earlier term than others. The other one hears of ports, too. What a switch
forwards stays as it is while masters change.

ARP takes the way of the packets that it is about: who asks for an address asks the host that has it, and nobody else.
So nothing is flooded over loops, and hosts find one another while no controller is there.
"""

from __future__ import annotations

import threading
from typing import Any

from controller.openflow import framework as of
from controller.openflow.forwarding import Fabric, Flows, PortName, changes, forwarding
from mtls.liveness import notice_death

# Marks our flows, so that others at the same switch stay when we begin anew.
_COOKIE = 0x514B44
_ALL_BITS = (1 << 64) - 1
_IPV4, _ARP = 0x0800, 0x0806
_PRIORITY = 100
_LOOK_S = 0.05
_MASTER, _SLAVE = of.ofproto_v1_3.OFPCR_ROLE_MASTER, of.ofproto_v1_3.OFPCR_ROLE_SLAVE


class _RoleWanted(of.event.EventBase):
    """The role that the controller wants with the switches has changed."""


class Forwarder(of.App):
    """Keeps the flows of all connected switches as the fabric and the live ports demand."""

    OFP_VERSIONS = [of.ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 - the framework's way

    def __init__(self, *args: Any, fabric: Fabric, alone: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fabric = fabric
        self._alone = alone
        self._wanted = self._role = _SLAVE, 0  # what to be to all switches, and in which term; not if alone
        self._mastered: set[str] = set()  # switches that have said that this controller is their master
        self._lock = threading.Lock()
        self._datapaths: dict[str, Any] = {}
        self._numbers: dict[PortName, int] = {}
        self._down: set[PortName] = set()
        self._written: dict[str, Flows] = {}
        self._listed: set[str] = set()  # switches whose ports are known
        self._forwarding: set[str] = set()  # switches that have said that their first flows are in force

    def start(self) -> None:
        """Begin."""
        super().start()
        if not self._alone:
            self.threads.append(of.hub.spawn(self._keep_role))

    def connected(self) -> dict[str, list[str]]:
        """The switches that are connected and have their flows, each with those ports to others that it calls down."""
        with self._lock:
            return {
                s.name: [p.interface for p in s.ports if (s.name, p.interface) in self._down]
                for s in self._fabric.switches
                if s.name in self._forwarding
            }

    def be_master(self, term: int) -> None:
        """Have the switches forward from now on, unless another controller does in a later term."""
        self._wanted = _MASTER, term

    def be_slave(self, term: int) -> None:
        """Only listen to the switches from now on; `term`: the latest one that was heard of."""
        self._wanted = _SLAVE, term

    def _keep_role(self) -> None:
        """In a thread of the framework, which may be green: no other thread may send by it.

        It takes no lock: the green thread that has it may be waiting to send, and would never get its turn.
        """
        asked = self._role
        while True:
            of.hub.sleep(_LOOK_S)
            if self._wanted != asked:
                asked = self._wanted
                self.send_event(self.name, _RoleWanted())

    @of.set_ev_cls(_RoleWanted)
    def on_role_wanted(self, _: Any) -> None:
        """Another role is wanted: ask for it, by the thread that handles all events."""
        with self._lock:
            if self._wanted != self._role:
                self._role = self._wanted
                for switch in self._datapaths:
                    self._ask_for_role(switch)

    def _ask_for_role(self, switch: str) -> None:
        self._lost_mastery(switch)
        datapath = self._datapaths[switch]
        datapath.send_msg(datapath.ofproto_parser.OFPRoleRequest(datapath, *self._role))

    def _lost_mastery(self, switch: str) -> None:
        self._mastered.discard(switch)
        self._written.pop(switch, None)
        self._forwarding.discard(switch)

    @of.set_ev_cls(of.ofp_event.EventOFPRoleReply, of.MAIN_DISPATCHER)
    def on_role(self, event: Any) -> None:
        """A switch has a master: if that is this controller, have it forward as it is to."""
        datapath = event.msg.datapath
        switch = self._fabric.by_dpid(datapath.id)
        with self._lock:
            if switch is None or self._datapaths.get(switch.name) is not datapath:
                return
            if event.msg.role == _MASTER and self._role[0] == _MASTER:
                self._mastered.add(switch.name)
                self._begin(switch.name)

    @of.set_ev_cls(of.ofp_event.EventOFPErrorMsg, of.MAIN_DISPATCHER)
    def on_error(self, event: Any) -> None:
        """A switch does not do what it was told. If that is because another one is its master, ask for that again.

        It may be refused; then the other one's term is later.
        """
        message, protocol = event.msg, event.msg.datapath.ofproto
        switch = self._fabric.by_dpid(message.datapath.id or 0)
        is_slave = (message.type, message.code) == (protocol.OFPET_BAD_REQUEST, protocol.OFPBRC_IS_SLAVE)
        with self._lock:
            if switch is not None and is_slave and switch.name in self._mastered and self._role[0] == _MASTER:
                self._ask_for_role(switch.name)

    @of.set_ev_cls(of.ofp_event.EventOFPStateChange, [of.MAIN_DISPATCHER, of.DEAD_DISPATCHER])
    def on_state(self, event: Any) -> None:
        """A switch came or went."""
        datapath = event.datapath
        switch = self._fabric.by_dpid(datapath.id or 0)
        if switch is None:
            return
        with self._lock:
            if event.state == of.MAIN_DISPATCHER:
                notice_death(datapath.socket)
                self._datapaths[switch.name] = datapath
                self._forget(switch.name)
                datapath.send_msg(datapath.ofproto_parser.OFPPortDescStatsRequest(datapath, 0))
                if not self._alone:
                    self._ask_for_role(switch.name)
            elif self._datapaths.get(switch.name) is datapath:
                del self._datapaths[switch.name]
                self._forget(switch.name)

    @of.set_ev_cls(of.ofp_event.EventOFPPortDescStatsReply, of.MAIN_DISPATCHER)
    def on_ports(self, event: Any) -> None:
        """A switch lists its ports, and can be told what to forward where."""
        datapath = event.msg.datapath
        switch = self._fabric.by_dpid(datapath.id)
        if switch is None:
            return
        with self._lock:
            for port in event.msg.body:
                self._take_port(switch.name, port)
            self._listed.add(switch.name)
            self._begin(switch.name)

    @of.set_ev_cls(of.ofp_event.EventOFPBarrierReply, of.MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        """A switch has done all that it was told before."""
        switch = self._fabric.by_dpid(event.msg.datapath.id)
        with self._lock:
            if switch is not None and self._datapaths.get(switch.name) is event.msg.datapath:
                self._forwarding.add(switch.name)

    @of.set_ev_cls(of.ofp_event.EventOFPPortStatus, of.MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        """A port changed."""
        message = event.msg
        switch = self._fabric.by_dpid(message.datapath.id)
        if switch is None:
            return
        with self._lock:
            gone = message.reason == message.datapath.ofproto.OFPPR_DELETE
            self._take_port(switch.name, message.desc, gone=gone)
            self._update()

    def _begin(self, switch: str) -> None:
        """Have a switch forward as it is to, once its ports are known and it does what it is told."""
        if switch not in self._listed or not (self._alone or switch in self._mastered):
            return
        datapath = self._datapaths[switch]
        if self._alone:
            self._clean(datapath)
            self._written[switch] = {}
        else:
            # Another one's flows are there, of the same fabric: those that are right are never missing for a moment.
            self._written[switch] = dict.fromkeys((h.ip for s in self._fabric.switches for h in s.hosts), "")
        self._update()
        datapath.send_msg(datapath.ofproto_parser.OFPBarrierRequest(datapath))

    def _forget(self, switch: str) -> None:
        self._listed.discard(switch)
        self._lost_mastery(switch)

    def _take_port(self, switch: str, port: Any, *, gone: bool = False) -> None:
        name = (switch, port.name.rstrip(b"\0").decode(errors="replace"))
        protocol = of.ofproto_v1_3
        down = gone or port.config & protocol.OFPPC_PORT_DOWN or port.state & protocol.OFPPS_LINK_DOWN
        self._numbers[name] = port.port_no
        (self._down.add if down else self._down.discard)(name)

    def _update(self) -> None:
        """Bring every connected switch to what it should have now; only differences are sent."""
        wanted = forwarding(self._fabric, self._down)
        for switch, written in self._written.items():
            known = {ip: p for ip, p in wanted[switch].items() if (switch, p) in self._numbers}
            write, remove = changes(written, known)
            datapath = self._datapaths[switch]
            for ip in sorted(remove):
                self._send(datapath, ip, None)
            for ip, interface in sorted(write.items()):
                self._send(datapath, ip, self._numbers[switch, interface])
            self._written[switch] = known

    def _clean(self, datapath: Any) -> None:
        """Remove all flows of ours; whatever matches no flow is dropped."""
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath, cookie=_COOKIE, cookie_mask=_ALL_BITS, table_id=protocol.OFPTT_ALL,
                command=protocol.OFPFC_DELETE, out_port=protocol.OFPP_ANY, out_group=protocol.OFPG_ANY,
                match=parser.OFPMatch(),
            )
        )  # fmt: skip

    def _send(self, datapath: Any, ip: str, port: int | None) -> None:
        """Write the flows for destination `ip`, or remove them."""
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        for match in (parser.OFPMatch(eth_type=_IPV4, ipv4_dst=ip), parser.OFPMatch(eth_type=_ARP, arp_tpa=ip)):
            if port is None:
                self._write(datapath, match, protocol.OFPFC_DELETE_STRICT, [])
            else:
                # Adding replaces a flow of the same match and priority, without a gap.
                self._write(datapath, match, protocol.OFPFC_ADD, [parser.OFPActionOutput(port)])

    def _write(self, datapath: Any, match: Any, command: int, actions: list[Any]) -> None:
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath, cookie=_COOKIE, command=command, priority=_PRIORITY, match=match,
                out_port=protocol.OFPP_ANY, out_group=protocol.OFPG_ANY,
                instructions=[parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)] if actions else [],
            )
        )  # fmt: skip
