"""The live view is a face of the operator's interface: all that it knows of a run it asks for there."""

from __future__ import annotations

import ast
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenario.topology import load
from testbed.dashboard.collected.watch import Watch
from testbed.operation.interface import checked
from testbed.planning.make import make_plan
from tests.support.waiting import until

PLAN = make_plan(load("poliqi", Path("topologies")))
PAGE = Path("testbed/dashboard")
ANSWERS: dict[str, Any] = {
    "names": {"qcs": ["government-military/1"]}, "fibres": [], "faults": [], "processes": {}, "controller": {},
    "qcs": [], "sessions": [], "refusals": [], "node": {"qcs": []},
}  # fmt: skip
KEY = {
    "event": "key_delivered", "node": "government", "master": "tax-office", "slave": "billing", "hops": 2,
    "duration_ms": 5.0, "key_ids": ["1", "2"], "ksid": "k",
}  # fmt: skip


def test_all_requests_and_events_are_those_of_the_operators_interface_and_come_to_the_latest_snapshot():
    """Also what happened before the page was there."""
    asked: set[str] = set()
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()
    events.put(KEY | {"time": 1.0})

    def request(name: str, /, **arguments: Any) -> Any:
        checked(name, arguments)
        asked.add(name)
        return ANSWERS[name]

    def stream(name: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        assert checked(name, arguments)["since"] == 0.0
        asked.add(name)
        yield from iter(events.get, None)

    watch = Watch(PLAN, request, stream)
    watch.start()
    try:
        assert until(lambda: watch.latest.figures.multi_hop == 2)
        events.put(KEY | {"time": 2.0})
        events.put({"event": "fault", "time": 3e9, "kind": "cut", "where": ["government", "military"]})
        assert until(lambda: watch.latest.happenings)
    finally:
        events.put(None)
        watch.stop()

    shown = watch.latest
    assert shown.figures.by_node == {"government": 4, PLAN.sae("billing").node: 4}
    assert [h.words for h in shown.happenings] == ["broken: cut government military"]
    assert asked == {*ANSWERS, "follow"}


def test_page_reads_no_file_of_the_run():
    """Journals are the parts' own: what a page shows of them is what operators are told."""
    for path in PAGE.rglob("*.py"):
        found = {
            f"{node.module}.{name.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        assert not [name for name in found if "journal" in name], f"{path} reads journals by itself"
