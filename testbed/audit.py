"""`python -m testbed.audit [RUN]`: replays a run's records and says whether the rules of key material were kept.

Three records are compared that come from different places: what the QCs made (their journal), what the shared
database allocated, and what each node really took out of its local database, written in the very transaction that
erased the bytes. Beside them the fingerprints that both SAEs of each key left. None of them holds a key byte.
"""

from __future__ import annotations

import bisect
import collections
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.measure import compare_pairs, read_run
from testbed.output import survive_closed_pipes

RECORDS = "audit.json"
_READ = ("block", "block_lost", "key", "parameters")  # of the journals
_ROOT = Path(__file__).resolve().parent.parent
_SHOWN = 20
_Epoch = tuple[str, int]  # QC and epoch


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found: violations in words (none is clean), and how much was looked at."""

    findings: Sequence[str]
    counted: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """For summary.json; only the first findings, and their number."""
        return {
            "verdict": "clean" if not self.findings else "violated",
            "findings": list(self.findings[:_SHOWN]),
            "number_of_findings": len(self.findings),
            "checked": dict(self.counted),
        }


@dataclass(frozen=True, slots=True)
class _Made:
    """The blocks of an epoch of a QC: offsets in order, when each was made, and where the last one ends."""

    offsets: list[int]
    times: list[float]
    end: int

    def at(self, start: int) -> float:
        """When the byte at `start` was made."""
        return self.times[bisect.bisect_right(self.offsets, start) - 1]


def audit(events: Sequence[Mapping[str, Any]], records: Mapping[str, Any]) -> Verdict:
    """The verdict on a run's journals and records (see `collect`). PURE."""
    made = _blocks(events)
    lost = {(e["qc"], e["epoch"], e["end"]) for e in events if e["event"] == "block_lost"}
    ttl_s = max([records["ttl_s"], *(e["ttl_slots"] for e in events if e["event"] == "parameters")])
    allocations = [(qc, epoch, start, end, request) for request, _, qc, epoch, start, end, _ in records["allocations"]]
    nodes: Mapping[str, Any] = records["nodes"]
    findings = list(_allocations(allocations, made))
    for node, account in sorted(nodes.items()):
        findings += _takes(node, account["taken"], allocations, made, ttl_s)
        findings += _balance(node, account, lost)
    pairs = compare_pairs(events)
    if pairs["compared"] != pairs["identical"]:
        findings.append(f"{pairs['compared'] - pairs['identical']} of {pairs['compared']} key pairs differ")
    counted = {
        "allocations": len(allocations),
        "ranges_taken": sum(len(a["taken"]) for a in nodes.values()),
        "bytes_generated": sum(m.end for m in made.values()),
        "pairs": pairs["compared"],
    }
    return Verdict(findings, counted)


def _blocks(events: Sequence[Mapping[str, Any]]) -> dict[_Epoch, _Made]:
    made: dict[_Epoch, _Made] = {}
    for event in sorted((e for e in events if e["event"] == "block"), key=lambda e: int(e["sequence"])):
        # Empty blocks are left out: two blocks would begin at one offset.
        stream = event["qc"], event["epoch"]
        found = made.setdefault(stream, _Made([], [], 0))
        if event["n_bytes"]:
            found.offsets.append(event["offset"])
            found.times.append(event["made"])
            made[stream] = _Made(found.offsets, found.times, event["offset"] + event["n_bytes"])
    return made


def _allocations(allocations: Sequence[Sequence[Any]], made: Mapping[_Epoch, _Made]) -> Iterator[str]:
    """No two allocations overlap, and none reaches beyond what the QC made."""
    by_stream: dict[_Epoch, list[tuple[int, int, str]]] = collections.defaultdict(list)
    for qc, epoch, start, end, request in allocations:
        by_stream[qc, epoch].append((start, end, request))
    for (qc, epoch), ranges in sorted(by_stream.items()):
        ranges.sort()
        for (start, end, first), (again, _, second) in itertools.pairwise(ranges):
            if again < end:
                yield f"QC {qc}: bytes from {again} were allocated to {first} and to {second} (from {start} to {end})"
        if (qc, epoch) not in made or ranges[-1][1] > made[qc, epoch].end:
            yield f"QC {qc}: bytes up to {ranges[-1][1]} were allocated that it never made"


