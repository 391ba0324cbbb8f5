"""What QKD devices of the user's brought to a run's QCs: by the journals of the nodes at both ends, which ask them.

No journal of a device's own is there. So of each QC the node that leads, whose name comes first, is the one to know
what there was: it tells of each block before it lays it. The other one tells of each block before it lays it, too, and
of what it has given up. Each may have died in between: then its next word on the same bytes counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from testbed.audit.evidence import Event, Meant, fact
from testbed.audit.made import Made, Qcs, Span, Stream

BLOCK, GAP = EVENTS = ("device_block", "device_gap")
# Blocks that the one end has told of, and of which the other one has not heard: what is offered, and, where an answer
# was lost, what had been offered before and was too old.
MOST_UNHEARD = 8


@dataclass(slots=True)
class _Told:
    """Blocks of one stream as the end that leads tells of them; those that the other end has, or has given up."""

    blocks: list[Span] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    came: dict[Span, bool] = field(default_factory=dict)


def read_devices(qcs: Qcs, meant: Meant, journals: Mapping[str, Iterable[Event] | None]) -> None:
    """Add to `qcs` what came of devices, and its findings; `journals`: of nodes, by name. Unreadable."""
    emulated = {qc for qc, _ in qcs.made}
    found: dict[Stream, _Told] = {}
    for node in sorted(journals):  # of each QC the one that leads first
        for event in journals[node] or ():
            if event["event"] not in EVENTS:
                continue
            where = f"node {node}"
            qc, epoch = fact(event, "qc", str, where), fact(event, "epoch", int, where)
            start, end = fact(event, "start", int, where), fact(event, "end", int, where)
            ends = sorted(meant.qcs[qc][:2]) if qc in meant.qcs else []
            if node not in ends or qc in emulated:
                qcs.findings.append(f"QC {qc}: node {node} tells of keys that it had from a device, which it has not")
                continue
            told = found.setdefault((qc, epoch), _Told())
            if node != ends[0]:
                fault = _heard(told, event["event"], (start, end))
            else:
                made, at = (fact(event, name, float, where) for name in ("made", "at"))
                qcs.same_moment(fact(event, "mono", float, where), at)
                fault = _laid(told, (start, end), made)
            if fault:
                qcs.findings.append(f"QC {qc}: node {node} tells of bytes {start} to {end} of a device, {fault}")
    for (qc, epoch), told in found.items():
        if told.blocks:
            qcs.made[qc, epoch] = _made(told, *sorted(meant.qcs[qc][:2]))


def _laid(told: _Told, span: Span, made: float) -> str | None:
    """Take in a block of the end that leads; what is wrong with it."""
    if told.blocks and span[0] == told.blocks[-1][0]:  # it died before it had laid that one
        told.blocks.pop()
        told.times.pop()
    if span[0] != (told.blocks[-1][1] if told.blocks else 0) or span[1] <= span[0]:
        return "which do not follow those before"
    if told.times and made < told.times[-1]:
        return "which are older than those before"
    told.blocks.append(span)
    told.times.append(made)
    return None


def _heard(told: _Told, name: str, span: Span) -> str | None:
    """Take in what the other end says; what is wrong with it."""
    covered = [block for block in told.blocks if span[0] <= block[0] and block[1] <= span[1]]
    if name == BLOCK and covered != [span]:
        return "which it was not offered"
    told.came |= dict.fromkeys(covered, name == BLOCK)
    return None


def _made(told: _Told, leads: str, follows: str) -> Made:
    made = Made(end=told.blocks[-1][1])
    made.sequences.extend(range(len(told.blocks)))
    made.starts.extend(start for start, _ in told.blocks)
    made.times.extend(told.times)
    made.lost[follows] = [block for block in told.blocks if not told.came.get(block, True)]
    last = len(told.blocks) - 1
    made.waiting = {leads: last, follows: max(0, last + 1 - MOST_UNHEARD)}
    return made
