"""A small run, played by hand: the records and journals that a faultless network of three nodes leaves.

Three nodes in a row, a slot a second, 70 slots, times as in a real run. In it is everything that is legal: all modes,
over one hop and two, keys made ahead and never asked for, a block that an end never got, a device that was started
anew, a TTL that was changed, a node that crashed, requests that failed and are told as lost, clients of the user's own
that keep no journal, a slave that could not be reached in time, a tunnel between a and b.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from typing import Any

from decisions.modes import MODES
from testbed.audit.evidence import Journals, records
from testbed.audit.verdict import Verdict, audit

BOOT, WALL = 5000.0, 1.8e9  # seconds from the monotonic clock to the others
SLOTS, BLOCK, TTL = 70, 400, 15
QCS = {"a-b/1": ["a", "b"], "b-c/1": ["b", "c"]}
SAES = {f"{kind}-{node}": [node, ours] for kind, ours in (("sae", 1), ("own", 0), ("gw", 0)) for node in "abc"}
GATEWAYS = {node: f"gw-{node}" for node in "abc"}
RESTART = 40  # the slot in which the device of b-c/1 begins to count anew


class Run:
    """Records and journals, as they grow."""

    def __init__(self) -> None:
        self.run: list[dict[str, Any]] = []
        self.qcs: list[dict[str, Any]] = []
        self.controller: list[dict[str, Any]] = []
        self.nodes: dict[str, list[dict[str, Any]]] = {node: [] for node in "abc"}
        self.saes: dict[str, list[dict[str, Any]]] = {node: [] for node in "abc"}
        self.gateways: dict[str, list[dict[str, Any]]] = {node: [] for node in "ab"}
        self.taken: dict[str, list[list[Any]]] = {node: [] for node in "abc"}
        self.allocations: list[list[Any]] = []
        self.keys: list[list[Any]] = []
        self.tails: dict[tuple[str, int], int] = {}
        self.numbers = itertools.count(1)

    def id(self) -> str:
        """The next UUID."""
        return str(uuid.UUID(int=next(self.numbers)))

    def say(self, journal: list[dict[str, Any]], mono: float, name: str, **facts: Any) -> None:
        """An event."""
        journal.append({"time": WALL + mono, "mono": mono, "who": "?", "event": name, **facts})

    def epoch(self, qc: str, slot: float) -> int:
        """The QC's epoch in that slot."""
        return 7 if qc == "a-b/1" else 8 + (slot >= RESTART)

    def make(self, qc: str, slot: int) -> None:
        """A block, which is empty now and then."""
        first = RESTART if qc == "b-c/1" and slot >= RESTART else 0
        lengths = [0 if s % 9 == 5 else BLOCK for s in range(first, slot + 1)]
        self.say(
            self.qcs, slot + 0.001, "block", qc=qc, sequence=slot - first, epoch=self.epoch(qc, slot),
            slot=slot - first + 1, offset=sum(lengths[:-1]), n_bytes=lengths[-1], made=BOOT + slot,
        )  # fmt: skip

    def allocate(
        self, at: float, mode: str, path: str, *, saes: tuple[str, str], number: int = 1, size: int = 16
    ) -> list[str]:
        """An allocation of what was made some slots ago: its request, and the keys that it is for."""
        request, key_ids = self.id(), [self.id() for _ in range(number)]
        qcs = ["-".join(sorted(hop)) + "/1" for hop in itertools.pairwise(path)]
        made = [e for e in self.qcs if e["event"] == "block" and e["n_bytes"] and at - 8 < e["mono"] < at - 1]
        for i, (qc, n_bytes) in enumerate(MODES[mode].needs(qcs, size, number), start=1):
            stream = qc, self.epoch(qc, at)
            blocks = [e for e in made if (e["qc"], e["epoch"]) == stream]
            start = max(blocks[0]["offset"], self.tails.get(stream, 0))
            assert start + n_bytes <= blocks[-1]["offset"] + BLOCK
            self.tails[stream] = start + n_bytes
            self.allocations.append([request, i, qc, stream[1], start, start + n_bytes, path[0]])
        self.keys += [[key_id, request, *saes] for key_id in key_ids]
        return [request, *key_ids]

    def ask(self, at: float, request: str, **facts: Any) -> None:
        """What the first node tells of its statement."""
        keys = [key for key in self.keys if key[1] == request]
        rows = [row for row in self.allocations if row[0] == request]
        if not facts:
            facts = {"ranges": [[row[2], row[4], row[5], "pad"] for row in rows]}
        self.say(
            self.nodes[rows[0][6]], at, "statement", statement="allocate", allocation=request,
            ksid=" ".join(keys[0][2:]), key_ids=[key[0] for key in keys], duration_ms=5.0, **facts,
        )  # fmt: skip

    def take(self, at: float, node: str, request: str, *parts: int, purpose: str = "pad") -> None:
        """A node takes its shares of an allocation, or the parts of one share with these numbers, of all its keys."""
        rows = [row for row in self.allocations if row[0] == request and node in QCS[row[2]]]
        spans = [(row, row[4], row[5]) for row in rows]
        if parts:
            size = (rows[0][5] - rows[0][4]) // len([key for key in self.keys if key[1] == request])
            spans = [(rows[0], rows[0][4] + i * size, rows[0][4] + (i + 1) * size) for i in parts]
        for row, start, end in spans:
            blocks = [e for e in self.qcs if e["event"] == "block" and (e["qc"], e["epoch"]) == (row[2], row[3])]
            made = max(e["made"] for e in blocks if e["offset"] <= start)
            self.taken[node].append([row[2], row[3], start, end, made + 0.01, BOOT + at, request])
        ranges = [[row[2], start, end, purpose] for row, start, end in spans]
        self.say(self.nodes[node], at, "used", allocation=request, ranges=ranges)

    def deliver(self, at: float, node: str, kind: str, key_ids: list[str], **facts: Any) -> None:
        """A node hands keys out."""
        pairs = {tuple(key[2:]) for key in self.keys if key[0] in key_ids}
        ((master, slave),) = pairs
        self.say(
            self.nodes[node], at, "key_delivered", method=kind, key_ids=key_ids, master_sae=master, slave_sae=slave,
            duration_ms=5.0, **facts,
        )  # fmt: skip

    def get(self, at: float, node: str, side: str, key_id: str, **facts: Any) -> None:
        """An application gets a key, and sends or reads a message under it."""
        (pair,) = {(key[2], key[3]) for key in self.keys if key[0] == key_id}
        own = {"key_id": key_id, "ksid": f"{pair[0]} {pair[1]}", "side": side}
        self.say(self.saes[node], at, "key", fingerprint=f"mark of {key_id}", **own, **facts)
        self.say(self.saes[node], at + 0.1, "message", ok=True, **own)

    def exchange(self, at: float, mode: str, path: str, size: int = 16, number: int = 1) -> None:
        """A key from one end of the path to the other; if there are several, the others are made ahead."""
        saes = f"sae-{path[0]}", f"sae-{path[-1]}"
        request, *key_ids = self.allocate(at, mode, path, saes=saes, number=number, size=size)
        self.ask(at + 0.01, request)
        if len(path) > 2:
            for i, node in enumerate(path):
                self.take(at + 0.02 + i / 100, node, request)
        else:
            self.take(at + 0.02, path[0], request, purpose="key")
            self.take(at + 0.06, path[-1], request, *range(number), purpose="key")
        trace = self.id()
        self.deliver(at + 0.05, path[0], "enc_keys", key_ids[:1], trace=trace, parent="1")
        self.deliver(at + 0.07, path[-1], "dec_keys", key_ids[:1], trace=trace, parent="2")
        facts = {"size_bits": 8 * size, "trace": trace}
        self.get(at + 0.08, path[-1], "slave", key_ids[0], **facts)
        self.get(at + 0.10, path[0], "master", key_ids[0], **facts)

    def streams(self, node: str) -> list[dict[str, Any]]:
        """The balance of each stream: what was not used is stored if it is young, else expired."""
        found = []
        for qc, ends in QCS.items():
            if node not in ends:
                continue
            for epoch in dict.fromkeys(self.epoch(qc, slot) for slot in range(SLOTS)):
                events = [e for e in self.qcs if e.get("epoch") == epoch]
                lost = [e["sequence"] for e in events if e["event"] == "block_lost" and e["end"] == node]
                blocks = [e for e in events if e["event"] == "block" and e["sequence"] not in lost]
                if (node, epoch) == ("b", 7):  # the last one was on its way when all ended
                    del blocks[-1]
                generated = sum(e["n_bytes"] for e in blocks)
                used = sum(take[3] - take[2] for take in self.taken[node] if take[1] == epoch)
                stored = sum(e["n_bytes"] for e in blocks if e["mono"] > SLOTS - TTL) if epoch != 8 else 0
                found.append({
                    "qc": qc, "epoch": epoch, "head": blocks[-1]["offset"] + blocks[-1]["n_bytes"],
                    "generated": generated, "used": used, "expired": generated - used - stored, "stored": stored,
                    "differing": 0,
                })  # fmt: skip
        return found

    def document(self) -> dict[str, Any]:
        """All of it, as data."""
        return {
            "records": {
                "meant": {
                    "nodes": ["a", "b", "c"], "qcs": {qc: [*ends, 1.0] for qc, ends in QCS.items()}, "saes": SAES,
                    "ttl_slots": TTL, "gateways": GATEWAYS,
                },
                "nodes": {node: {"streams": self.streams(node), "taken": self.taken[node]} for node in "abc"},
                "lacking": {}, "allocations": self.allocations, "keys": self.keys,
            },
            "run": self.run, "qcs": self.qcs, "controller": self.controller, "nodes": self.nodes, "saes": self.saes,
            "gateways": self.gateways,
        }  # fmt: skip


