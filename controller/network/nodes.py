"""What is known of a node: its agent, its ends of links, and what it reports of QCs. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from decisions.choice import OnDemand
from etsi import gs015


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: the node's name in its certificate, and the URL to call."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """A physical link as the node at one end shows it; `qc` is the name there, if it has one."""

    remote: str  # qkdn_id
    qc: str | None
    enabled: bool
    status: str
    skr: int  # bit/s
    eskr: int
    expected_consumption: int
    qber_percent: str | None

    @property
    def dry(self) -> bool:
        """Whether the node said that no key comes from it, though some did once."""
        return gs015.bare(self.status) in ("PASSIVE", "OFF")


@dataclass(slots=True)
class Node:
    """A node: its agent, its qkdn_id, its physical links by ID, its last slot, and whether the agent can be reached.

    `extended`: it has our module, too. `relays`: whether it passes keys of others on.
    """

    agent: Agent
    qkdn_id: str
    links: dict[str, LinkEnd]
    extended: bool
    reachable: bool = True
    slot: int = 0
    relays: bool = True

    def shown(self, end: LinkEnd) -> LinkEnd:
        """An end of a link as it counts: what a node said before it was gone is no longer so."""
        return end if self.reachable else replace(end, status=gs015.OFF, skr=0, eskr=0)


@dataclass(frozen=True, slots=True)
class Link:
    """A QC between two nodes (names in alphabetical order), and the ID of the physical link that it feeds."""

    qc: str
    link_id: str
    a: str
    b: str
    end_a: LinkEnd
    end_b: LinkEnd

    @property
    def ends(self) -> tuple[str, str]:
        """The nodes."""
        return self.a, self.b

    @property
    def enabled(self) -> bool:
        """Whether key generation is wanted at both ends."""
        return self.end_a.enabled and self.end_b.enabled

    @property
    def status(self) -> str:
        """The worse of both ends': no key comes from a link that one end has no stock of."""
        order = ("ACTIVE", "PASSIVE", "PENDING", "OFF")
        return max(gs015.bare(self.end_a.status), gs015.bare(self.end_b.status), key=order.index)

    @property
    def live(self) -> bool:
        """Whether keys can be expected of it: it generates, or it has never said that it does not."""
        return self.enabled and self.status in ("ACTIVE", "PENDING")


@dataclass(frozen=True, slots=True)
class Report:
    """What one node says of one QC for one slot, in bytes; `stored_bytes` is None if it is no QC of its own.

    `used_bytes`: taken out of it there, for whomever.
    """

    qc: str
    generated_bytes: int
    requested_bytes: int
    stored_bytes: int | None
    used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SwitchedQc:
    """A QC on demand: the physical link that lights it, and the interfaces that it has at the nodes at its ends.

    In the mean it makes `bytes_per_slot`, and has made enough for a key `ready_s` seconds after it was lit.
    """

    on_demand: OnDemand
    link_id: str
    interfaces: tuple[int, int]
    bytes_per_slot: float
    ready_s: float

    @property
    def qc(self) -> str:
        """Its name."""
        return self.on_demand.qc

    @property
    def ends(self) -> tuple[str, str]:
        """The nodes at its ends."""
        return self.on_demand.a, self.on_demand.b

    def link_at(self, node: str, ids: Mapping[str, str]) -> dict[str, Any]:
        """The physical link as the node at one end is to have it; `ids`: qkdn_id of both nodes."""
        here, there = (0, 1) if node == self.ends[0] else (1, 0)
        local, remote = self.ends[here], self.ends[there]
        return {
            "qkdl_id": self.link_id, "qkdl_enable": True, "qkdl_type": gs015.PHYS,
            "qkdl_local": {"qkdn_id": ids[local], "qkdi_id": self.interfaces[here]},
            "qkdl_remote": {"qkdn_id": ids[remote], "qkdi_id": self.interfaces[there]},
            "phys_qkd_role": gs015.TRANSMITTER if local < remote else gs015.RECEIVER,
        }  # fmt: skip
