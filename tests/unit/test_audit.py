"""The audit finds what must never happen, and nothing else."""

from __future__ import annotations

import copy

import pytest

from testbed.audit import audit

BLOCKS = [(0, 1, 0, 10), (1, 2, 10, 0), (2, 3, 10, 10), (3, 20, 20, 10)]  # sequence, slot and made, offset, bytes
EVENTS = [
    *(
        {"event": "block", "qc": "q", "sequence": sequence, "epoch": 5, "slot": slot, "offset": offset,
         "n_bytes": n_bytes, "made": float(slot)}
        for sequence, slot, offset, n_bytes in BLOCKS
    ),
    {"event": "key", "key_id": "k", "side": "master", "fingerprint": "x"},
    {"event": "key", "key_id": "k", "side": "slave", "fingerprint": "x"},
]  # fmt: skip
RECORDS = {
    "allocations": [["r1", 1, "q", 5, 0, 4, "a"], ["r2", 1, "q", 5, 10, 16, "a"]],
    "ttl_s": 15,
    "nodes": {
        "a": {
            "streams": [{"qc": "q", "epoch": 5, "head": 30, "generated": 30, "used": 10, "expired": 10, "differing": 0,
                         "stored": 10}],
            "taken": [["q", 5, 0, 4, 1, 15, "r1"], ["q", 5, 10, 12, 3, 17, "r2"], ["q", 5, 12, 16, 3, 17, "r2"]],
        },
        "b": {
            "streams": [{"qc": "q", "epoch": 5, "head": 20, "generated": 20, "used": 4, "expired": 0, "differing": 0,
                         "stored": 16}],
            "taken": [["q", 5, 0, 4, 1, 3, "r1"]],
        },
    },
}


def test_sound_records_are_clean():
    """Also while one end has taken less, or seen fewer blocks, than the other."""
    verdict = audit(EVENTS, RECORDS)

    assert list(verdict.findings) == []
    assert verdict.counted == {"allocations": 2, "ranges_taken": 4, "bytes_generated": 30, "pairs": 1}


def changed(**parts):
    """The records with something in them that must not be."""
    records = copy.deepcopy(RECORDS)
    for name, value in parts.items():
        if name == "allocation":
            records["allocations"].append(value)
        elif name == "take":
            records["nodes"]["a"]["taken"].append(value)
            records["nodes"]["a"]["streams"][0]["used"] += value[3] - value[2]
            records["nodes"]["a"]["streams"][0]["stored"] -= value[3] - value[2]
        else:
            records["nodes"]["a"]["streams"][0][name] = value
    return records


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (changed(allocation=["r3", 1, "q", 5, 3, 5, "a"]), "bytes from 3 were allocated to r1 and to r3"),
        (changed(allocation=["r3", 1, "q", 5, 28, 31, "a"]), "up to 31 were allocated that it never made"),
        (changed(allocation=["r3", 1, "p", 5, 0, 1, "a"]), "QC p: bytes up to 1 were allocated"),
        (changed(take=["q", 5, 0, 2, 1, 5, "r1"]), "bytes from 0 were taken twice"),
        (changed(take=["q", 5, 4, 6, 1, 5, "r1"]), "were taken for r1, which was not given them"),
        (changed(take=["q", 5, 20, 22, 1, 5, "r9"]), "were taken for r9, which was not given them"),
        (changed(allocation=["r3", 1, "q", 5, 5, 7, "a"], take=["q", 5, 5, 7, 2, 16.5, "r3"]), "used 15.500 s old"),
        (changed(expired=11), "30 bytes came, but used, expired, differing and stored are not as many"),
        (changed(used=9, stored=11), "9 bytes are counted as used, 10 were taken"),
        (changed(generated=29, expired=9), "29 bytes came of 30 that were made"),
    ],
)
def test_violation_is_named(records, found):
    """Where, and which bytes."""
    findings = audit(EVENTS, records).findings

    assert any(found in finding for finding in findings), findings


def test_pair_with_different_keys_is_a_violation():
    """The worst of all."""
    events = [*EVENTS[:-1], EVENTS[-1] | {"fingerprint": "y"}]

    assert list(audit(events, RECORDS).findings) == ["1 of 1 key pairs differ"]


def test_block_that_was_lost_on_its_way_is_no_violation():
    """The QC says that it gave it up; this end never had it."""
    events = [*EVENTS, {"event": "block_lost", "qc": "q", "sequence": 1, "epoch": 5, "end": "a"}]

    assert list(audit(events, changed(generated=29, expired=9)).findings) == []