def play() -> dict[str, Any]:
    """The run, as data: `records`, and as lists of events `run`, `qcs`, `controller`, `nodes`, `saes`, `gateways`."""
    run = Run()
    for slot in range(SLOTS):
        for qc in QCS:
            run.make(qc, slot)
        if slot == 33:  # block 18 of a-b/1 waits for a no longer
            run.say(run.qcs, 33.5, "block_lost", qc="a-b/1", epoch=7, sequence=18, end="a")
    run.qcs.sort(key=lambda e: e["mono"])
    for process in ("controller", *(f"{kind}-{node}" for kind in ("node", "sae") for node in "abc"), "qcs"):
        run.say(run.run, -1.0, "begun", process=process)
        run.say(run.run, 0.5, "ready", process=process)
    run.qcs.insert(0, {"time": WALL, "mono": 0.0, "who": "?", "event": "started"})
    run.say(run.controller, 0.0, "started")
    for node in "abc":
        run.say(run.nodes[node], 0.0, "started")
        run.say(run.saes[node], 0.0, "started", saes={f"sae-{node}": "an application"})
    for at, ttl in ((21.0, 10), (25.0, 20)):
        run.say(run.controller, at, "parameters", ttl_slots=ttl)
    run.say(run.controller, 2.0, "ksid_assigned", ksid="own-a own-c", master_sae="own-a", slave_sae="own-c")
    run.say(run.controller, 2.0, "ksid_assigned", ksid="own-b own-c", master_sae="own-b", slave_sae="own-c")
    for pair in itertools.permutations(("sae-a", "sae-b", "sae-c"), 2):
        facts = {"ksid": " ".join(pair), "master_sae": pair[0], "slave_sae": pair[1]}
        run.say(run.controller, 1.0, "ksid_assigned", **facts)
        run.say(run.saes[pair[0][-1]], 1.0, "session_open", **facts)
    run.exchange(10.0, "basic", "ab")
    run.exchange(11.0, "qkp", "ba", number=4)
    run.exchange(12.0, "basic", "abc")
    run.exchange(13.0, "otp", "cba", size=32)
    run.exchange(14.0, "qkp", "abc", number=4)
    _clients(run)
    _failures(run)
    run.exchange(55.0, "basic", "cb")
    _tunnel(run)
    _end(run)
    for journal in (*run.nodes.values(), *run.saes.values(), *run.gateways.values()):
        journal.sort(key=lambda e: e["mono"])
    return run.document()


