"""What a topology is: nodes, the links between them with their quantum channels, and applications. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import networkx as nx

from etsi.gs014 import Limits
from scenario.shape import MAX_DELAY_MS, Shape
from scenario.topology_field import Field

# 8 Mbit/s of key: more than a QKD link of today makes, and blocks of one slot still fit in memory many times.
_MAX_BYTES_PER_SLOT = 1_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """A datacenter with its SD-QKD node, drawn at `position`: x to the right and y upwards, both from 0 to 1."""

    name: str
    title: str
    position: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Qc:
    """A quantum channel, named `LINK/1` and so on. In each slot of 1 s it makes low to high bytes, both included."""

    name: str
    low_bytes_per_slot: int
    high_bytes_per_slot: int


@dataclass(frozen=True, slots=True)
class Link:
    """A fibre between the nodes `a` and `b`, with its classical channel and one or more quantum channels.

    Each direction has a shape of its own. `length_km` is None where the file gives a delay alone.
    """

    name: str
    a: str
    b: str
    length_km: float | None
    a_to_b: Shape
    b_to_a: Shape
    qcs: tuple[Qc, ...]

    @property
    def rtt_ms(self) -> float:
        """The delay there and back."""
        return self.a_to_b.delay_ms + self.b_to_a.delay_ms


@dataclass(frozen=True, slots=True)
class Sae:
    """A secure application and the node that it sits at; `id` is None unless the file fixes it.

    An `external` one is somebody else's software, which this network only knows and certifies.
    """

    name: str
    node: str
    id: str | None = None
    external: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """A connected network with SAEs at two nodes at least; all parts are in the file's order.

    `controller_at` and `database_at` name the nodes that those two hosts hang at. `limits` are those of all KMEs: sizes
    of keys in bits, keys a request.
    """

    name: str
    description: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    saes: tuple[Sae, ...]
    controller_at: str
    database_at: str
    limits: Limits = field(default_factory=Limits)

    def with_overrides(self, *, delay_ms: float | None = None, qc_rate: tuple[int, int] | None = None) -> Topology:
        """The same network with another delay on every link, another rate on every QC, or both.

        `delay_ms` is one way; lengths stay, although the delay no longer follows from them. `qc_rate` is the lowest and
        the highest number of bytes a slot. Raises TopologyError for a value that a file could not have had either.
        """
        links = self.links
        if delay_ms is not None:
            delay = Field(self.name, "delay_ms", delay_ms).number(MAX_DELAY_MS)
            links = tuple(
                replace(link, a_to_b=replace(link.a_to_b, delay_ms=delay), b_to_a=replace(link.b_to_a, delay_ms=delay))
                for link in links
            )
        if qc_rate is not None:
            low, high = checked_rate(*Field(self.name, "qc_rate", list(qc_rate)).items())
            links = tuple(replace(link, qcs=tuple(Qc(qc.name, low, high) for qc in link.qcs)) for link in links)
        return replace(self, links=links)

    def graph(self) -> nx.MultiGraph[str]:
        """A new multigraph: nodes with `title` and `position`, links keyed by name with `link`."""
        graph: nx.MultiGraph[str] = nx.MultiGraph(name=self.name)
        for node in self.nodes:
            graph.add_node(node.name, title=node.title, position=node.position)
        for link in self.links:
            graph.add_edge(link.a, link.b, key=link.name, link=link)
        return graph


def checked_rate(low: Field, high: Field) -> tuple[int, int]:
    """The lowest and the highest number of bytes a slot, checked one by one and then against each other."""
    lowest, highest = low.whole(_MAX_BYTES_PER_SLOT), high.whole(_MAX_BYTES_PER_SLOT)
    if lowest > highest:
        raise low.expected(f"at most the highest number of bytes, which is {highest}")
    return lowest, highest