def _takes(
    node: str, taken: Sequence[Sequence[Any]], allocations: Sequence[Sequence[Any]], made: Mapping[_Epoch, _Made],
    ttl_s: float,
) -> Iterator[str]:  # fmt: skip
    """Every range taken lies in an allocation, none was taken twice, and none was older than the TTL."""
    allocated = {(qc, epoch, request): (start, end) for qc, epoch, start, end, request in allocations}
    spans: dict[_Epoch, list[tuple[int, int]]] = collections.defaultdict(list)
    for qc, epoch, start, end, _, at, request in taken:
        spans[qc, epoch].append((start, end))
        whole = allocated.get((qc, epoch, request))
        if whole is None or not whole[0] <= start <= end <= whole[1]:
            yield f"node {node}, QC {qc}: bytes {start} to {end} were taken for {request}, which was not given them"
        elif (qc, epoch) in made and (age := at - made[qc, epoch].at(start)) > ttl_s:
            yield f"node {node}, QC {qc}: bytes from {start} were used {age:.3f} s old, older than {ttl_s:g} s"
    for (qc, _), ranges in sorted(spans.items()):
        for (start, end), (again, _) in itertools.pairwise(sorted(ranges)):
            if again < end:
                yield f"node {node}, QC {qc}: bytes from {again} were taken twice (first from {start} to {end})"


def _balance(node: str, account: Mapping[str, Any], lost: set[tuple[str, int, str]]) -> Iterator[str]:
    """At this end of each QC: generated = used + expired + differing + stored = what was made; used = what was taken.
    """
    used: collections.Counter[_Epoch] = collections.Counter()
    for qc, epoch, start, end, *_ in account["taken"]:
        used[qc, epoch] += end - start
    for stream in account["streams"]:
        qc, epoch, where = stream["qc"], stream["epoch"], f"node {node}, QC {stream['qc']}"
        if stream["generated"] != sum(stream[name] for name in ("used", "expired", "differing", "stored")):
            yield f"{where}: {stream['generated']} bytes came, but used, expired, differing and stored are not as many"
        if stream["used"] != used[qc, epoch]:
            yield f"{where}: {stream['used']} bytes are counted as used, {used[qc, epoch]} were taken"
        short = stream["head"] - stream["generated"]
        if short < 0 or (short > 0 and (qc, epoch, node) not in lost):
            yield f"{where}: {stream['generated']} bytes came of {stream['head']} that were made"


def load(run: Path) -> Verdict:
    """The verdict on the run in that folder. ValueError if its records are not there or not whole."""
    path = run / RECORDS
    try:
        records = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}: only a run that came to its end can be audited") from None
    return audit(read_run(run, *_READ), records)


def main(run: Path) -> int:
    """Print the verdict; exit status 0 if it is clean, 1 if not, 2 if there is nothing to audit."""
    try:
        verdict = load(run)
    except ValueError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    print(f"run {run.resolve()}")
    for name, number in verdict.counted.items():
        print(f"{name.replace('_', ' '):16} {number}")
    for finding in verdict.findings[:_SHOWN]:
        print(f"VIOLATION  {finding}")
    print("verdict: clean" if not verdict.findings else f"verdict: {len(verdict.findings)} violations")
    return 0 if not verdict.findings else 1


if __name__ == "__main__":
    survive_closed_pipes()
    if len(sys.argv) > 2:
        print("usage: python -m testbed.audit [RUN]", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) == 2 else _ROOT / "runs" / "latest"))
