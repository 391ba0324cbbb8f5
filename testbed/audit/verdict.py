"""The verdict on a run. PURE, but for `load`, which reads what the run has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.audit import keys, streams
from testbed.audit.case import Case
from testbed.audit.evidence import RECORDS, Journals, Records, read_journals, read_records
from testbed.audit.told import MASTER, SLAVE
from testbed.audit.tunnels import keys as tunnel_keys

SHOWN = 20  # findings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found: violations in words (none is clean), how much was looked at, and bytes lost by QC."""

    findings: Sequence[str]
    counted: Mapping[str, int] = field(default_factory=dict)
    lost_bytes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For summary.json; only the first findings, and their number."""
        return {
            "verdict": "clean" if not self.findings else "violated",
            "findings": list(self.findings[:SHOWN]),
            "number_of_findings": len(self.findings),
            "checked": dict(self.counted),
            "lost_bytes": dict(self.lost_bytes),
        }


def load(run: Path) -> Verdict:
    """The verdict on the run in that folder; Unreadable if what it has left is not there or not of its form."""
    records = read_records(run / RECORDS)
    return audit(records, read_journals(run, records.meant))


def audit(records: Records, journals: Journals) -> Verdict:
    """The verdict on a run's records and journals; Unreadable if an event is not of its form."""
    case = Case(records, journals)
    checks = (
        streams.accounts, streams.balances, streams.allocations, streams.takes, streams.shares,
        keys.made, keys.asked, keys.used, keys.handed_out, keys.got, keys.received,
        tunnel_keys.got, tunnel_keys.received, tunnel_keys.turned, tunnel_keys.lapsed,
    )  # fmt: skip
    findings = [*case.findings, *(finding for check in checks for finding in check(case))]
    lost_bytes, unaccounted = keys.outcomes(case)
    counted = {
        "bytes_generated": sum(made.end for made in case.qcs.made.values()),
        "allocations": len(case.allocated),
        "ranges_taken": sum(len(a.taken) for a in records.accounts.values()),
        "keys": len(case.keys),
        "pairs": len(case.told.got[MASTER].keys() & case.told.got[SLAVE].keys()),
        "tunnel_keys": len({turn.key_id for gateway in case.gateways.values() for turn in gateway.turns}),
    }
    return Verdict([*findings, *unaccounted], counted, lost_bytes)
