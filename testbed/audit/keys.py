"""What an audit asks of keys: what each was made of, who got it, that both sides got the same, what was lost."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence

from decisions.modes import MODES
from testbed.audit.case import LATE_S, Case
from testbed.audit.evidence import Allocation, Key
from testbed.audit.made import Span
from testbed.audit.told import DEC, ENC, KEY, MASTER, SIDES, SLAVE, Node, Used

# So long after a refusal a node may find out that a first try was granted: what it sent is under way no longer.
_FOUND_OUT_S = 30.0


def made(case: Case) -> Iterator[str]:
    """Each allocation is for keys, of SAEs at the two ends of its path, and has as many bytes as they cost."""
    for key in case.keys.values():
        path = case.paths.get(key.request)
        if path is None:
            yield f"key {key.key_id}: made of {key.request}, for which nothing was allocated"
        elif (_node(case, key.master_sae), _node(case, key.slave_sae)) != (path[0], path[-1]):
            ends = f"{path[0]} and {path[-1]}"
            yield f"key {key.key_id}: its SAEs are not at the ends of the path of {key.request}, {ends}"
    sizes: dict[str, set[int]] = collections.defaultdict(set)
    for side in SIDES:
        for key_id, got in case.told.got[side].items():
            if key_id in case.keys:
                sizes[case.keys[key_id].request].add(got.size_bits)
    for request, rows in case.allocated.items():
        lengths, n_keys = [row.end - row.start for row in rows], len(case.keys_of.get(request, ()))
        if not n_keys:
            yield f"allocation {request}: given for no key"
        elif not _is_cost(lengths, n_keys, sizes.get(request)):
            yield f"allocation {request}: {lengths} bytes are not what {n_keys} keys cost on these QCs in any mode"


def _is_cost(lengths: Sequence[int], n_keys: int, sizes_bits: set[int] | None) -> bool:
    """Whether so many keys of one of these sizes cost these bytes on the links of a path, in whatever mode.

    Where nobody got one of the keys, their size is any that fits.
    """
    if sizes_bits is None:
        most = max(lengths)
        sizes = {(most - n) // n_keys for n in (0, most // 2, 16, 32) if n < most}
    else:
        sizes = {bits // 8 for bits in sizes_bits if len(sizes_bits) == 1 and bits % 8 == 0}
    links = [str(i) for i in range(len(lengths))]
    costs = (
        mode.needs(links, size, n_keys, double_at_last=at_last)
        for mode, size, at_last in itertools.product(MODES.values(), sizes, (False, True))
    )
    return any([n_bytes for _, n_bytes in cost] == lengths for cost in costs)


def asked(case: Case) -> Iterator[str]:
    """What nodes were given is what the shared database says that it gave, for the same keys of the same session.

    Each allocation is told of by the node that asked for it, unless it ended then: it writes this down before all that
    comes of the allocation.
    """
    for request, rows in case.allocated.items():
        first = case.nodes.get(rows[0].node)
        if first is None or request in first.asked:
            continue
        later = request in first.lost or any((request, row.qc) in first.used for row in rows)
        later = later or any(key_id in first.handed_out[ENC] for key_id in case.keys_of.get(request, ()))
        if later or not first.lives.cut_off_from(case.database, *case.given_between(request)):
            yield f"allocation {request}: node {first.name} does not tell that it asked for it"
    for name, node in sorted(case.nodes.items()):
        for request, ask in node.asked.items():
            rows = case.allocated.get(request, [])
            if not rows and ask.given is None:
                continue  # it was never made, or never heard of
            if ask.given is not None and _joined(ask.given) != [(row.qc, row.start, row.end) for row in rows]:
                yield f"allocation {request}: node {name} tells of other bytes than the shared database"
            keys = [case.keys[key_id] for key_id in case.keys_of.get(request, ())]
            same = set(ask.key_ids) == {key.key_id for key in keys}
            if not same or any((key.master_sae, key.slave_sae) != case.sessions.get(ask.ksid) for key in keys):
                yield f"allocation {request}: node {name} tells of other keys, or of another session"


def used(case: Case) -> Iterator[str]:
    """A node's journal tells of what its account tells of, or less if it ended in between; and of the right use."""
    for name, node in sorted(case.nodes.items()):
        taken: collections.Counter[tuple[str, str]] = collections.Counter()
        last: dict[str, float] = {}
        for take in case.accounts[name].taken if name in case.accounts else ():
            taken[take.request, take.qc] += take.end - take.start
            last[take.request] = case.qcs.mono_time(take.at)
        for request, qc in sorted(taken.keys() | node.used.keys()):
            uses, where = node.used.get((request, qc), []), f"node {name}, QC {qc}"
            told, n_bytes = sum(use.end - use.start for use in uses), taken[request, qc]
            lacks = told < n_bytes and not node.lives.unwritten(last[request])
            if name in case.accounts and (told > n_bytes or lacks):
                yield f"{where}: its journal tells of {told} bytes used for {request}, its account of {n_bytes}"
            single = len(case.allocated.get(request, ())) == 1
            if any((use.purpose == KEY) != single for use in uses):
                yield f"{where}: bytes for {request} were used as {uses[0].purpose}, which they were not given for"


