"""The records of a run together: by allocation, by key, by node; and the TTL that counted when."""

from __future__ import annotations

import bisect
import collections
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from testbed.audit import lives
from testbed.audit.devices import read_devices
from testbed.audit.evidence import STANDBY, Allocation, Event, Journals, Key, Records, fact
from testbed.audit.lives import Lives, Word
from testbed.audit.lost_commits import restored
from testbed.audit.made import Qcs, Span, Stream
from testbed.audit.told import read_applications, read_nodes
from testbed.audit.tunnels.told import read_gateways

# How much younger a node may take things for than they are: what reached it late it cannot tell from what is new.
LATE_S = 1.0
# How late a node may learn of a smaller TTL: it may be away from the controller.
_TOLD_WITHIN_S = 30.0

Pair = tuple[str, str]  # master SAE, slave SAE
Route = tuple[list[Allocation], list[str]]  # rows of one path, and the nodes along it


class Case:
    """All records of a run. `findings`: what is missing of them, or contradicts itself. Unreadable.

    `allocated` has the rows of an allocation, by request, in the order of its path, or of one path after the other.
    `routes` has each path's rows with the nodes along it, as far as its QCs join up; `paths` has all these nodes, from
    the first one to the last one. `untaken`: request and QC of what nobody took and the database forgot, which it may
    have given again. `keys` are by ID, `keys_of` their IDs by request. `sessions` has the SAEs by KSID.
    """

    def __init__(self, records: Records, journals: Journals) -> None:
        self.meant, self.accounts, self.lacking = records.meant, records.accounts, records.lacking
        self.findings: list[str] = []
        words = lives.words(journals.run, self.findings)
        self.qcs = Qcs(self.meant, journals.qcs, words["qcs"])
        read_devices(self.qcs, self.meant, journals.devices)
        self.findings += self.qcs.findings + self.qcs.silent()
        self.nodes = read_nodes(self.meant, journals, words, self.findings)
        self.told = read_applications(self.meant, journals, words, self.findings)
        self.gateways = read_gateways(self.meant, journals, words, self.findings)
        self.ttl = _Ttl(self.meant.ttl_slots)
        self.sessions: dict[str, Pair] = dict(self.told.pairs)
        self.database = words["postgres"]
        if journals.controller is None:
            self.findings.append("the controller: its journal is missing")
        self._read_controller(journals.controller or (), words["controller"], "the controller")
        if journals.standby is not None:
            self._read_controller(journals.standby, words[STANDBY], "the second controller")
        rows, keys, self.untaken = restored(
            self.nodes, self.accounts, {row.request for row in records.allocations}, switches=records.meant.switches,
            epochs=dict(sorted(self.qcs.made)), pairs=self.sessions,
        )  # fmt: skip
        self.allocated: dict[str, list[Allocation]] = collections.defaultdict(list)
        for row in sorted([*records.allocations, *rows], key=lambda row: row.position):
            self.allocated[row.request].append(row)
        self.keys: dict[str, Key] = {}
        self.keys_of: dict[str, list[str]] = collections.defaultdict(list)
        for key in (*records.keys, *keys):
            if key.key_id in self.keys:
                self.findings.append(f"key {key.key_id}: made of {key.request}, and before of another allocation")
            self.keys[key.key_id] = key
            self.keys_of[key.request].append(key.key_id)
        self.routes = {request: self._routes(rows) for request, rows in self.allocated.items()}
        self.paths = {request: _flat(routes) for request, routes in self.routes.items()}
        self._shares: dict[tuple[str, str, str], list[Span]] = collections.defaultdict(list)
        self._taken: dict[tuple[str, str], float] = {}  # by node and request
        for node, account in self.accounts.items():
            for take in account.taken:
                self._shares[take.request, take.qc, node].append((take.start, take.end))
                self._taken.setdefault((node, take.request), self.qcs.mono_time(take.at))
        self._given = self._read_order()

    def ends(self, qc: str) -> Sequence[str]:
        """The nodes at the ends of a QC; none if there is no such QC."""
        return self.meant.qcs[qc][:2] if qc in self.meant.qcs else ()

    def slot_s(self, request: str) -> float:
        """A slot of the QC on which the path of an allocation begins, in seconds."""
        qc = self.allocated[request][0].qc if request in self.allocated else ""
        return self.meant.qcs[qc].slot_s if qc in self.meant.qcs else math.inf

    def share(self, row: Allocation, node: str) -> list[Span]:
        """What `node` took of that part of an allocation, in order."""
        return sorted(self._shares.get((row.request, row.qc, node), ()))

    def took_all(self, row: Allocation, node: str) -> bool:
        """Whether `node` took all bytes of that part of an allocation. One without an account is given the benefit."""
        return node not in self.accounts or _length(self.share(row, node)) == row.end - row.start

    def given_between(self, request: str) -> tuple[float, float]:
        """When the shared database gave that allocation, by the monotonic clock, as far as others tell of it.

        Its bytes were made before, and were not too old. What lies before them in a stream was given before, and what
        lies behind them later.
        """
        after, before = -math.inf, math.inf
        for row in self.allocated[request]:
            made, qc = self.qcs.made.get((row.qc, row.epoch)), self.meant.qcs.get(row.qc)
            if made is None or qc is None:
                continue
            too_old = made.made_at(row.start) + self.ttl.most * qc.slot_s + LATE_S
            order = self._given[row.qc, row.epoch]
            at = bisect.bisect_left(order.starts, row.start)
            after = max(after, self.qcs.mono_time(made.made_at(row.end - 1)), order.after[at])
            before = min(before, self.qcs.mono_time(too_old), order.before[at])
        return after, before

    def taken_at(self, node: str, request: str) -> float:
        """When `node` first took bytes for that allocation, by the monotonic clock."""
        return self._taken.get((node, request), math.inf)

    def _read_order(self) -> dict[Stream, _Order]:
        rows: dict[Stream, list[tuple[int, float, float]]] = collections.defaultdict(list)
        for request, links in self.allocated.items():
            first = self.nodes.get(links[0].node)
            ask = first.asked.get(request) if first else None
            after = ask.begun if ask else -math.inf
            before = min(self.taken_at(node, request) for node in self.paths[request])
            before = min(before, ask.mono) if ask and ask.given is not None else before
            for row in links:
                rows[row.qc, row.epoch].append((row.start, after, before))
        return {stream: _order(sorted(of)) for stream, of in rows.items()}

    def _read_controller(self, events: Iterable[Event], word: Word, where: str) -> None:
        told = Lives(where, word)
        for event in told.read(events):
            if event["event"] == "parameters":
                at = self.qcs.boot_time(fact(event, "mono", float, where))
                self.ttl.change(at, fact(event, "ttl_slots", int, where))
            elif event["event"] == "ksid_assigned":
                ksid = fact(event, "ksid", str, where)
                pair = fact(event, "master_sae", str, where), fact(event, "slave_sae", str, where)
                if self.sessions.setdefault(ksid, pair) != pair:
                    self.findings.append(f"key session {ksid}: of other SAEs for its master than for the controller")
        self.findings += told.findings

    def _routes(self, rows: Sequence[Allocation]) -> list[Route]:
        """A path that comes to the slave's node before its rows are at an end is followed by another one."""
        slaves = {self.keys[key_id].slave_sae for key_id in self.keys_of.get(rows[0].request, ())}
        lasts = {self.meant.saes[slave].node for slave in slaves if slave in self.meant.saes}
        found: list[Route] = []
        part: list[Allocation] = []
        path = [rows[0].node]
        for at, row in enumerate(rows, 1):
            ends = self.ends(row.qc)
            if path[-1] not in ends:
                break
            path.append(ends[1] if path[-1] == ends[0] else ends[0])
            part.append(row)
            if path[-1] in lasts and at < len(rows):
                found.append((part, path))
                part, path = [], [rows[0].node]
        return [*found, (part, path)]


