"""What became of each key and of each allocation, by the journals of nodes and applications."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from testbed.audit.evidence import Event, Journals, Meant, Unreadable, fact, rows_of
from testbed.audit.lives import Lives, Word

ENC, DEC = "enc_keys", "dec_keys"
MASTER, SLAVE = SIDES = ("master", "slave")
KEY = "key"  # what a range over one hop is used for; over several hops it has another purpose

_UNANSWERED = "database_unreachable"  # the error of a statement to which no answer came


class Used(NamedTuple):
    """Bytes [start, end) of a QC, and what they were for (see `node.material.key_events`)."""

    qc: str
    start: int
    end: int
    purpose: str


class _HandedOut(NamedTuple):
    """A key that a node answered with: to which SAEs it belongs as the node says, and when it was asked for it.

    `trace`: of the request, which it shares with what led to it. `is_traced`: the client began that trace, as the run's
    own applications do, and clients that people run under their certificates do not.
    """

    pair: tuple[str, str]
    mono: float
    trace: str
    is_traced: bool


class _Got(NamedTuple):
    """A key that an application got from its node: where it runs, in which session, what the key is."""

    node: str
    ksid: str
    size_bits: int
    fingerprint: str
    mono: float
    trace: str


@dataclass(frozen=True, slots=True)
class Asked:
    """An allocation that a node asked for: from when until when, in which session, and for which keys.

    `given`: what the database answered with; None if no answer came (`is_unanswered`), or a refusal. `at_once`: no node
    between was to wait for the one before it. `enough`: so many of several paths had to bring their part; None: all.
    """

    begun: float
    mono: float
    ksid: str
    key_ids: list[str]
    given: list[Used] | None
    is_unanswered: bool
    at_once: bool
    enough: int | None


@dataclass(slots=True)
class Node:
    """What a node's journal tells; `findings`: where it contradicts itself. Unreadable.

    `handed_out`: keys by kind of request and ID; `untaken`: those of them whose client was gone. `lost`: what was told
    to be lost, by request. `used`: bytes by request and QC. `differing`: bytes that were others at the other end, by QC
    and epoch. `asked`: allocations by request. All times are seconds of the machine's monotonic clock.
    """

    name: str
    lives: Lives
    handed_out: dict[str, dict[str, _HandedOut]] = field(default_factory=lambda: {ENC: {}, DEC: {}})
    untaken: set[str] = field(default_factory=set)
    differing: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)
    lost: dict[str, list[Used]] = field(default_factory=lambda: collections.defaultdict(list))
    used: dict[tuple[str, str], list[Used]] = field(default_factory=lambda: collections.defaultdict(list))
    asked: dict[str, Asked] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def read(self, events: Iterable[Event]) -> None:
        """Go through its journal."""
        for event in self.lives.read(events):
            name, mono = event["event"], self._fact(event, "mono", float)
            if name == "key_delivered":
                self._delivered(event, mono)
            elif name == "statement" and event.get("statement") == "allocate":
                self._asked(event, mono)
            elif name == "lost" and "key_ids" in event:
                self._lost_on_the_way(self._fact(event, "key_ids", list))
            elif name == "lost":
                self.lost[self._fact(event, "allocation", str)] += rows_of(event, "ranges", Used, f"node {self.name}")
            elif name == "block_differs":
                stream = self._fact(event, "qc", str), self._fact(event, "epoch", int)
                self.differing[stream] += self._fact(event, "end", int) - self._fact(event, "start", int)
            elif name == "used":
                for row in rows_of(event, "ranges", Used, f"node {self.name}"):
                    self.used[self._fact(event, "allocation", str), row.qc].append(row)
        self.findings += self.lives.findings

    def _delivered(self, event: Event, mono: float) -> None:
        kind = self._fact(event, "method", str)
        if kind not in self.handed_out:
            raise Unreadable(f"journal of node {self.name}, event key_delivered: method: expected {ENC} or {DEC}")
        pair = self._fact(event, "master_sae", str), self._fact(event, "slave_sae", str)
        begun = mono - self._fact(event, "duration_ms", float) / 1000
        out = _HandedOut(pair, begun, str(event.get("trace")), is_traced="parent" in event)
        for key_id in self._fact(event, "key_ids", list):
            if self.handed_out[kind].setdefault(key_id, out) is not out:
                self.findings.append(f"key {key_id}: node {self.name} handed it out twice ({kind})")

    def _lost_on_the_way(self, key_ids: list[str]) -> None:
        for key_id in key_ids:
            if not any(key_id in handed_out for handed_out in self.handed_out.values()):
                self.findings.append(f"key {key_id}: node {self.name} says that its client was gone, and has none")
        self.untaken.update(key_ids)

    def _asked(self, event: Event, mono: float) -> None:
        refused = "error" in event or "short_bytes" in event
        given = None if refused else rows_of(event, "ranges", Used, f"node {self.name}")
        ksid, key_ids = self._fact(event, "ksid", str), self._fact(event, "key_ids", list)
        request = self._fact(event, "allocation", str)
        if request in self.asked:
            self.findings.append(f"allocation {request}: node {self.name} tells twice that it asked for it")
        begun = mono - self._fact(event, "duration_ms", float) / 1000
        is_unanswered = event.get("error") == _UNANSWERED
        enough = self._fact(event, "enough", int) if "enough" in event else None
        at_once = event.get("at_once") is True
        self.asked[request] = Asked(begun, mono, ksid, key_ids, given, is_unanswered, at_once, enough)

    def _fact(self, event: Event, name: str, kind: type) -> Any:
        return fact(event, name, kind, f"node {self.name}")


@dataclass(slots=True)
class Applications:
    """What the applications' journals tell; `findings`: where they contradict themselves. Unreadable.

    `got`: keys by side and ID. `pairs`: the SAEs of a session by its KSID, as its master says.
    """

    got: dict[str, dict[str, _Got]] = field(default_factory=lambda: {MASTER: {}, SLAVE: {}})
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    _given_up: set[tuple[str, str]] = field(default_factory=set)  # side and trace of what was asked for in vain
    _lives: dict[str, Lives] = field(default_factory=dict)  # by node

    def read(self, node: str, saes: set[str], events: Iterable[Event], word: Word) -> None:
        """Go through the journal of the applications at `node`, which are to be `saes`."""
        where = f"the applications at {node}"
        running: set[str] = set()
        greeted: list[tuple[str, str]] = []
        self._lives[node] = lives = Lives(where, word)
        for event in lives.read(events):
            name = event["event"]
            if name == "started":
                running |= fact(event, "saes", dict, where).keys()
            elif name == "key":
                self._key(node, event, where)
            elif name == "key_error":
                self._given_up.add((fact(event, "side", str, where), str(event.get("trace"))))
            elif name == "message" and event.get("ok") is True:
                greeted.append((fact(event, "side", str, where), fact(event, "key_id", str, where)))
            elif name == "session_open":
                pair = fact(event, "master_sae", str, where), fact(event, "slave_sae", str, where)
                self.pairs[fact(event, "ksid", str, where)] = pair
        self.findings += lives.findings
        if running != saes:
            self.findings.append(f"{where}: {', '.join(sorted(running ^ saes))}: not there, or not meant to be")
        for side, key_id in greeted:
            if key_id not in self.got.get(side, {}):
                self.findings.append(f"{where}: used key {key_id} as its {side}, and the journal has no such key")

    def may_lack(self, node: str, side: str, trace: str, after: float, before: float | None = None) -> bool:
        """Whether that side of a key, at `node`, may not tell of it: it asked in vain, or ended (see Lives.cut_off)."""
        lives = self._lives.get(node)
        return (side, trace) in self._given_up or (lives is not None and lives.cut_off(after, before))

    def _key(self, node: str, event: Event, where: str) -> None:
        key_id, side, ksid, mark = (fact(event, name, str, where) for name in ("key_id", "side", "ksid", "fingerprint"))
        if side not in SIDES:
            raise Unreadable(f"journal of {where}, event key: side: expected {MASTER} or {SLAVE}")
        if key_id in self.got[side]:
            self.findings.append(f"key {key_id}: its {side} got it twice")
        size_bits, at = fact(event, "size_bits", int, where), fact(event, "mono", float, where)
        self.got[side][key_id] = _Got(node, ksid, size_bits, mark, at, str(event.get("trace")))


def read_nodes(meant: Meant, journals: Journals, words: Mapping[str, Word], findings: list[str]) -> dict[str, Node]:
    """What each node's journal tells; what is missing or contradicts itself goes to `findings`."""
    told = {}
    for name in sorted(meant.nodes):
        told[name] = node = Node(name, Lives(f"node {name}", words[f"node-{name}"], finishes=True))
        events = journals.nodes.get(name)
        if events is None:
            findings.append(f"node {name}: its journal is missing")
        else:
            node.read(events)
        findings += node.findings
    return told


def read_applications(
    meant: Meant, journals: Journals, words: Mapping[str, Word], findings: list[str]
) -> Applications:
    """What the applications' journals tell; what is missing or contradicts itself goes to `findings`."""
    told = Applications()
    for name in meant.hosts:
        events = journals.saes.get(name)
        if events is None:
            findings.append(f"the applications at {name}: their journal is missing")
        else:
            saes = {sae for sae, of in meant.saes.items() if of.ours and of.node == name}
            told.read(name, saes, events, words[f"sae-{name}"])
    findings += told.findings
    return told
