"""What an audit asks of allocations that the shared database forgot when a standby took over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.played_run import played, verdict


def forgotten(switches: list[float]) -> tuple[dict[str, Any], set[str]]:
    """A sound run whose database has no record of what nodes were given; another server took over at these times."""
    document = played()
    told = {
        event["allocation"]
        for events in document["nodes"].values()
        for event in events
        if event["event"] == "statement" and event["statement"] == "allocate" and event.get("ranges")
    }
    records = document["records"]
    records["allocations"] = [row for row in records["allocations"] if row[0] not in told]
    records["keys"] = [row for row in records["keys"] if row[1] not in told]
    records["meant"]["switches"] = [[at] for at in switches]
    return document, told


def test_what_was_lost_when_a_standby_took_over_is_audited_as_nodes_tell_of_it():
    """All of it is as it must be."""
    document, told = forgotten([70.0])

    assert len(told) > 10
    assert list(verdict(document).findings) == []


@pytest.mark.parametrize("switches", [[], [1.0]])
def test_what_the_database_does_not_know_without_such_a_switch_after_it_is_a_finding(switches):
    """Nothing can have been lost then."""
    document, _ = forgotten(switches)

    assert verdict(document).findings


def test_bytes_of_a_forgotten_allocation_that_are_used_again_are_a_finding():
    """That of one that the database knows nothing of as well."""
    document, told = forgotten([70.0])
    taken = document["records"]["nodes"]["a"]["taken"]
    first, other = next((a, b) for a in taken for b in taken if a[6] != b[6] and {a[6], b[6]} <= told and a[0] == b[0])
    other[1:4] = first[1:4]

    assert any("taken twice" in finding for finding in verdict(document).findings)