def _clients(run: Run) -> None:
    """Clients of the user's own, which leave no journal. The second key was never fetched, the third not even taken."""
    for at in (15.0, 16.0, 17.0):
        request, key_id = run.allocate(at, "otp", "abc", saes=("own-a", "own-c"))
        run.ask(at, request)
        for i, node in enumerate("abc"):
            run.take(at + 0.01 * i, node, request)
        run.deliver(at + 0.1, "a", "enc_keys", [key_id])
        if at == 15.0:
            run.deliver(at + 0.2, "c", "dec_keys", [key_id])
        if at == 17.0:
            facts = {"method": "enc_keys", "cause": "answer_not_taken", "key_ids": [key_id], "ranges": []}
            run.say(run.nodes["a"], at + 0.2, "lost", **facts)
            parts = [[*row[2:3], *row[4:6], "part"] for row in run.allocations if row[0] == request]
            run.say(run.nodes["a"], at + 0.9, "lost", allocation=request, cause="answer_not_taken", ranges=parts)


def _failures(run: Run) -> None:
    """What fails and is told."""
    # The relay broke behind b: told as lost.
    request, _ = run.allocate(27.0, "basic", "abc", saes=("sae-a", "sae-c"))
    run.ask(27.0, request)
    run.take(27.1, "a", request, purpose="shared key")
    run.take(27.2, "b", request)
    ranges = [[*row[2:3], *row[4:6], "pad"] for row in run.allocations if row[0] == request]
    run.say(run.nodes["a"], 27.3, "lost", allocation=request, cause="relay_broken", ranges=ranges)
    # Relayed at once, and b never took its pads: told as lost.
    request, _ = run.allocate(28.0, "parallel", "abc", saes=("sae-a", "sae-c"))
    ranges = [[*row[2:3], *row[4:6], "pad"] for row in run.allocations if row[0] == request]
    run.ask(28.0, request, at_once=True, ranges=ranges)
    for node in "ac":
        run.take(28.1, node, request)
    run.say(run.nodes["a"], 28.2, "lost", allocation=request, cause="relay_broken", ranges=ranges)
    # The database's answer never came; b's next life knows nothing of what the one before had asked for.
    request, _ = run.allocate(29.0, "basic", "ba", saes=("sae-b", "sae-a"))
    run.ask(29.0, request, error="database_unreachable")
    run.say(run.nodes["b"], 29.1, "lost", allocation=request, cause="database_unreachable", ranges=[])
    request, _ = run.allocate(30.0, "basic", "ba", saes=("sae-b", "sae-a"))
    run.ask(30.0, request)
    run.say(run.run, 32.0, "killed", process="node-b")
    run.say(run.run, 33.0, "begun", process="node-b")
    run.say(run.nodes["b"], 34.0, "started")
    run.say(run.run, 34.0, "ready", process="node-b")
    # The slave's node held the bytes of one of two keys only, and says so.
    request, *key_ids = run.allocate(34.3, "basic", "bc", saes=("own-b", "own-c"), number=2)
    run.ask(34.3, request)
    run.take(34.4, "b", request, purpose="key")
    run.deliver(34.4, "b", "enc_keys", key_ids)
    run.take(34.5, "c", request, 0, purpose="key")
    run.deliver(34.5, "c", "dec_keys", key_ids[:1])
    qc, start = next((row[2], row[4]) for row in run.allocations if row[0] == request)
    gone = [qc, start + 16, start + 32, "key"]
    run.say(run.nodes["c"], 34.6, "lost", allocation=request, cause="expired", ranges=[gone])
    # The slave got it too late for its master, which says so.
    request, key_id = run.allocate(35.0, "basic", "ab", saes=("sae-a", "sae-b"))
    run.ask(35.0, request)
    run.take(35.1, "a", request, purpose="key")
    run.deliver(35.1, "a", "enc_keys", [key_id], trace="late", parent="3")
    run.take(35.2, "b", request, 0, purpose="key")
    run.deliver(35.2, "b", "dec_keys", [key_id], trace="late", parent="3")
    facts = {"key_id": key_id, "ksid": "sae-a sae-b", "side": "slave", "trace": "late"}
    run.say(run.saes["b"], 35.3, "key", size_bits=128, fingerprint=f"mark of {key_id}", **facts)
    run.say(run.saes["a"], 36.0, "key_error", ksid="sae-a sae-b", side="master", trace="late", cause="unreachable")


