"""A controller with its nodes for all tests that leave it as it was, and one for a test that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.followed import LINKS, World
from tests.support.waiting import until


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A controller that knows four nodes."""
    made = World(tmp_path_factory.mktemp("ctl"))
    try:
        made.start_with_nodes()
        yield made
    finally:
        made.stop()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A world in which nothing is started yet."""
    made = World(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def admitting(alone) -> World:
    """A controller of its own, whose QCs have made 40 bytes a slot for 5 slots, but `cd` only 4."""
    alone.start_with_nodes()
    made = {"ab": 40, "bc": 40, "ac": 40, "cd": 4}
    for slot in range(1, 6):
        for name, node in alone.nodes.items():
            # One end says what was asked for, both what was made.
            asked = {qc: int(name < peer) for qc, peer in LINKS[name].items()}
            node.report(slot, **{qc: (made[qc], asked[qc], 0) for qc in LINKS[name]})
    known = {"ab": 40, "ac": 40, "bc": 40, "cd": 4}
    assert until(
        lambda: {q["qc"]: (q["generated_per_slot"], q["requested_per_slot"]) for q in alone.operator("links")["links"]}
        == {qc: (rate, 1) for qc, rate in known.items()}
        and all(n["slot"] == 5 for n in alone.operator("status")["nodes"].values())
    )
    return alone
