"""What an audit asks of key material: that each byte came, was allocated, and was taken once, in time, at both ends."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator

from testbed.audit.case import LATE_S, Case
from testbed.audit.evidence import Allocation, Balance, Take
from testbed.audit.made import Made, Span, Stream
from testbed.audit.told import Node
from testbed.quantum.qc_emulator import KEPT_BLOCKS

_ROUNDING_S = 0.001  # of times that two processes read from one clock


def accounts(case: Case) -> Iterator[str]:
    """The account of each node is there, and of no other."""
    for node in sorted(case.meant.nodes - case.accounts.keys()):
        yield f"node {node}: its account is missing: {case.lacking.get(node, 'nobody says why')}"
    for node in sorted(case.accounts.keys() - case.meant.nodes):
        yield f"node {node}: there is an account of it, but no such node"


def balances(case: Case) -> Iterator[str]:
    """To each end came what the QC made, but for what it says it lost, and it is known what became of every byte."""
    for node, account in sorted(case.accounts.items()):
        used: collections.Counter[Stream] = collections.Counter()
        for take in account.taken:
            used[take.qc, take.epoch] += take.end - take.start
        found: dict[Stream, Balance] = {}
        for balance in account.streams:
            if (balance.qc, balance.epoch) in found:
                yield f"node {node}, QC {balance.qc}: epoch {balance.epoch} is accounted for twice"
            found[balance.qc, balance.epoch] = balance
            yield from _imbalance(case, node, balance, used.pop((balance.qc, balance.epoch), 0))
        for (qc, epoch), n_bytes in used.items():
            yield f"node {node}, QC {qc}: {n_bytes} bytes were taken of epoch {epoch}, of which none are counted"
        for stream, made in case.qcs.made.items():
            if node in case.ends(stream[0]) and (fault := _shortfall(case, made, node, found.get(stream))):
                yield f"node {node}, QC {stream[0]}: {fault}"
        for qc in sorted(case.meant.qcs.keys() - {qc for qc, _ in found}):
            if node in case.ends(qc):
                yield f"node {node}, QC {qc}: the stream is missing"


def _imbalance(case: Case, node: str, balance: Balance, taken: int) -> Iterator[str]:
    """What is wrong with a node's balance of an epoch, of which it took so many bytes."""
    where, stream = f"node {node}, QC {balance.qc}", (balance.qc, balance.epoch)
    if stream not in case.qcs.made or node not in case.ends(balance.qc):
        yield f"{where}: {balance.generated} bytes came of epoch {balance.epoch}, which was never made for it"
    if balance.generated != balance.used + balance.expired + balance.stored + balance.differing:
        yield f"{where}: {balance.generated} bytes came, but used, expired, stored and differing are not as many"
    if balance.used != taken:
        yield f"{where}: {balance.used} bytes are counted as used, {taken} were taken"
    told = case.nodes.get(node)
    if told is not None and balance.differing > told.differing[stream] + _differing_untold(case, told, stream):
        yield f"{where}: {balance.differing} bytes are counted as differing, and {told.differing[stream]} are told of"


def _differing_untold(case: Case, node: Node, stream: Stream) -> int:
    """How many bytes a node may count as differing and not tell of: of one block each time that it was killed."""
    made, qc = case.qcs.made.get(stream), case.meant.qcs.get(stream[0])
    if made is None or qc is None:
        return 0
    first, last = (case.qcs.mono_time(at) for at in (made.times[0], made.times[-1] + case.ttl.most * qc.slot_s))
    return node.lives.kills(first, last) * made.longest


def _shortfall(case: Case, made: Made, node: str, balance: Balance | None) -> str | None:
    """What is wrong with the bytes of an epoch that came to that end; None if nothing is."""
    head, generated = (balance.head, balance.generated) if balance else (0, 0)
    if head > made.end:
        return f"bytes came up to {head}, of {made.end} that were made"
    if not made.begins_or_ends(head):
        return f"bytes came up to {head}, where no block ends"
    if generated != made.came_before(node, head):
        return f"{generated} bytes came of {made.came_before(node, head)} that were made for it up to {head}"
    missing = made.after(node, head)
    if not missing:
        return None
    if made.waiting is None:  # the device lost its memory, and in it what it had for an end that was away
        made_at = case.qcs.mono_time(made.made_at(head))
        may_lack = node not in case.nodes or not case.nodes[node].lives.could_take(made_at, made.ended)
    else:
        may_lack = missing[0] >= made.waiting.get(node, math.inf)
    if not may_lack:
        return f"block {missing[0]} never came, and the QC does not say that it was lost"
    if len(missing) > KEPT_BLOCKS:
        return f"{len(missing)} blocks from {missing[0]} on never came, more than the QC keeps for an end"
    return None