def _tunnel(run: Run) -> None:
    """Two keys, of which the second one is held; then the end at b closes, and all ends with the third one."""
    facts = {"kind": "ipsec", "every_s": 3.0}
    ends = {"a": {"node": "a", "peer": "b", **facts}, "b": {"node": "b", "peer": "a", **facts}}
    run.say(run.controller, 56.0, "ksid_assigned", ksid="gw-a gw-b", master_sae="gw-a", slave_sae="gw-b")
    for node in ends:
        run.say(run.run, 56.0, "begun", process=f"vpn-{node}")
        run.say(run.gateways[node], 56.2, "started", saes={f"gw-{node}": f"vpn-{node}"})
        run.say(run.run, 56.3, "ready", process=f"vpn-{node}")
    for at in (57.0, 60.0, 67.0):
        request, key_id = run.allocate(at, "basic", "ab", saes=("gw-a", "gw-b"), size=32)
        run.ask(at + 0.01, request)
        key = {"ksid": None, "key_id": key_id, "size_bits": 256, "fingerprint": f"mark of {key_id}", "trace": key_id}
        for i, (node, side, kind) in enumerate((("a", "master", "enc_keys"), ("b", "slave", "dec_keys"))):
            run.take(at + 0.02 + i / 10, node, request, purpose="key")
            run.deliver(at + 0.03 + i / 10, node, kind, [key_id], trace=key_id, parent="1")
            # The leading end says so when the other one has it, too.
            run.say(run.gateways[node], at + 0.2 - i / 20, "key", side=side, **key)
            run.say(run.gateways[node], at + 0.3 + i / 10, "tunnel_keyed", key_id=key_id, **ends[node])
        if at == 60.0:
            run.say(run.gateways["a"], at + 6.1, "tunnel_held", key_id=key_id, **ends["a"])
            run.say(run.gateways["a"], at + 6.4, "key_error", ksid=None, side="master", trace="none", cause="short")
            run.say(run.gateways["b"], at + 6.2, "tunnel_closed", key_id=key_id, **ends["b"])
    for node, end in ends.items():
        run.say(run.gateways[node], 69.0, "tunnel_ended", **end)
        run.say(run.gateways[node], SLOTS + 0.5, "stopped")


def _end(run: Run) -> None:
    """Everything stops; the last block of a-b/1 has not come to b any more."""
    last = [e for e in run.qcs if e["event"] == "block" and e["qc"] == "a-b/1"][-1]
    run.say(run.qcs, SLOTS, "stopped", waiting=[["a-b/1", 7, "b", last["sequence"]]])
    for node in "abc":
        run.say(run.saes[node], SLOTS + 1.0, "stopped")
        run.say(run.nodes[node], SLOTS + 2.0, "stopped")
    run.say(run.controller, SLOTS + 3.0, "stopped")


def verdict(document: dict[str, Any]) -> Verdict:
    """The audit of a run that is data; Unreadable."""
    return audit(
        records(document["records"]),
        Journals(
            document["run"], document["qcs"], document["controller"], document["nodes"], document["saes"],
            {node: document["gateways"].get(node) for node in document["records"]["meant"]["gateways"]},
            document["nodes"],
        ),
    )


PLAYED = play()


def played() -> dict[str, Any]:
    """The run, to be changed."""
    return copy.deepcopy(PLAYED)
