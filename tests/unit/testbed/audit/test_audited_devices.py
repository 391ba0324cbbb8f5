"""What the audit says of QCs whose key material came from devices, by the journals of the nodes that asked them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.played_run import BOOT, played, verdict

QC = "a-b/1"
Document = dict[str, Any]


def with_a_device() -> Document:
    """The played run, where a-b/1 is a device's: each end tells in its journal of the blocks that came there."""
    document = played()
    emulated = [e for e in document["qcs"] if e.get("qc") == QC]
    document["qcs"] = [e for e in document["qcs"] if e.get("qc") != QC]
    for event in document["qcs"]:
        if event["event"] == "stopped":
            event["waiting"] = [row for row in event["waiting"] if row[0] != QC]
    lost = {(e["end"], e["sequence"]) for e in emulated if e["event"] == "block_lost"}
    blocks = [e for e in emulated if e["event"] == "block" and e["n_bytes"]]
    last = blocks[-1]
    # The end that leads has all that it tells of. What the other one lacks was given to nobody.
    given = [(row[4], row[5]) for row in document["records"]["allocations"] if row[2] == QC]
    free = next(
        e for e in blocks if not any(s < e["offset"] + e["n_bytes"] and e["offset"] < t for s, t in given)
    )  # fmt: skip
    for node, times in (("a", sum(end == "a" for end, _ in lost)), ("b", -1)):
        (stream,) = (s for s in document["records"]["nodes"][node]["streams"] if s["qc"] == QC)
        for figure in ("generated", "expired"):
            stream[figure] += times * free["n_bytes"]
    lost = {("b", free["sequence"])}
    for node in "ab":
        for event in blocks:
            if node == "b" and event is last:
                continue  # it had not come to b yet
            name = "device_gap" if (node, event["sequence"]) in lost else "device_block"
            facts = {
                "qc": QC, "epoch": event["epoch"], "start": event["offset"], "end": event["offset"] + event["n_bytes"],
                "made": event["made"], "at": BOOT + event["mono"],
            }  # fmt: skip
            document["nodes"][node].append({**event, **facts, "event": name})
        document["nodes"][node].sort(key=lambda e: e["mono"])
    return document


def told(document: Document, node: str) -> list[dict[str, Any]]:
    """What the node tells of the device's blocks."""
    return [e for e in document["nodes"][node] if e["event"] == "device_block"]


def test_sound_records_of_a_device_are_clean():
    """As many bytes as if they had been emulated; what one end has given up counts as lost for it."""
    found = verdict(with_a_device())

    assert list(found.findings) == []
    assert found.counted == verdict(played()).counted
    assert any(e["event"] == "device_gap" for e in with_a_device()["nodes"]["b"])


def test_block_that_a_node_told_of_before_it_died_may_be_told_of_again():
    """It had not laid it; what it says next of the same bytes counts."""
    document = with_a_device()
    for node in "ab":
        twice = told(document, node)[-1]
        document["nodes"][node].insert(document["nodes"][node].index(twice), dict(twice))

    assert list(verdict(document).findings) == []


def another_length(document: Document) -> None:
    """The end that follows tells of bytes that were not offered."""
    told(document, "b")[3]["end"] -= 1


def a_hole(document: Document) -> None:
    """The end that leads does not tell of a block."""
    document["nodes"]["a"].remove(told(document, "a")[5])


def older(document: Document) -> None:
    """A block that is older than the one before it."""
    told(document, "a")[5]["made"] -= 100


def given_up(document: Document) -> None:
    """The end that follows says that it gave up what it took for keys."""
    for event in told(document, "b"):
        event["event"] = "device_gap"


def not_its_own(document: Document) -> None:
    """A node at neither end tells of the device."""
    document["nodes"]["c"].append({**told(document, "a")[0], "mono": 60.0})


def emulated_as_well(document: Document) -> None:
    """A QC that the emulators made cannot have come of a device."""
    document["nodes"]["b"].append({**told(document, "a")[0], "qc": "b-c/1", "mono": 60.0})


def silent(document: Document) -> None:
    """Nobody tells of the QC."""
    for node in "ab":
        document["nodes"][node] = [e for e in document["nodes"][node] if not e["event"].startswith("device_")]


@pytest.mark.parametrize(
    ("falsify", "words"),
    [
        (another_length, "which it was not offered"), (a_hole, "which do not follow those before"),
        (older, "which are older than those before"), (given_up, "never came"),
        (not_its_own, "from a device, which it has not"), (emulated_as_well, "from a device, which it has not"),
        (silent, "the journal has no block of it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_records_that_contradict_each_other_are_found(falsify, words):
    """Whoever wrote them."""
    document = with_a_device()
    falsify(document)

    assert [finding for finding in verdict(document).findings if "/1" in finding and words in finding]