def allocations(case: Case) -> Iterator[str]:
    """Each follows a path from its node, no two overlap, and nothing is given that not both ends hold."""
    heads = {
        (node, balance.qc, balance.epoch): balance.head
        for node, account in case.accounts.items()
        for balance in account.streams
    }
    by_stream: dict[Stream, list[tuple[int, int, str]]] = collections.defaultdict(list)
    for request, rows in case.allocated.items():
        path = case.paths[request]
        if [row.position for row in rows] != list(range(1, len(rows) + 1)) or len({row.node for row in rows}) > 1:
            yield f"allocation {request}: its links are not one path of one node"
        joined = sum(len(part) for part, _ in case.routes[request])
        if joined < len(rows) or len(set(path)) < len(path):
            yield f"allocation {request}: its QCs do not join up to a path from {path[0]}"
        for row in rows:
            made = case.qcs.made.get((row.qc, row.epoch))
            if row.start >= row.end or made is None or row.end > made.end:
                what = f"bytes {row.start} to {row.end} of epoch {row.epoch}"
                yield f"allocation {request}: QC {row.qc} never made {what}"
                continue
            if (request, row.qc) not in case.untaken:
                by_stream[row.qc, row.epoch].append((row.start, row.end, request))
            for node in case.ends(row.qc):
                held = row.end <= heads.get((node, row.qc, row.epoch), 0) and made.came(node, row.start, row.end)
                if node in case.accounts and not held:
                    yield f"allocation {request}: QC {row.qc}: bytes {row.start} to {row.end} never came to {node}"
    for (qc, _), ranges in sorted(by_stream.items()):
        for (start, end, first), (again, _, second) in itertools.pairwise(sorted(ranges)):
            if again < end:
                yield f"QC {qc}: bytes from {again} were allocated to {first} ({start} to {end}) and to {second}"


def takes(case: Case) -> Iterator[str]:
    """Every range lies in an allocation, is of a QC of the node, had come, was young enough, and was taken once."""
    allocated = {(row.request, row.qc, row.epoch): row for rows in case.allocated.values() for row in rows}
    for node, account in sorted(case.accounts.items()):
        spans: dict[Stream, list[Span]] = collections.defaultdict(list)
        before = -math.inf
        for take in account.taken:
            where = f"node {node}, QC {take.qc}: bytes {take.start} to {take.end}"
            spans[take.qc, take.epoch].append((take.start, take.end))
            row = allocated.get((take.request, take.qc, take.epoch))
            if row is None or not row.start <= take.start < take.end <= row.end:
                yield f"{where} were taken for {take.request}, which was not given them"
            if node not in case.ends(take.qc):
                yield f"{where} were taken at neither end of the QC"
            if take.at < before:
                yield f"{where} were taken before what was taken before them"
            before = take.at
            if fault := _untimely(case, take, node):
                yield f"{where} {fault}"
        for (qc, _), ranges in sorted(spans.items()):
            for (start, end), (again, _) in itertools.pairwise(sorted(ranges)):
                if again < end:
                    yield f"node {node}, QC {qc}: bytes from {again} were taken twice (first from {start} to {end})"


def _untimely(case: Case, take: Take, node: str) -> str | None:
    """What is wrong with the time at which a range was taken, by the QC's own word; None if nothing is."""
    made, qc = case.qcs.made.get((take.qc, take.epoch)), case.meant.qcs.get(take.qc)
    if qc is None or made is None or take.end > made.end or take.start >= take.end:
        return "were taken, and never made"
    if not made.came(node, take.start, take.end):
        return "were taken, and never came"
    if take.at < made.made_at(take.end - 1) - _ROUNDING_S:
        return "were taken before they were made"
    ttl_slots, age_s = case.ttl.longest(take.at), take.at - made.made_at(take.start)
    if age_s > ttl_slots * qc.slot_s + LATE_S:
        return f"were {age_s:.1f} s old when they were taken, more than {ttl_slots} slots"
    return None


def shares(case: Case) -> Iterator[str]:
    """Both ends of each link take all of what was allocated there, or, where single keys are fetched, whole keys.

    Along a path no node takes before the one that it follows, for what is relayed comes from there. Where nodes relay
    at once, each takes both its pads or none, and follows nobody.
    """
    for request, rows in case.allocated.items():
        hops = [hop for part, path in case.routes[request] for hop in zip(part, path, path[1:], strict=False)]
        for row, near, far in hops:
            for node in (near, far):
                key = len(case.keys_of.get(request, ())) if len(rows) == 1 and node == far else 0
                if not _is_whole(row, case.share(row, node), n_keys=key):
                    yield (
                        f"node {node}, QC {row.qc}: took {_spans(case.share(row, node))} for {request} of bytes"
                        f" {row.start} to {row.end}, which is no whole share"
                    )
        if len(rows) == 1:
            continue
        first = case.nodes.get(rows[0].node)
        at_once = first is not None and request in first.asked and first.asked[request].at_once
        steps = [(row, node) for row, near, far in hops for node in (near, far)]
        for (before, sender), (row, node) in itertools.pairwise(steps):
            if at_once and node != sender:
                continue
            if case.share(row, node) and not case.took_all(before, sender):
                who = "" if node == sender else f"node {sender} "
                yield f"node {node}, QC {row.qc}: took bytes for {request}, and {who}none on QC {before.qc}"


def _is_whole(row: Allocation, spans: list[Span], *, n_keys: int) -> bool:
    """Whether these are nothing, or all of the row; or any of so many keys that lie there one behind the other."""
    n_bytes = row.end - row.start
    if n_keys and n_bytes % n_keys == 0:
        size = n_bytes // n_keys
        return all(end - start == size and (start - row.start) % size == 0 for start, end in spans)
    return not spans or sum(end - start for start, end in spans) == n_bytes


def _spans(spans: list[Span]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in spans)
