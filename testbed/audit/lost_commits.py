"""Allocations that a shared database gave, and forgot when a standby took over for which commits did not wait. PURE.

The server that took over has no record of them. The nodes that were given them have, and what is restored from their
journals has to stand up to all that an audit asks, as if the database still knew it: no byte of it is used twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from testbed.audit.evidence import Account, Allocation, Key
from testbed.audit.told import Asked, Node, Used


def restored(
    nodes: Mapping[str, Node], accounts: Mapping[str, Account], known: Iterable[str], *, switches: Sequence[float],
    epochs: Mapping[str, int], pairs: Mapping[str, tuple[str, str]],
) -> tuple[list[Allocation], list[Key], set[tuple[str, str]]]:  # fmt: skip
    """What nodes were given before one of `switches`, and the database does not know: allocations and their keys.

    `known`: what it knows, by request. `epochs`: by QC, of bytes that nobody took; `pairs`: SAEs by KSID. The last
    result: request and QC of those that nobody took, which others may be given again.
    """
    taken = {(take.request, take.qc): take.epoch for account in accounts.values() for take in account.taken}
    rows, keys, untaken, there = list[Allocation](), list[Key](), set[tuple[str, str]](), set(known)
    for node, request, ask in _given(nodes):
        if request in there or not any(ask.begun <= at for at in switches) or ask.ksid not in pairs:
            continue
        whole = list(_joined(ask.given or ()))
        for position, (qc, start, end) in enumerate(whole, 1):
            if (request, qc) not in taken:
                untaken.add((request, qc))
            epoch = taken.get((request, qc), epochs.get(qc, 0))
            rows.append(Allocation(request, position, qc, epoch, start, end, node))
        # As the database would have them: over one hop as they lie in the range, else by their IDs.
        for key_id in ask.key_ids if len(whole) == 1 else sorted(ask.key_ids):
            keys.append(Key(key_id, request, *pairs[ask.ksid]))
    return rows, keys, untaken


def _given(nodes: Mapping[str, Node]) -> Iterator[tuple[str, str, Asked]]:
    for name, node in sorted(nodes.items()):
        for request, ask in node.asked.items():
            if ask.given:
                yield name, request, ask


def _joined(given: Sequence[Used]) -> Iterator[tuple[str, int, int]]:
    """A range a QC: what one gives for several purposes lies in a row."""
    for qc, uses in itertools.groupby(given, key=lambda use: use.qc):
        parts = list(uses)
        yield qc, parts[0].start, parts[-1].end
