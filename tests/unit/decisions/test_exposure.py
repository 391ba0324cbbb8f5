"""Which nodes learn a key, computed anew from what the relay does with the bytes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from decisions.exposure import learned
from decisions.modes import MODES, NEW_KEYS, OTP, PAD, SHARED_KEY
from decisions.ranges import Range
from documents.secret import Secret
from node.relaying.ciphers import otp

KEY_BYTES = 32


def had(mode: str, hops: int, *, at_last: bool) -> dict[str, set[bytes]]:
    """What each node of a path has in its memory when keys are relayed as `node.relaying` says, with real pads."""
    strategy, nodes = MODES[mode], [f"n{i}" for i in range(hops + 1)]
    qcs = [f"qc{i}" for i in range(hops)]
    ranges = [Range(qc, 0, n) for qc, n in strategy.needs(qcs, KEY_BYTES, 1, double_at_last=at_last)]
    streams = {r.qc: os.urandom(len(r)) for r in ranges}
    uses = strategy.uses(ranges, KEY_BYTES, 1, double_at_last=at_last)
    parts = {(r.qc, p): streams[r.qc][r.start : r.end] for r, p in uses}
    relayed = os.urandom(KEY_BYTES) if strategy.cipher is None else parts[qcs[0], SHARED_KEY]
    key = relayed if strategy.cipher is None else parts[qcs[-1 if at_last else 0], NEW_KEYS]
    memory: dict[str, set[bytes]] = {node: set() for node in nodes}
    memory[nodes[0]] |= {key, relayed}
    for (qc, _), part in parts.items():  # the same stream is at both ends of a QC
        memory[nodes[qcs.index(qc)]].add(part)
        memory[nodes[qcs.index(qc) + 1]].add(part)
    for i, node in enumerate(nodes[1:-1] if strategy.at_once else nodes[1:], 1):
        if strategy.at_once:  # the pads, which it has, are all that it takes
            continue
        if i == 1 and strategy.cipher is not None:
            continue
        pad = parts[qcs[i - 1], PAD]
        sealed = otp(Secret(relayed), Secret(pad))
        memory[node].add(otp(sealed, Secret(pad)).reveal())
    if strategy.at_once:
        memory[nodes[-1]].add(relayed)
    if strategy.cipher == OTP:
        memory[nodes[-1]].add(otp(otp(Secret(key), Secret(relayed)), Secret(relayed)).reveal())
    elif strategy.cipher is not None:
        memory[nodes[-1]].add(key)
    found = SimpleNamespace(key=key, relayed=relayed)
    return {
        node: {"the key"} if found.key in has else {"the shared key"} if found.relayed in has else {"nothing"}
        for node, has in memory.items()
    }  # type: ignore[return-value]


@pytest.mark.parametrize("at_last", [False, True])
@pytest.mark.parametrize("hops", [1, 2, 3, 5])
@pytest.mark.parametrize("mode", list(MODES))
def test_what_is_said_is_what_the_nodes_had(mode, hops, at_last):
    """In every mode, over every number of hops, whichever end pays double."""
    nodes = [f"n{i}" for i in range(hops + 1)]
    at_once = MODES[mode].at_once
    found = learned(MODES[mode].cipher, nodes, double_at_last=at_last, at_once=at_once)
    said = {entry.node: {entry.what} for entry in found}

    assert said == (had(mode, hops, at_last=at_last) if hops > 1 else {"n0": {"the key"}, "n1": {"the key"}})


def test_relay_behind_the_first_one_learns_only_the_shared_key_in_basic():
    """And the whole key in otp; in parallel nothing."""
    assert [e.what for e in learned(OTP, "abcd")] == ["the key", "the key", "the shared key", "the key"]
    assert [e.what for e in learned(None, "abcd")] == ["the key"] * 4
    assert [e.what for e in learned(None, "abcd", at_once=True)] == ["the key", "nothing", "nothing", "the key"]