def handed_out(case: Case) -> Iterator[str]:
    """A node hands out keys that exist, whose bytes all nodes have taken, to the SAE whose they are, within a TTL."""
    made_at: dict[str, float] = {}  # by request: when its first node took its share
    for name, account in case.accounts.items():
        for take in account.taken:
            if name == case.paths.get(take.request, [None])[0]:
                made_at.setdefault(take.request, take.at)
    for name, node in sorted(case.nodes.items()):
        for kind, side in ((ENC, MASTER), (DEC, SLAVE)):
            for key_id, out in node.handed_out[kind].items():
                key, where = case.keys.get(key_id), f"key {key_id}: node {name} handed it out ({kind})"
                if key is None:
                    yield f"{where}, and nothing was allocated for it"
                    continue
                if out.pair != (key.master_sae, key.slave_sae) or _node(case, _sae(key, side)) != name:
                    yield f"{where} to an SAE that it was not made for"
                yield from unmade(case, key, side)
                at, slot_s = case.qcs.boot_time(out.mono), case.slot_s(key.request)
                age_s, ttl_slots = at - made_at.get(key.request, at), case.ttl.longest(at)
                if age_s > ttl_slots * slot_s + LATE_S:
                    yield f"{where} when it was {age_s:.1f} s old, more than {ttl_slots} slots"


def got(case: Case) -> Iterator[str]:
    """What applications got: keys of their sessions, as their nodes tell, the same at both sides, each under one ID."""
    ids: dict[str, str] = {}
    for side, kind in ((MASTER, ENC), (SLAVE, DEC)):
        for key_id, mine in case.told.got[side].items():
            if ids.setdefault(mine.fingerprint, key_id) != key_id:
                yield f"keys {ids[mine.fingerprint]} and {key_id} are the same key"
            key = case.keys.get(key_id)
            if key is None:
                yield f"key {key_id}: its {side} got it, and nothing was allocated for it"
                continue
            if (_node(case, _sae(key, side)), case.sessions.get(mine.ksid)) != (mine.node, key[2:]):
                yield f"key {key_id}: its {side} at {mine.node} is not whom it was made for, or not in its session"
            yield from unmade(case, key, side)
            node, taken = case.nodes.get(mine.node), case.taken_at(mine.node, key.request)
            if node and key_id not in node.handed_out[kind] and not node.lives.unwritten(taken, mine.mono):
                yield f"key {key_id}: its {side} got it, and node {node.name} does not tell of it"
    yield from _pairs(case)


def received(case: Case) -> Iterator[str]:
    """What nodes handed out to applications of the run's own is what these got, or say that they asked for in vain.

    People may use an application's certificate with a client of their own, which keeps no journal.
    """
    for name, node in sorted(case.nodes.items()):
        for side, kind in ((MASTER, ENC), (SLAVE, DEC)):
            for key_id, out in node.handed_out[kind].items():
                sae = out.pair[SIDES.index(side)]
                if not out.is_traced or not _is_ours(case, sae):
                    continue
                if key_id in case.told.got[side] or key_id in node.untaken:
                    continue
                if not case.told.may_lack(_node(case, sae), side, out.trace, out.mono):
                    yield f"key {key_id}: node {name} handed it out ({kind}), and its {side}'s journal lacks it"