def _flat(routes: Sequence[Route]) -> list[str]:
    between = (node for _, path in routes for node in path[1:-1])
    last = routes[-1][1]
    return [last[0], *between, *last[1:][-1:]]


class _Ttl:
    """The TTL in slots, as it was at the start of the run and as the controller has changed it since."""

    def __init__(self, at_start: int) -> None:
        self._times, self._slots = [-math.inf], [at_start]

    def change(self, at: float, slots: int) -> None:
        """From that time on (CLOCK_BOOTTIME, s)."""
        place = bisect.bisect_right(self._times, at)  # a second controller may have changed it earlier
        self._times.insert(place, at)
        self._slots.insert(place, slots)

    @property
    def most(self) -> int:
        """The longest of the whole run."""
        return max(self._slots)

    def longest(self, at: float) -> int:
        """The longest TTL that a node may have known of at that time."""
        first = bisect.bisect_right(self._times, at - _TOLD_WITHIN_S) - 1
        return max(self._slots[max(0, first) : bisect.bisect_right(self._times, at + LATE_S)])


class _Order(NamedTuple):
    """The allocations of a stream by their first bytes, `starts`; and between which times each was given.

    `after` and `before` are told by those that were given before it and later.
    """

    starts: Sequence[int]
    after: Sequence[float]
    before: Sequence[float]


def _order(rows: Sequence[tuple[int, float, float]]) -> _Order:
    after = itertools.accumulate((after for _, after, _ in rows[:-1]), max, initial=-math.inf)
    before = itertools.accumulate((before for _, _, before in reversed(rows[1:])), min, initial=math.inf)
    return _Order([start for start, _, _ in rows], list(after), list(before)[::-1])


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)
