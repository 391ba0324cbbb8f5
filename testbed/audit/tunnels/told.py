"""What gateways tell of the keys that they got, and of the tunnels that went by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.audit.evidence import ENDED, HELD, KEYED, OF_TUNNELS, Event, Journals, Meant, fact
from testbed.audit.lives import Lives, Word


class Got(NamedTuple):
    """A key that a gateway got from its node: on which side, what it is, when, in which trace."""

    side: str
    size_bits: int
    fingerprint: str
    mono: float
    trace: str


@dataclass(slots=True)
class Turn:
    """An end goes by a key from `mono` on, in its tunnel with the datacenter `peer`, until `until`.

    `kind` and `every_s`: of the tunnel's terms. `is_held`: it goes on under the key, as the user wished.
    """

    peer: str
    key_id: str
    mono: float
    kind: str
    every_s: float
    until: float = math.inf
    is_held: bool = False


@dataclass(slots=True)
class Gateway:
    """What the journal of the gateway at `node`, which is the SAE `sae`, tells. Unreadable. Times: see Lives.

    `got`: keys by ID. `turns`: in order. `in_vain`: sides and traces of what it asked for and did not get.
    """

    node: str
    sae: str
    lives: Lives
    got: dict[str, Got] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    in_vain: set[tuple[str, str]] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """What findings call it."""
        return f"the gateway of {self.node}"

    def read(self, events: Iterable[Event]) -> None:
        """Go through its journal."""
        now: dict[str, Turn] = {}  # by the other end
        for event in self.lives.read(events):
            name, mono = event["event"], fact(event, "mono", float, self.where)
            if name == "started":
                if set(fact(event, "saes", dict, self.where)) != {self.sae}:
                    self.findings.append(f"{self.where}: it is another SAE than it was meant to be")
                now.clear()
            elif name == "key":
                self._key(event, mono)
            elif name == "key_error":
                self.in_vain.add((fact(event, "side", str, self.where), str(event.get("trace"))))
            elif name in OF_TUNNELS:
                self._tunnel(now, name, event, mono)
        self.findings += self.lives.findings

    def may_lack(self, side: str, trace: str, at: float) -> bool:
        """Whether it may not tell of a key that its node gave it then: it says that it got none, or ended."""
        return (side, trace) in self.in_vain or self.lives.cut_off(at)

    def _key(self, event: Event, mono: float) -> None:
        key_id, side, mark = (fact(event, name, str, self.where) for name in ("key_id", "side", "fingerprint"))
        if key_id in self.got:
            self.findings.append(f"key {key_id}: {self.where} got it twice")
        size_bits = fact(event, "size_bits", int, self.where)
        self.got[key_id] = Got(side, size_bits, mark, mono, str(event.get("trace")))

    def _tunnel(self, now: dict[str, Turn], name: str, event: Event, mono: float) -> None:
        if fact(event, "node", str, self.where) != self.node:
            self.findings.append(f"{self.where}: it tells of a tunnel of another datacenter")
        peer = fact(event, "peer", str, self.where)
        before = now.get(peer)
        if name not in {ENDED, KEYED}:
            key_id = fact(event, "key_id", str, self.where)
            if before is None or before.key_id != key_id:
                self.findings.append(f"key {key_id}: {self.where} tells of its end ({name}), and not of its begin")
        if before is not None and name == HELD:
            before.is_held = True
        elif before is not None:
            before.until = mono
            del now[peer]
        if name == KEYED:
            key_id, kind = (fact(event, name, str, self.where) for name in ("key_id", "kind"))
            now[peer] = Turn(peer, key_id, mono, kind, fact(event, "every_s", float, self.where))
            self.turns.append(now[peer])


def read_gateways(
    meant: Meant, journals: Journals, words: Mapping[str, Word], findings: list[str]
) -> dict[str, Gateway]:
    """What each gateway tells that ran, by node; what is missing or contradicts itself goes to `findings`."""
    told = {}
    for node, sae in sorted(meant.gateways.items()):
        word, events = words[f"vpn-{node}"], journals.gateways.get(node)
        gateway = Gateway(node, sae, Lives(f"the gateway of {node}", word))
        if events is not None:
            told[node] = gateway
            gateway.read(events)
            findings += gateway.findings
        elif word.starts:
            findings.append(f"{gateway.where}: its journal is missing")
    return told