def _pairs(case: Case) -> Iterator[str]:
    """Both sides of each pair got the same. A slave has a key before its master uses it, so no master has one alone."""
    masters, slaves = case.told.got[MASTER], case.told.got[SLAVE]
    for key_id in masters.keys() & slaves.keys():
        mine, other = masters[key_id], slaves[key_id]
        if (mine.fingerprint, mine.size_bits) != (other.fingerprint, other.size_bits):
            yield f"key {key_id}: master and slave got different keys"
        if mine.ksid != other.ksid:
            yield f"key {key_id}: master and slave got it in different sessions"
    for key_id, key in case.keys.items():
        if not all(_is_ours(case, sae) for sae in (key.master_sae, key.slave_sae)):
            continue
        if key_id in masters and key_id not in slaves:
            yield f"key {key_id}: its master uses it, and its slave's journal has no such key"
        if key_id in slaves and key_id not in masters:
            slave, at = slaves[key_id], _node(case, key.master_sae)
            if not case.told.may_lack(at, MASTER, slave.trace, case.taken_at(at, key.request), slave.mono):
                yield f"key {key_id}: its slave got it, and its master's journal has no such key"


def outcomes(case: Case) -> tuple[dict[str, int], list[str]]:
    """Bytes lost by QC, and findings: allocations of which nobody says what became of them, and losses of nothing.

    An allocation has come to something if one of its keys was handed out: more are made only together with such a one.
    Else it is lost, and its node has to say so, unless it ended meanwhile.
    """
    told, gone, findings = _told_as_lost(case)
    lost: collections.Counter[str] = collections.Counter()
    for request, allocated in case.allocated.items():
        first = case.nodes.get(allocated[0].node)
        if first is None or not _came_to_something(case, first, request):
            n_bytes = sum(row.end - row.start for row in allocated)
            n_told = sum(end - start for _, start, end in told.get(request, ()))
            if request not in told and not (first is not None and _may_be_untold(first, request)):
                findings.append(f"allocation {request}: node {allocated[0].node} does not say what became of it")
            if n_told not in (0, n_bytes):  # 0: its node never learnt which bytes they were
                findings.append(f"allocation {request}: {n_told} bytes are told as lost, and {n_bytes} were")
            for row in allocated:
                lost[row.qc] += row.end - row.start
        else:  # keys of which the slave's node held nothing, or whose clients were gone, have cost their part of it
            for key_id in gone.intersection(case.keys_of[request]):
                for qc, start, end in _parts(case, case.keys[key_id]):
                    lost[qc] += end - start
    return dict(sorted((+lost).items())), findings


def _may_be_untold(first: Node, request: str) -> bool:
    """Whether a node need not say what became of an allocation: it ended before it could, or never told of it."""
    ask = first.asked.get(request)
    if ask is None:  # a finding of `asked`, unless its end excuses that
        return True
    if ask.given is not None:
        return first.lives.cut_off(ask.mono)
    # Where no answer came the loss is told before. A refusal may be the answer to a second try: the first one may have
    # been granted, or still be, and the node finds out later.
    return not ask.is_unanswered and first.lives.cut_off(ask.mono, ask.mono + _FOUND_OUT_S)


