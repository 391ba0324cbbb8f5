"""The records of a run together: by allocation, by key, by node; and the TTL that counted when."""

from __future__ import annotations

import bisect
import collections
import math
from collections.abc import Iterable, Sequence

from testbed.audit.evidence import Allocation, Event, Journals, Key, Records, fact, lost_events
from testbed.audit.made import Qcs, Span
from testbed.audit.told import read_applications, read_nodes

# How much younger a node may take things for than they are: what reached it late it cannot tell from what is new.
LATE_S = 1.0
# How late a node may learn of a smaller TTL: it may be away from the controller.
_TOLD_WITHIN_S = 30.0

Pair = tuple[str, str]  # master SAE, slave SAE


class Case:
    """All records of a run. `findings`: what is missing of them, or contradicts itself. Unreadable.

    `allocated` has the rows of an allocation in the order of its path, by request; `paths` the nodes along it, as far
    as its QCs join up. `keys` are by ID, `keys_of` their IDs by request. `sessions` has the SAEs by KSID.
    """

    def __init__(self, records: Records, journals: Journals) -> None:
        self.meant, self.accounts, self.lacking = records.meant, records.accounts, records.lacking
        self.qcs = Qcs(self.meant, journals.qcs)
        self.findings = [*self.qcs.findings]
        self.nodes = read_nodes(self.meant, journals, self.findings)
        self.told = read_applications(self.meant, journals, self.findings)
        self.ttl = Ttl(self.meant.ttl_slots)
        self.sessions: dict[str, Pair] = dict(self.told.pairs)
        self._read_controller(journals.controller)
        self.allocated: dict[str, list[Allocation]] = collections.defaultdict(list)
        for row in sorted(records.allocations, key=lambda row: row.position):
            self.allocated[row.request].append(row)
        self.paths = {request: self._path(rows) for request, rows in self.allocated.items()}
        self.keys: dict[str, Key] = {}
        self.keys_of: dict[str, list[str]] = collections.defaultdict(list)
        for key in records.keys:
            if key.key_id in self.keys:
                self.findings.append(f"key {key.key_id}: made of {key.request}, and before of another allocation")
            self.keys[key.key_id] = key
            self.keys_of[key.request].append(key.key_id)
        self._shares: dict[tuple[str, str, str], list[Span]] = collections.defaultdict(list)
        for node, account in self.accounts.items():
            for take in account.taken:
                self._shares[take.request, take.qc, node].append((take.start, take.end))

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

    def _read_controller(self, events: Iterable[Event] | None) -> None:
        where = "the controller"
        if events is None:
            self.findings.append(f"{where}: its journal is missing")
        for event in events or ():
            self.findings += lost_events(event, where)
            if event["event"] == "parameters":
                at = self.qcs.boot_time(fact(event, "mono", float, where))
                self.ttl.change(at, fact(event, "ttl_slots", int, where))
            elif event["event"] == "ksid_assigned":
                ksid = fact(event, "ksid", str, where)
                pair = fact(event, "master_sae", str, where), fact(event, "slave_sae", str, where)
                if self.sessions.setdefault(ksid, pair) != pair:
                    self.findings.append(f"key session {ksid}: of other SAEs for its master than for the controller")

    def _path(self, rows: Sequence[Allocation]) -> list[str]:
        path = [rows[0].node]
        for row in rows:
            ends = self.ends(row.qc)
            if path[-1] not in ends:
                break
            path.append(ends[1] if path[-1] == ends[0] else ends[0])
        return path


class Ttl:
    """The TTL in slots, as it was at the start of the run and as the controller has changed it since."""

    def __init__(self, at_start: int) -> None:
        self._times, self._slots = [-math.inf], [at_start]

    def change(self, at: float, slots: int) -> None:
        """From that time on (CLOCK_BOOTTIME, s)."""
        self._times.append(at)
        self._slots.append(slots)

    def longest(self, at: float) -> int:
        """The longest TTL that a node may have known of at that time."""
        first = bisect.bisect_right(self._times, at - _TOLD_WITHIN_S) - 1
        return max(self._slots[max(0, first) : bisect.bisect_right(self._times, at + LATE_S)])


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)
