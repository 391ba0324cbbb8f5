"""What a run in virtual time leaves behind: the journals and records of a run on real parts, in the same form.

So a summary, an audit, figures and stories read both. Times are of virtual time, and begin when the oldest QC began.
Nothing takes any time, and there is no key: what stands for the fingerprint of one is made of where it lies. IDs are
drawn from the seed, so the same scenario leaves the same files to the byte.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decisions.admission import Refused
from decisions.modes import KEY, MODES
from decisions.parameters import PARAMETERS
from decisions.paths import Path as Way
from decisions.ranges import Range, Shortage
from scenario.scenario import Scenario
from scenario.topology_description import Sae
from simulation.engine import Session, Witness
from simulation.qcs import QcState

_EPOCH = 1  # of every QC: its device is started once
_LINES_AT_ONCE = 10_000
_BEFORE_S, _AFTER_S = 1.0, 1.0  # processes begin before anything happens, and end after
_ENC, _DEC = "enc_keys", "dec_keys"


@dataclass(slots=True)
class _Journal:
    """A file of events, one JSON object a line."""

    path: Path
    who: str
    lines: list[str] = field(default_factory=list)

    def event(self, at_s: float, name: str, **facts: Any) -> None:
        """One line."""
        common = {"time": round(at_s, 6), "mono": round(at_s, 6), "who": self.who, "event": name}
        self.lines.append(json.dumps(common | facts, separators=(",", ":")))
        if len(self.lines) >= _LINES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """All that was said is in the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self.lines)
        self.lines.clear()


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that was made: its ID, what it was allocated by, and what stands for its fingerprint."""

    key_id: str
    allocation: str
    mark: str


class Recorder(Witness):
    """Writes into folder `run` what it is told of a simulation of `scenario` on `qcs`."""

    def __init__(self, run: Path, scenario: Scenario, qcs: Mapping[str, QcState]) -> None:
        self._run = run
        self._scenario = scenario
        self._mode = MODES[scenario.parameter("mode")]
        self._qcs = qcs
        self._ids = random.Random(f"{scenario.seed}/ids")  # noqa: S311 - names, no key
        self._oldest_s = min((qc.supply.made_s(0) for qc in qcs.values()), default=0.0)
        self._journals: dict[str, _Journal] = {}
        self._sae_ids = {sae.name: sae.id or self._uuid() for sae in scenario.topology.saes}
        self._ksids: dict[int, str] = {}
        self._waiting: dict[int, deque[_Key]] = {}  # keys made ahead, by session
        self._allocations: list[list[Any]] = []
        self._keys: list[list[Any]] = []
        self._taken: dict[str, list[list[Any]]] = {node.name: [] for node in scenario.topology.nodes}
        self._traces = 0
        self._begin()

    def opened(self, session: Session, now_s: float) -> None:
        """On a path."""
        ksid = self._ksids[session.number] = self._uuid()
        pair, path = self._pair(session), list(session.path.nodes if session.path is not None else ())
        self._waiting[session.number] = deque()
        at_s = self._at(now_s)
        self._journal("controller", "controller").event(at_s, "ksid_assigned", ksid=ksid, path=path, **pair)
        own = self._of_saes(session.arrival.master)
        own.event(at_s, "session_requested", **self._wanted(session), **pair)
        own.event(
            at_s, "session_open", ksid=ksid, path=path, hops=len(path) - 1, ask_connection_ms=0.0,
            open_key_session_ms=0.0, total_ms=0.0, **pair,
        )  # fmt: skip

    def refused(self, session: Session, now_s: float, why: Refused | None) -> None:
        """None: there is no path."""
        own, at_s = self._of_saes(session.arrival.master), self._at(now_s)
        own.event(at_s, "session_requested", **self._wanted(session), **self._pair(session))
        if why is None:
            facts: dict[str, Any] = {"cause": "no_path", "message": "there is no path of QCs"}
        else:
            text = f"QC {why.qc} cannot carry the session: it needs {why.needed_bytes} bytes"
            facts = {
                "cause": "refused", "qc": why.qc, "needed_bytes": why.needed_bytes,
                "available_bytes": why.available_bytes, "message": f"{text}, {why.available_bytes} are available",
            }  # fmt: skip
        own.event(at_s, "session_refused", status=503, **facts, **self._pair(session))

    def moved(self, session: Session, now_s: float, before: Way) -> None:
        """To another path."""
        assert session.path is not None  # noqa: S101 - it is open
        self._journal("controller", "controller").event(
            self._at(now_s), "session_moved", ksid=self._ksids[session.number], before=list(before.nodes),
            path=list(session.path.nodes), down=[], duration_ms=0.0, **self._pair(session),
        )  # fmt: skip

    def served(self, session: Session, now_s: float, ranges: Sequence[Range], number: int) -> None:
        """A key; `ranges` of those made for it and others, `number` in all. None were made if it waited."""
        at_s, waiting = self._at(now_s), self._waiting[session.number]
        source = "pool"
        if ranges:
            source = "direct" if number == 1 else "refill"
            waiting.clear()
            waiting.extend(self._make(session, at_s, ranges, number))
        while len(waiting) > len(session.pool) + 1:  # the oldest were too old
            waiting.popleft()
        key, (trace, size_bits) = waiting.popleft(), (self._trace(), 8 * session.key_bytes)
        pair, hops, ksid = self._pair(session), len(session.qcs), self._ksids[session.number]
        master, slave = session.arrival.master, session.arrival.slave
        common = {"key_ids": [key.key_id], "duration_ms": 0.0, "trace": trace, "parent": trace[:16], **pair}
        self._of_node(master.node).event(
            at_s, "key_delivered", method=_ENC, ksid=ksid, hops=hops, source=source, size_bits=size_bits,
            mode=self._scenario.parameter("mode"), **common,
        )  # fmt: skip
        self._of_node(slave.node).event(at_s, "key_delivered", method=_DEC, **common)
        for sae, side in ((slave, "slave"), (master, "master")):
            self._of_saes(sae).event(
                at_s, "key", ksid=ksid, side=side, key_id=key.key_id, size_bits=size_bits, fingerprint=key.mark,
                trace=trace,
            )  # fmt: skip

    def failed(self, session: Session, now_s: float, cause: str, short: Shortage | None) -> None:
        """A key error."""
        at_s, ksid, trace = self._at(now_s), self._ksids[session.number], self._trace()
        facts = {} if short is None else {"qc": short.qc, "short_bytes": short.short_bytes}
        message = f"QC {short.qc} lacks {short.short_bytes} bytes of key material" if short else cause
        self._of_node(session.arrival.master.node).event(
            at_s, "key_failed", method=_ENC, ksid=ksid, cause=cause, duration_ms=0.0, trace=trace, parent=trace[:16],
            **facts, **self._pair(session),
        )  # fmt: skip
        self._of_saes(session.arrival.master).event(
            at_s, "key_error", ksid=ksid, side="master", cause=cause, message=message, facts=facts, trace=trace
        )

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

    def _make(self, session: Session, at_s: float, ranges: Sequence[Range], number: int) -> list[_Key]:
        """Keys made of those ranges."""
        assert session.path is not None  # noqa: S101 - it is open
        allocation, key_ids, path = self._uuid(), [self._uuid() for _ in range(number)], session.path
        pair = self._pair(session)
        uses = self._mode.uses(ranges, session.key_bytes, number)
        told = [[r.qc, r.start, r.end, purpose] for r, purpose in uses]
        self._of_node(path.nodes[0]).event(
            at_s, "statement", statement="allocate", at=round(at_s, 6), duration_ms=0.0, allocation=allocation,
            ksid=self._ksids[session.number], mode=self._mode.name, cipher=self._mode.cipher, path=list(path.nodes),
            key_ids=key_ids, ranges=told,
        )  # fmt: skip
        for position, r in enumerate(ranges, start=1):
            self._allocations.append([allocation, position, r.qc, _EPOCH, r.start, r.end, path.nodes[0]])
        self._keys += [[key_id, allocation, pair["master_sae"], pair["slave_sae"]] for key_id in key_ids]
        for place, node in enumerate(path.nodes):
            at_both_sides = path.qcs[max(0, place - 1) : place + 1]
            mine = [(r, purpose) for r, purpose in uses if r.qc in at_both_sides]
            if len(ranges) == 1 and place == 1:  # over one hop the slave's node takes key by key
                mine = [(part, KEY) for part in _cut(ranges[0], number)]
            for r, _ in mine:
                made_s = self._at(self._made_s(self._qcs[r.qc], r.start))
                self._taken[node].append([r.qc, _EPOCH, r.start, r.end, made_s, at_s, allocation])
            self._of_node(node).event(
                at_s, "used", allocation=allocation, ranges=[[r.qc, r.start, r.end, purpose] for r, purpose in mine]
            )
        return [_Key(key_id, allocation, _mark(ranges, i)) for i, key_id in enumerate(key_ids)]

    @staticmethod
    def _made_s(qc: QcState, byte: int) -> float:
        """When the block of that byte was made."""
        return qc.supply.made_s(bisect_right(qc.supply.heads, byte) - 1)

    def _tell_blocks(self, now_s: float) -> None:
        """In the order in which they were made."""
        journal, blocks = self._journal("qcs", "qcs"), []
        for name, qc in self._qcs.items():
            heads = qc.supply.heads
            blocks += [(qc.supply.made_s(n), name, n, heads[n], heads[n + 1] - heads[n])
                       for n in range(qc.supply.made(now_s))]  # fmt: skip
        for made_s, name, number, offset, n_bytes in sorted(blocks):
            at_s = self._at(made_s)
            journal.event(
                at_s, "block", qc=name, sequence=number, epoch=_EPOCH, slot=number, offset=offset, n_bytes=n_bytes,
                made=at_s, known=at_s,
            )  # fmt: skip

    def _records(self, now_s: float) -> dict[str, Any]:
        """What an audit needs beside the journals."""
        topology, ttl_slots = self._scenario.topology, self._scenario.parameter("ttl_slots")
        return {
            "meant": {
                "nodes": sorted(self._taken),
                "qcs": {qc.name: [link.a, link.b, 1.0] for link in topology.links for qc in link.qcs},
                "saes": {self._sae_ids[s.name]: [s.node, int(not s.external)] for s in topology.saes},
                "ttl_slots": ttl_slots,
            },
            "nodes": {
                node: {"streams": self._streams(node, now_s, ttl_slots), "taken": taken}
                for node, taken in self._taken.items()
            },
            "lacking": {}, "allocations": self._allocations, "keys": self._keys,
        }  # fmt: skip

    def _streams(self, node: str, now_s: float, ttl_slots: int) -> list[dict[str, Any]]:
        """The balance of each QC at that node."""
        used: dict[str, int] = {}
        tails: dict[str, int] = {}
        for qc, _, start, end, *_ in self._taken[node]:
            used[qc] = used.get(qc, 0) + end - start
            tails[qc] = max(tails.get(qc, 0), end)
        found = []
        for link in self._scenario.topology.links:
            for qc in link.qcs if node in (link.a, link.b) else ():
                supply = self._qcs[qc.name].supply
                head = supply.heads[supply.made(now_s)]
                kept = max(tails.get(qc.name, 0), supply.heads[supply.made(now_s - ttl_slots)])
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

    def _of_node(self, node: str) -> _Journal:
        return self._journal(f"nodes/{node}", f"node:{node}")

    def _of_saes(self, sae: Sae) -> _Journal:
        return self._journal(f"saes/{sae.node}", f"sae:{sae.node}")

    def _journal(self, folder: str, who: str) -> _Journal:
        if folder not in self._journals:
            self._journals[folder] = _Journal(self._run / folder / "journal.jsonl", who)
        return self._journals[folder]

    def _at(self, virtual_s: float) -> float:
        """A time as journals have it: none is negative."""
        return virtual_s - self._oldest_s + _BEFORE_S

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _trace(self) -> str:
        self._traces += 1
        return f"{self._traces:032x}"


def _mark(ranges: Sequence[Range], number: int) -> str:
    """What stands for the fingerprint of key `number` of those made of these ranges. PURE."""
    where = [(r.qc, r.start, r.end, number) for r in ranges]
    return hashlib.sha256(repr(where).encode()).hexdigest()


def _cut(whole: Range, number: int) -> list[Range]:
    """A range in equal parts. PURE."""
    n_bytes = len(whole) // number
    return [Range(whole.qc, whole.start + i * n_bytes, whole.start + (i + 1) * n_bytes) for i in range(number)]