def _told_as_lost(case: Case) -> tuple[dict[str, set[tuple[str, int, int]]], set[str], list[str]]:
    """What first nodes tell of their allocations, by request; keys of which one side got nothing; findings."""
    told: dict[str, set[tuple[str, int, int]]] = collections.defaultdict(set)
    gone = {key_id for node in case.nodes.values() for key_id in node.untaken}
    findings: list[str] = []
    for name, node in sorted(case.nodes.items()):
        for request, uses in node.lost.items():
            rows, spans = case.allocated.get(request, []), {(use.qc, use.start, use.end) for use in uses}
            keys = [case.keys[key_id] for key_id in case.keys_of.get(request, ())]
            is_first = not rows or rows[0].node == name
            side, kind = (MASTER, ENC) if is_first else (SLAVE, DEC)
            mine = [key for key in keys if is_first or _node(case, _sae(key, side)) == name]
            handed_out = [key for key in mine if key.key_id in node.handed_out[kind]]
            # Over several hops the slave's node would not know of bytes that were gone.
            gone_here = [k for k in mine if k.key_id in node.untaken or (not is_first and len(rows) == 1)]
            own = {part: key.key_id for key in gone_here for part in _parts(case, key)}
            if is_first:
                told[request] |= spans
            if is_first and not handed_out:
                wrong = {s for s in spans if not any(s[0] == r.qc and r.start <= s[1] < s[2] <= r.end for r in rows)}
            else:
                wrong = spans - own.keys()
                gone |= {own[span] for span in spans & own.keys()}
            for key in handed_out:
                # A server that has forgotten the delivery gives it again, and the bytes are not there any more.
                again = not is_first and any(node.handed_out[kind][key.key_id].mono <= at for at in case.meant.switches)
                parts = [] if again else _parts(case, key)
                if key.key_id not in node.untaken and any(_overlap(s, p) for s in spans for p in parts):
                    findings.append(f"key {key.key_id}: node {name} handed it out, and tells of it as lost")
                elif key.key_id in node.untaken and 0 < len(spans.intersection(parts)) < len(parts):
                    findings.append(f"key {key.key_id}: node {name} tells of some of what it cost, not of all")
            for qc, start, end in sorted(wrong):
                what = f"QC {qc}: bytes {start} to {end}"
                findings.append(f"node {name}, {what} are told as lost for {request}, which was not given them")
    return told, gone, findings


def _came_to_something(case: Case, first: Node, request: str) -> bool:
    key_ids = case.keys_of.get(request, ())
    return any(key_id in first.handed_out[ENC] or key_id in case.told.got[MASTER] for key_id in key_ids)


def unmade(case: Case, key: Key, side: str) -> Iterator[str]:
    """Nodes that have not taken their bytes of a key that this side got. Over one hop each takes by itself.

    Of several paths those do that had to bring their part.
    """
    rows, lacking = case.allocated.get(key.request, []), list[list[tuple[str, str]]]()
    for part, path in case.routes.get(key.request, []):
        lacking.append([])
        for row, near, far in zip(part, path, path[1:], strict=False):
            if len(rows) > 1:
                lacking[-1] += [(node, row.qc) for node in (near, far) if not case.took_all(row, node)]
            elif side == MASTER:
                lacking[-1] += [] if case.took_all(row, near) else [(near, row.qc)]
            elif far in case.accounts and _own(case, row, key) not in case.share(row, far):
                lacking[-1].append((far, row.qc))
    first = case.nodes.get(rows[0].node) if rows else None
    ask = first.asked.get(key.request) if first is not None else None
    enough = len(lacking) if ask is None or ask.enough is None else ask.enough
    if sum(not of_path for of_path in lacking) < enough:
        for node, qc in itertools.chain.from_iterable(lacking):
            yield f"key {key.key_id}: its {side} got it, and node {node} did not take its bytes on QC {qc}"


def _parts(case: Case, key: Key) -> list[tuple[str, int, int]]:
    """What a key has cost, by QC, start and end: where it lies over one hop, else its part of each of its ranges."""
    parts = ((row.qc, *_own(case, row, key)) for row in case.allocated.get(key.request, ()))
    return [part for part in parts if part[1] < part[2]]


def _own(case: Case, row: Allocation, key: Key) -> Span:
    """A key's part of a range: of those that were made together each has as much of it, in the database's order."""
    key_ids, n_bytes = case.keys_of[row.request], row.end - row.start
    i, n_keys = key_ids.index(key.key_id), len(key_ids)
    return row.start + n_bytes * i // n_keys, row.start + n_bytes * (i + 1) // n_keys


def _overlap(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _joined(uses: Iterable[Used]) -> list[tuple[str, int, int]]:
    """The same bytes, neighbouring ones in one range."""
    found: list[tuple[str, int, int]] = []
    for qc, start, end, _ in uses:
        goes_on = bool(found) and (found[-1][0], found[-1][2]) == (qc, start)
        found.append((qc, found.pop()[1] if goes_on else start, end))
    return found


def _sae(key: Key, side: str) -> str:
    return key.master_sae if side == MASTER else key.slave_sae


def _node(case: Case, sae: str) -> str:
    """The node of an SAE; empty if there is no such SAE."""
    return case.meant.saes[sae].node if sae in case.meant.saes else ""


def _is_ours(case: Case, sae: str) -> bool:
    return sae in case.meant.saes and bool(case.meant.saes[sae].ours)
