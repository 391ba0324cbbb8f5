"""QCs that are lit on demand: which of them a network could have, from the loss of its fibres. PURE.

A node has QKD modules, a fibre loses light, and a node that light goes past loses some more. Two nodes with a module to
spare can have a QC of their own, past others: an optical bypass. Of all ways between them the one of least loss counts,
and the device of the modules says what comes over it. Two neighbours whose fibre has no QC that is always lit can have
one on demand, too.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scenario.qc_document import MOST_DB, device
from scenario.quantum.decoy_bb84 import Device
from scenario.quantum.qc_models import DecoyBb84
from scenario.topology_description import Field, Link, Qc, Switched, Topology, channel_of, module_of

_MOST_PAST, _MOST_SETUP_S = 8, 8.0  # whoever opens a key session waits for the QC that is lit for it
_MOST_CHANNELS = 100
_LEAST_BYTES = 8.0  # a slot: what makes less has no key of usual size in the time that an application waits


@dataclass(frozen=True, slots=True)
class Optics:
    """What all modules of a network are, and what a node takes of the light that goes past it; past how many nodes it
    may go; how many QCs a fibre carries, and how many two nodes can have on demand; after how long one makes key.
    """

    device: Device
    insertion_db: float
    most_past: int
    channels: int
    parallel: int
    setup_s: float


def optics_of(field: Field) -> Optics:
    """The member `optics` of a topology; TopologyError."""
    members = field.members("device", insertion_db=1, most_past=2, channels=8, parallel=1, setup_s=2)
    found = Optics(
        device(members["device"]), members["insertion_db"].number(MOST_DB), members["most_past"].whole(_MOST_PAST),
        members["channels"].whole(_MOST_CHANNELS), members["parallel"].whole(_MOST_CHANNELS),
        members["setup_s"].number(_MOST_SETUP_S),
    )  # fmt: skip
    for name in ("channels", "parallel"):
        if not getattr(found, name):
            raise members[name].error("expected a number above 0")
    return found


def checked(topology: Topology, optics: Optics | None, document: Field) -> Topology:
    """The network with all QCs that can be lit in it, if it has optics; TopologyError.

    `document`: the whole topology, of which errors name members.
    """
    nodes, fibres = (_items(document, member) for member in ("nodes", "links"))
    counted = [field for field, node in zip(nodes, topology.nodes, strict=True) if node.modules is not None]
    if optics is None:
        if counted:
            raise counted[0].error("modules need the member optics of the network, which says what they are")
        return topology
    if not counted:
        raise _item(document, "optics").error("expected modules at some nodes, got none")
    taken = _taken(topology)
    for field, node in zip(nodes, topology.nodes, strict=True):
        if node.modules is not None and node.modules < taken[node.name]:
            needed = f"expected at least {taken[node.name]} modules, for the QCs of its fibres"
            raise field.error(f"{needed}, got {node.modules}")
    for field, link in zip(fibres, topology.links, strict=True):
        if _loss_db(link, optics.device) is None:
            raise field.error("expected loss_db or length_km beside optics, got neither")
        if len(link.qcs) > optics.channels:
            raise field.error(f"expected at most {optics.channels} QCs, as optics.channels says, got {len(link.qcs)}")
    found = with_switched(topology, optics)
    if not found.switched:
        raise _item(document, "optics").error(
            "no QC can be lit: between no two nodes with a module to spare does the device make 8 bytes a second"
        )
    return found


def with_switched(topology: Topology, optics: Optics) -> Topology:
    """The network with all QCs that can be lit in it, by the pairs of nodes that have modules.

    Each fibre has a length or a loss; no node has fewer modules, and no fibre fewer channels, than its QCs take.
    """
    taken = _taken(topology)
    spare = {module_of(n.name): n.modules - taken[n.name] for n in topology.nodes if n.modules is not None}
    spare |= {channel_of(link.name): optics.channels - len(link.qcs) for link in topology.links}
    return replace(topology, switched=tuple(_possible(topology, optics, spare)), spare=tuple(spare.items()))


def _taken(topology: Topology) -> Counter[str]:
    """The modules that the QCs of fibres take, by node."""
    return Counter(end for link in topology.links for end in (link.a, link.b) for _ in link.qcs)


def _item(document: Field, member: str) -> Field:
    assert isinstance(document.value, dict)  # noqa: S101 - the topology was made of it
    return Field(document.source, member, document.value[member])


def _items(document: Field, member: str) -> list[Field]:
    return _item(document, member).items()


def _loss_db(link: Link, of: Device) -> float | None:
    if link.loss_db is not None:
        return link.loss_db
    return None if link.length_km is None else of.db_per_km * link.length_km


def _possible(topology: Topology, optics: Optics, spare: Mapping[str, int]) -> Iterator[Switched]:
    """All QCs that can be lit, by the order of the nodes."""
    fibres: dict[str, dict[str, tuple[float, str]]] = {node.name: {} for node in topology.nodes}
    lit = {frozenset((link.a, link.b)) for link in topology.links if link.qcs}
    for link in topology.links:
        loss_db = _loss_db(link, optics.device)
        assert loss_db is not None  # noqa: S101 - checked
        for a, b in ((link.a, link.b), (link.b, link.a)):
            fibres[a][b] = min(fibres[a].get(b, (math.inf, "")), (loss_db, link.name))
    for place, node in enumerate(topology.nodes):
        ways = _ways(fibres, node.name, optics)
        for other in topology.nodes[place + 1 :]:
            if other.name not in ways or frozenset((node.name, other.name)) in lit:
                continue
            loss_db, nodes = ways[other.name]
            names = tuple(fibres[a][b][1] for a, b in itertools.pairwise(nodes))
            model = DecoyBb84(optics.device, loss_db)
            mean = model.mean_bytes_per_s
            for number in range(1, optics.parallel + 1):
                qc = Qc(f"{node.name}~{other.name}/{number}", int(mean), math.ceil(mean), model)
                found = Switched(qc, node.name, other.name, nodes[1:-1], names, loss_db, optics.setup_s)
                if mean >= _LEAST_BYTES and all(spare.get(what, 0) >= number for what in found.takes):
                    yield found


def _ways(
    fibres: Mapping[str, Mapping[str, tuple[float, str]]], source: str, optics: Optics
) -> dict[str, tuple[float, tuple[str, ...]]]:
    """The loss to each other node, dB, and the nodes on the way of least loss past so many others at most."""
    best: dict[str, tuple[float, tuple[str, ...]]] = {source: (0.0, (source,))}
    edge = best
    for _ in range(optics.most_past + 1):
        further: dict[str, tuple[float, tuple[str, ...]]] = {}
        for node, (so_far_db, nodes) in edge.items():
            past_db = so_far_db + (optics.insertion_db if node != source else 0.0)
            for other, (loss_db, _) in fibres[node].items():
                there = past_db + loss_db, (*nodes, other)
                if there < further.get(other, best.get(other, (math.inf, ()))):
                    further[other] = there
        best = {**best, **further}
        edge = further
    return best
