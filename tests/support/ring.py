"""Four played nodes on a ring, and a real controller that is quick to judge."""

from __future__ import annotations

from typing import Any

from etsi import gs015
from node.tree.model import apps, link_id, links, node_id
from telemetry import journal
from tests.support.followed import World

# A ring of four: the other way from one to its neighbour is three hops long, that to its opposite as long.
RING = {"a": {"ab": "b", "ad": "d"}, "b": {"ab": "a", "bc": "c"}, "c": {"bc": "b", "cd": "d"},
        "d": {"cd": "c", "ad": "a"}}  # fmt: skip
SOON = {"grace_s": 0.3, "steady_s": 0.5}


class Ring(World):
    """The ring, with a controller that is quick to judge."""

    def start_all(self, **options: Any) -> None:
        """Start it."""
        for name, qcs in RING.items():
            self.play(name, qcs)
        self.start(**SOON, **options).wait_ready(20)
        self.wait_for_nodes()

    def restart(self) -> None:
        """kill -9 of the controller, and its restart."""
        assert self.process is not None
        self.process.kill()
        self.start(**SOON).wait_ready(20)

    def goes(self, ksid: str, *path: str) -> bool:
        """Whether the session goes that way, as the controller and all nodes have it: nothing more, nothing less."""
        session = self.open_sessions()[ksid]
        return session["path"] == list(path) and self.configured(ksid) == list(path)

    def configured(self, ksid: str) -> list[str] | None:
        """The way that is configured, from the first end on; None if it is no way, or not the only one."""
        found = {n: apps_of(node, ksid) for n, node in self.nodes.items()}
        ends = [n for n, app in found.items() if app]
        if len({tuple(found[n]["backing_qkdl_id"]) for n in ends}) != 1:
            return None
        backing = found[ends[0]]["backing_qkdl_id"]
        passed = {n: [e for e in links(node.datastore.tree) if e["qkdl_type"] == gs015.VIRT]
                  for n, node in self.nodes.items()}  # fmt: skip
        if {link_id(qc) for qcs in RING.values() for qc in qcs} & set(backing):
            return None if any(passed.values()) else ends
        if any([e["qkdl_id"] for e in entries] not in ([], backing) for entries in passed.values()):
            return None
        names = {node_id(name): name for name in RING}
        here = next(n for n in ends if "virt_prev_hop" not in passed[n][0])
        way = [here]
        while hop := passed[here][0].get("virt_next_hop"):
            here = names[hop[0]]
            way.append(here)
        return way if len(way) == sum(map(bool, passed.values())) else None

    def events(self, name: str) -> list[dict[str, Any]]:
        """The controller's, of that name."""
        return [e for e in journal.read(self.directory / "ctl" / "journal.jsonl") if e["event"] == name]


def apps_of(node: Any, ksid: str) -> dict[str, Any]:
    """The application of that session at a node; empty if there is none."""
    return next((a for a in apps(node.datastore.tree) if a["app_id"] == ksid), {})
