"""What a run in virtual time leaves behind: the journals and records of a run on real parts, in the same form.

So a summary, an audit, figures and stories read both. Times are of virtual time, and begin when the oldest QC began.
Nothing takes any time, and there is no key: what stands for the fingerprint of one is made of where it lies. IDs are
drawn from the seed, so the same scenario leaves the same files to the byte.
"""

from __future__ import annotations

import json
import random
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from decisions.admission import Refused
from decisions.modes import KEY, MODES
from decisions.parameters import PARAMETERS
from decisions.paths import Path as Way
from decisions.ranges import Range, Shortage
from scenario.quantum.qc_models import intercepted
from scenario.scenario import Scenario
from scenario.topology_description import Sae
from simulation.journals import Journal, Span
from simulation.keys import Key, cut, mark, several
from simulation.qcs import QcState
from simulation.sessions import Session, Witness

_EPOCH = 1  # of every QC: its device is started once
_INSTANT_S = 1e-6  # by which what comes of something is later: stories are told in order of time
_BEFORE_S, _AFTER_S = 1.0, 1.0  # processes begin before anything happens, and end after
_ENC, _DEC = "enc_keys", "dec_keys"


class Recorder(Witness):
    """Writes into folder `run` what it is told of a simulation of `scenario` on `qcs`."""

    def __init__(self, run: Path, scenario: Scenario, qcs: Mapping[str, QcState]) -> None:
        self._run = run
        self._scenario = scenario
        self._mode = MODES[scenario.parameter("mode")]
        self._qcs = qcs
        self._ids = random.Random(f"{scenario.seed}/ids")  # noqa: S311 - names, no key
        self._oldest_s = min((qc.supply.made_s(0) for qc in qcs.values()), default=0.0)
        self._journals: dict[str, Journal] = {}
        self._sae_ids = {sae.name: sae.id or self._uuid() for sae in scenario.topology.saes}
        self._ksids: dict[int, str] = {}
        self._waiting: dict[int, deque[Key]] = {}  # keys made ahead, by session
        self._allocations: list[list[Any]] = []
        self._keys: list[list[Any]] = []
        self._models = {qc.name: qc.makes for qc, _, _ in scenario.topology.qcs()}
        self._past = {one.qc: one.past for one in scenario.topology.on_demand()}
        self._silent: set[str] = set()  # QCs of which an eavesdropper leaves nothing
        self._taken: dict[str, list[list[Any]]] = {node.name: [] for node in scenario.topology.nodes}
        self._of_qcs: list[tuple[float, str, dict[str, Any]]] = []  # what befell them, as their journal has it
        self._traces = self._spans = 0
        self._begin()

    def opened(self, session: Session, now_s: float) -> None:
        """On a path."""
        ksid = self._ksids[session.number] = self._uuid()
        assert session.path is not None  # noqa: S101 - it is open
        pair, paths = self._pair(session), [list(path.nodes) for path in session.path.paths]
        path = list(session.path.nodes)
        self._waiting[session.number] = deque()
        at_s, whole = self._at(now_s), self._root()
        at_controller = self._asked_for(session, at_s, whole)
        mode = self._scenario.parameter("mode")
        self._journal("controller", "controller").event(
            at_s, "ksid_assigned", ksid=ksid, path=path, paths=paths, mode=mode, **pair, **at_controller.ids
        )
        self._of_saes(session.arrival.master).event(
            at_s + _INSTANT_S, "session_open", ksid=ksid, path=path, paths=paths, hops=session.hops,
            ask_connection_ms=0.0, open_key_session_ms=0.0, total_ms=0.0, **pair, **whole.ids,
        )  # fmt: skip

    def refused(self, session: Session, now_s: float, why: Refused | None, paths: int) -> None:
        """None: there is no path; or there are so many node-disjoint `paths`, fewer than the mode needs."""
        at_s, whole = self._at(now_s), self._root()
        at_controller = self._asked_for(session, at_s, whole)
        if why is None and paths:
            text = f"mode {self._mode.name} needs {self._mode.paths} node-disjoint paths; there are {paths}"
            facts: dict[str, Any] = {
                "cause": "too_few_paths", "needed": self._mode.paths, "paths": paths, "message": text
            }
        elif why is None:
            facts = {"cause": "no_path", "message": "there is no path of QCs"}
        else:
            text = f"QC {why.qc} cannot carry the session: it needs {why.needed_bytes} bytes"
            facts = {
                "cause": "refused", "qc": why.qc, "needed_bytes": why.needed_bytes,
                "available_bytes": why.available_bytes, "message": f"{text}, {why.available_bytes} are available",
            }  # fmt: skip
        facts |= self._pair(session)
        self._journal("controller", "controller").event(at_s, "application_refused", **facts, **at_controller.ids)
        own = self._of_saes(session.arrival.master)
        own.event(at_s + _INSTANT_S, "session_refused", status=503, **facts, **whole.ids)

    def _asked_for(self, session: Session, at_s: float, whole: Span) -> Span:
        """The master asks its node for a session, and the node the controller; where that decides."""
        own, node = self._of_saes(session.arrival.master), session.arrival.master.node
        own.event(at_s, "session_requested", **self._wanted(session), **self._pair(session), **whole.ids)
        by = f"sae:{self._sae_ids[session.arrival.master.name]}"
        at_node = self._call(own, at_s, whole, f"node:{node}", "/qkd/v1/key_sessions", by=by)
        self._of_node(node).event(at_s, "new_app", side="master", **self._pair(session), **at_node.ids)
        return Span(whole.trace, self._span(), at_node.span)

    def moved(self, session: Session, now_s: float, before: Way) -> None:
        """To another path."""
        assert session.path is not None  # noqa: S101 - it is open
        self._journal("controller", "controller").event(
            self._at(now_s), "session_moved", ksid=self._ksids[session.number], before=list(before.nodes),
            path=list(session.path.nodes), paths=[list(p.nodes) for p in session.path.paths], down=[],
            duration_ms=0.0, **self._pair(session),
        )  # fmt: skip

    def switched(self, qc: str, now_s: float, *, lit: bool) -> None:
        """A QC on demand is lit, or goes dark."""
        facts = {"past": list(self._past[qc])} if lit else {}
        self._journal("controller", "controller").event(
            self._at(now_s), "qc_lit" if lit else "qc_dark", qc=qc, **facts
        )

    def intercepted(self, qc: str, now_s: float, eve: float) -> None:
        """From now on that part of the QC's pulses is; 0 if nobody listens any more."""
        rate, qber = intercepted(self._models[qc], eve)
        self._of_qcs.append((now_s, "eve", {"qc": qc, "eve": eve}))
        if (qc in self._silent) == bool(rate):
            self._silent ^= {qc}
            what = "key_again" if rate else "no_key"
            self._of_qcs.append((now_s, what, {"qc": qc, "qber_percent": round(100 * qber, 3)}))

    def served(self, session: Session, now_s: float, ranges: Sequence[Range], number: int) -> None:
        """A key; `ranges` of those made for it and others, `number` in all. None were made if it waited."""
        at_s, waiting = self._at(now_s), self._waiting[session.number]
        pair, master, slave = self._pair(session), session.arrival.master, session.arrival.slave
        own, of_slave, whole = self._of_saes(master), self._of_saes(slave), self._root()
        asks, answers = f"sae:{pair['master_sae']}", f"sae:{pair['slave_sae']}"
        at_master = self._call(
            own, at_s, whole, f"node:{master.node}", f"/api/v1/keys/{pair['slave_sae']}/{_ENC}", by=asks
        )
        source = "pool"
        if ranges:
            source = "direct" if number == 1 else "refill"
            waiting.clear()
            waiting.extend(self._make(session, at_s, ranges, number, at_master))
        while len(waiting) > len(session.pool) + 1:  # the oldest were too old
            waiting.popleft()
        key, size_bits = waiting.popleft(), 8 * session.key_bytes
        hops, ksid = session.hops, self._ksids[session.number]
        common = {"key_ids": [key.key_id], "duration_ms": 0.0, **pair}
        self._of_node(master.node).event(
            at_s, "key_delivered", method=_ENC, ksid=ksid, hops=hops, source=source, size_bits=size_bits,
            mode=self._scenario.parameter("mode"), **common, **at_master.ids,
        )  # fmt: skip
        told = self._call(own, at_s, whole, answers, "/sae/v1/keys", by=asks)
        at_slave = self._call(
            of_slave, at_s, told, f"node:{slave.node}", f"/api/v1/keys/{pair['master_sae']}/{_DEC}", by=answers
        )
        self._of_node(slave.node).event(at_s, "key_delivered", method=_DEC, **common, **at_slave.ids)
        for journal, side, span, later in ((of_slave, "slave", told, 1), (own, "master", whole, 2)):
            journal.event(
                at_s + later * _INSTANT_S, "key", ksid=ksid, side=side, key_id=key.key_id, size_bits=size_bits,
                fingerprint=key.mark, **span.ids,
            )  # fmt: skip

    def failed(self, session: Session, now_s: float, cause: str, short: Shortage | None) -> None:
        """A key error."""
        at_s, ksid, whole = self._at(now_s), self._ksids[session.number], self._root()
        own, node, pair = self._of_saes(session.arrival.master), session.arrival.master.node, self._pair(session)
        way, by = f"/api/v1/keys/{pair['slave_sae']}/{_ENC}", f"sae:{pair['master_sae']}"
        at_node = self._call(own, at_s, whole, f"node:{node}", way, status=503, cause=cause, by=by)
        facts = {} if short is None else {"qc": short.qc, "short_bytes": short.short_bytes}
        message = f"QC {short.qc} lacks {short.short_bytes} bytes of key material" if short else cause
        self._of_node(node).event(
            at_s, "key_failed", method=_ENC, ksid=ksid, cause=cause, duration_ms=0.0, **facts, **pair, **at_node.ids
        )
        own.event(
            at_s + _INSTANT_S, "key_error", ksid=ksid, side="master", cause=cause, message=message, facts=facts,
            **whole.ids,
        )  # fmt: skip

    def ended(self, session: Session, now_s: float) -> None:
        """It is over."""
        self._of_saes(session.arrival.master).event(
            self._at(now_s), "session_closed", ksid=self._ksids[session.number], reason="duration",
            keys=session.requests - session.failed, errors={}, errors_said={},
        )  # fmt: skip

    def close(self, now_s: float) -> None:
        """Nothing happens any more: what QCs made is written down, and the records for an audit."""
        end_s = self._at(now_s) + _AFTER_S
        self._tell_blocks(now_s)
        self._journal("qcs", "qcs").event(end_s, "stopped", waiting=[])
        for node in self._taken:
            self._of_node(node).event(end_s, "stopped")
        for node in self._hosts():
            self._journal(f"saes/{node}", f"sae:{node}").event(end_s, "stopped")
        self._journal("controller", "controller").event(end_s, "stopped")
        for journal in self._journals.values():
            journal.flush()
        (self._run / "audit.json").write_text(json.dumps(self._records(now_s)), encoding="utf-8")

    def _begin(self) -> None:
        nodes, hosts, start_s = list(self._taken), self._hosts(), _BEFORE_S / 2
        processes = ["controller", *(f"node-{n}" for n in nodes), *(f"sae-{n}" for n in hosts), "qcs"]
        for process in processes:
            self._journal("logs", "run").event(0.0, "begun", process=process)
        for process in processes:
            self._journal("logs", "run").event(start_s, "ready", process=process)
        own = [("controller", "controller"), ("qcs", "qcs"), *((f"nodes/{n}", f"node:{n}") for n in nodes)]
        for folder, who in own:
            self._journal(folder, who).event(start_s, "started")
        wanted = {name: self._scenario.parameter(name) for name in PARAMETERS}
        self._journal("controller", "controller").event(start_s, "parameters", **wanted)
        saes = [sae for sae in self._scenario.topology.saes if not sae.external]
        for node in hosts:
            ours = {self._sae_ids[sae.name]: sae.name for sae in saes if sae.node == node}
            self._journal(f"saes/{node}", f"sae:{node}").event(start_s, "started", saes=ours)

    def _make(
        self, session: Session, at_s: float, ranges: Sequence[Range], number: int, inside: Span
    ) -> list[Key]:
        """Keys made of those ranges, as a part of a request at the first node."""
        assert session.path is not None  # noqa: S101 - it is open
        allocation, key_ids = self._uuid(), [self._uuid() for _ in range(number)]
        pair, path = self._pair(session), session.path.within([r.qc for r in ranges])
        uses = self._mode.uses(ranges, session.key_bytes, number, double_at_last=path.double_at_last)
        told = [[r.qc, r.start, r.end, purpose] for r, purpose in uses]
        self._of_node(path.nodes[0]).event(
            at_s, "statement", statement="allocate", at=round(at_s, 6), duration_ms=0.0, allocation=allocation,
            ksid=self._ksids[session.number], mode=self._mode.name, cipher=self._mode.cipher,
            at_once=self._mode.at_once, path=list(path.nodes), key_ids=key_ids, ranges=told,
            **several(path, self._mode), **inside.ids,
        )  # fmt: skip
        for position, r in enumerate(ranges, start=1):
            self._allocations.append([allocation, position, r.qc, _EPOCH, r.start, r.end, path.nodes[0]])
        self._keys += [[key_id, allocation, pair["master_sae"], pair["slave_sae"]] for key_id in key_ids]
        here = inside
        for place, node in enumerate(path.nodes):
            if place and len(ranges) > 1:
                here = self._told(at_s, inside, here, nodes=path.nodes, place=place, allocation=allocation)
            at_both_sides = [qc for at, qc in enumerate(path.qcs) if node in path.joined_by(at)]
            mine = [(r, purpose) for r, purpose in uses if r.qc in at_both_sides]
            if len(ranges) == 1 and place == 1:  # over one hop the slave's node takes key by key
                mine = [(part, KEY) for part in cut(ranges[0], number)]
                here = self._root()
                self._of_node(node).event(
                    at_s, "statement", statement="collect", at=round(at_s, 6), duration_ms=0.0, key_ids=key_ids,
                    allocations=[allocation], made_in=[inside.trace], ahead=[], ranges=told, **here.ids,
                )  # fmt: skip
            for r, _ in mine:
                made_s = self._at(self._made_s(self._qcs[r.qc], r.start))
                self._taken[node].append([r.qc, _EPOCH, r.start, r.end, made_s, at_s, allocation])
            self._of_node(node).event(
                at_s, "used", allocation=allocation, ranges=[[r.qc, r.start, r.end, purpose] for r, purpose in mine],
                **here.ids,
            )  # fmt: skip
            if self._mode.at_once and 0 < place < len(path.nodes) - 1:
                to_last = f"node:{path.nodes[-1]}", f"/qkd/v1/relay/{allocation}/difference"
                self._call(self._of_node(node), at_s, here, *to_last, status=204)
        if len(ranges) > 1:
            what = "check" if self._mode.cipher is None else "new_keys" if path.double_at_last else "keys"
            first, last = self._of_node(path.nodes[0]), path.nodes[-1]
            to_last = f"node:{last}", f"/qkd/v1/relay/{allocation}/{what}"
            at_last = here if self._mode.at_once else self._call(first, at_s, inside, *to_last)
            self._of_node(last).event(
                at_s, "keys_relayed", ksid=self._ksids[session.number], allocation=allocation, key_ids=key_ids,
                **at_last.ids,
            )  # fmt: skip
        return [Key(key_id, allocation, mark(ranges, i)) for i, key_id in enumerate(key_ids)]

    def _told(
        self, at_s: float, inside: Span, before: Span, *, nodes: Sequence[str], place: int, allocation: str
    ) -> Span:
        """What the node at that place of a path does with its pads, as it is told to: by the one before, in whose span
        that is, or by the first one.
        """
        path, teller, span = f"/qkd/v1/relay/{allocation}", nodes[place - 1], before
        if self._mode.at_once:
            path += "/pads" if place < len(nodes) - 1 else "/sealed"
            teller, span = nodes[0], inside
        return self._call(self._of_node(teller), at_s, span, f"node:{nodes[place]}", path)

    @staticmethod
    def _made_s(qc: QcState, byte: int) -> float:
        """When the block of that byte was made."""
        return qc.supply.made_s(bisect_right(qc.supply.heads, byte) - 1)

    def _tell_blocks(self, now_s: float) -> None:
        """In the order in which they were made."""
        journal = self._journal("qcs", "qcs")
        told: list[tuple[float, str, Any]] = []
        for name, qc in sorted(self._qcs.items()):
            heads = qc.supply.heads
            for n in range(qc.supply.made(now_s)):
                made_s, n_bytes = qc.supply.made_s(n), heads[n + 1] - heads[n]
                told.append((made_s, "block", (name, n, heads[n], n_bytes)))
        for at_s, what, facts in sorted([*told, *self._of_qcs], key=itemgetter(0)):  # of one time blocks come first
            if isinstance(facts, dict):
                journal.event(self._at(at_s), what, **facts)
                continue
            name, number, offset, n_bytes = facts
            made = self._at(at_s)
            journal.event(
                made, what, qc=name, sequence=number, epoch=_EPOCH, slot=number, offset=offset, n_bytes=n_bytes,
                made=made, known=made,
            )  # fmt: skip

    def _records(self, now_s: float) -> dict[str, Any]:
        """What an audit needs beside the journals."""
        topology, ttl_slots = self._scenario.topology, self._scenario.parameter("ttl_slots")
        return {
            "meant": {
                "nodes": sorted(self._taken),
                "qcs": {qc.name: [a, b, 1.0] for qc, a, b in topology.qcs()},
                "saes": {self._sae_ids[s.name]: [s.node, int(not s.external)] for s in topology.saes},
                "ttl_slots": ttl_slots, "gateways": {},
            },
            "nodes": {
                node: {"streams": self._streams(node, now_s), "taken": taken}
                for node, taken in self._taken.items()
            },
            "lacking": {}, "allocations": self._allocations, "keys": self._keys,
        }  # fmt: skip

    def _streams(self, node: str, now_s: float) -> list[dict[str, Any]]:
        """The balance of each QC at that node."""
        used: dict[str, int] = {}
        tails: dict[str, int] = {}
        for qc, _, start, end, *_ in self._taken[node]:
            used[qc] = used.get(qc, 0) + end - start
            tails[qc] = max(tails.get(qc, 0), end)
        found = []
        for qc, *ends in self._scenario.topology.qcs():
            if node not in ends:
                continue
            supply = self._qcs[qc.name].supply
            head = supply.heads[supply.made(now_s)]
            kept = max(tails.get(qc.name, 0), self._qcs[qc.name].oldest(now_s))
            taken, stored = used.get(qc.name, 0), max(0, head - kept)
            found.append(
                {"qc": qc.name, "epoch": _EPOCH, "head": head, "generated": head, "used": taken,
                 "expired": head - taken - stored, "stored": stored, "differing": 0}
            )  # fmt: skip
        return found

    def _hosts(self) -> list[str]:
        """Nodes with SAEs of our own."""
        return sorted({sae.node for sae in self._scenario.topology.saes if not sae.external})

    def _pair(self, session: Session) -> dict[str, str]:
        arrival = session.arrival
        return {"master_sae": self._sae_ids[arrival.master.name], "slave_sae": self._sae_ids[arrival.slave.name]}

    @staticmethod
    def _wanted(session: Session) -> dict[str, Any]:
        return {"duration_s": session.arrival.length_s, **session.arrival.qos.to_json()}

    def _of_node(self, node: str) -> Journal:
        return self._journal(f"nodes/{node}", f"node:{node}")

    def _of_saes(self, sae: Sae) -> Journal:
        return self._journal(f"saes/{sae.node}", f"sae:{sae.node}")

    def _journal(self, folder: str, who: str) -> Journal:
        if folder not in self._journals:
            self._journals[folder] = Journal(self._run / folder / "journal.jsonl", who)
        return self._journals[folder]

    def _at(self, virtual_s: float) -> float:
        """A time as journals have it: none is negative."""
        return virtual_s - self._oldest_s + _BEFORE_S

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _root(self) -> Span:
        """A new trace."""
        self._traces += 1
        return Span(f"{self._traces:032x}", self._span())

    def _span(self) -> str:
        self._spans += 1
        return f"{self._spans:016x}"

    def _call(
        self, journal: Journal, at_s: float, inside: Span, to: str, path: str, *, status: int = 200, **facts: Any
    ) -> Span:
        """A request that is a part of `inside`; what is done for it where it comes to."""
        span = self._span()
        journal.event(
            at_s, "call", trace=inside.trace, span=span, parent=inside.span, to=to, method="POST", path=path,
            at=round(at_s, 6), duration_ms=0.0, status=status, **facts,
        )  # fmt: skip
        return Span(inside.trace, self._span(), span)
