"""What of a network each machine builds, and what joins the machines. PURE.

A fibre between two machines ends at a switch of each. In the user-space delay line's case the machine of its end `a`
shapes both directions, for a delay line has both ends of a fibre in one place; netem shapes each direction where it
begins. What the real path takes is taken off in both cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from scenario.machines import HOME, places
from scenario.shape import Shape
from scenario.topology_description import Link
from testbed.planning.plan import HostPlan, LinkPlan, Plan

VXLAN_PORT = 4789
_NET = "172.29.0"  # of machines among one another, inside the encrypted transport; hosts have 10/8 and 172.30/15


@dataclass(frozen=True, slots=True)
class Ending:
    """One end of a fibre between two machines, at the machine that builds it.

    `port` of `switch` is the end here; `far` is the machine at the other end, `vni` the fibre's VXLAN. `shaped`:
    whether this machine's delay line has both directions.
    """

    link: LinkPlan
    switch: str
    port: str
    far: str
    vni: int
    shaped: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What one machine builds: as `Plan` has it, with fibres whose ends are both here, and ends of other ones."""

    machine: str
    hosts: Mapping[str, HostPlan]
    switches: Mapping[str, str]
    links: tuple[LinkPlan, ...]
    endings: tuple[Ending, ...] = ()

    @property
    def lines(self) -> list[LinkPlan]:
        """The fibres that a delay line here has, in its order."""
        return [*self.links, *(ending.link for ending in self.endings if ending.shaped)]

    @property
    def ports(self) -> list[str]:
        """All ends of fibres that are here."""
        inner = [port for link in self.links for port in (link.port_a, link.port_b)]
        return inner + [ending.port for ending in self.endings]

    def to_json(self) -> dict[str, Any]:
        """As it goes to a worker."""
        return {
            "machine": self.machine,
            "hosts": [asdict(host) for host in self.hosts.values()],
            "switches": dict(self.switches),
            "links": [_link_json(link) for link in self.links],
            "endings": [{**asdict(each), "link": _link_json(each.link)} for each in self.endings],
        }


def share_from_json(given: Mapping[str, Any]) -> Share:
    """What `Share.to_json` made."""
    return Share(
        given["machine"],
        {host["name"]: HostPlan(**host) for host in given["hosts"]},
        given["switches"],
        tuple(_link(link) for link in given["links"]),
        tuple(Ending(**{**each, "link": _link(each["link"])}) for each in given["endings"]),
    )


def whole(plan: Plan) -> Share:
    """All of it, for a run on one machine."""
    return Share(HOME, plan.hosts, plan.switches, plan.links)


def shares(plan: Plan) -> dict[str, Share]:
    """What each machine builds, home first."""
    at = places(plan.topology.machines, plan.nodes)
    by_switch = {switch: at[node] for node, switch in plan.switches.items()}
    found = {}
    for name in (HOME, *(machine.name for machine in plan.topology.machines)):
        links, endings = [], []
        for number, link in enumerate(plan.links, start=1):
            a, b = by_switch[link.switch_a], by_switch[link.switch_b]
            if a == b == name:
                links.append(link)
            elif a == name:
                endings.append(Ending(link, link.switch_a, link.port_a, b, number, shaped=True))
            elif b == name:
                endings.append(Ending(link, link.switch_b, link.port_b, a, number, shaped=False))
        found[name] = Share(
            name,
            {host.name: host for host in plan.hosts.values() if by_switch[host.switch] == name},
            {node: switch for node, switch in plan.switches.items() if at[node] == name},
            tuple(links),
            tuple(endings),
        )
    return found


def addresses(plan: Plan) -> dict[str, str]:
    """Of each machine inside the transport."""
    names = (HOME, *(machine.name for machine in plan.topology.machines))
    return {name: f"{_NET}.{number}" for number, name in enumerate(names, start=1)}


def less_real(link: LinkPlan, real_rtt_ms: float) -> LinkPlan:
    """The fibre as it is to be shaped, where the real path takes `real_rtt_ms` there and back."""
    return replace(
        link, link=replace(
            link.link, a_to_b=shape_less_real(link.link.a_to_b, real_rtt_ms),
            b_to_a=shape_less_real(link.link.b_to_a, real_rtt_ms),
        )
    )  # fmt: skip


def shape_less_real(shape: Shape, real_rtt_ms: float) -> Shape:
    """One direction of it. One that is shorter than the real path is not slower for that."""
    return replace(shape, delay_ms=max(0.0, shape.delay_ms - real_rtt_ms / 2))


def too_short(name: str, shapes: tuple[Shape, Shape], machines: tuple[str, str], real_rtt_ms: float) -> str | None:
    """Why a fibre of these shapes cannot join two machines; None if it can."""
    least = min(shape.delay_ms for shape in shapes)
    if least >= real_rtt_ms / 2:
        return None
    return (
        f"fibre {name} has a delay of {least:g} ms, and the real path between {' and '.join(machines)} takes"
        f" {real_rtt_ms / 2:.3g} ms: give it a longer delay (--delay), or place both its ends on one machine"
    )


def _link_json(link: LinkPlan) -> dict[str, Any]:
    of = link.link
    shapes = {"a_to_b": of.a_to_b.to_json(), "b_to_a": of.b_to_a.to_json()}
    ports = {name: getattr(link, name) for name in ("switch_a", "port_a", "switch_b", "port_b")}
    return {"name": of.name, "a": of.a, "b": of.b, **shapes, **ports}


def _link(given: Mapping[str, Any]) -> LinkPlan:
    there, back = Shape(**given["a_to_b"]), Shape(**given["b_to_a"])
    link = Link(given["name"], given["a"], given["b"], None, there, back, ())
    return LinkPlan(link, given["switch_a"], given["port_a"], given["switch_b"], given["port_b"])
