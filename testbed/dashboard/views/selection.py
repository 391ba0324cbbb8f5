"""What a viewer looks at: a node, a link, a key session, or the whole network. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.dashboard.collected.snapshot import Document, Snapshot
from testbed.planning.plan import Plan

NETWORK, NODE, LINK, SESSION = "network", "node", "link", "session"


@dataclass(frozen=True, slots=True)
class Selection:
    """A kind and a name: of a node or link, or a KSID."""

    kind: str = NETWORK
    name: str = ""

    @property
    def key(self) -> str:
        """Both in one word, as an address has them."""
        return f"{self.kind}:{self.name}"


WHOLE = Selection()


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows: a network, how it is now, and what its viewer looks at."""

    plan: Plan
    snapshot: Snapshot
    selection: Selection = WHOLE


def selected(plan: Plan, key: str) -> Selection:
    """The selection of that key; the whole network if there is no such node or link."""
    kind, _, name = key.partition(":")
    known = {
        NODE: {n.name for n in plan.topology.nodes}, LINK: {p.name for p in plan.topology.links}, SESSION: {name},
    }  # fmt: skip
    return Selection(kind, name) if name in known.get(kind, ()) else WHOLE


def choices(plan: Plan, snapshot: Snapshot) -> dict[Selection, str]:
    """Everything that can be selected, with what to call it, in the order to show it in."""
    found = {WHOLE: "the whole network"}
    found |= {Selection(NODE, n.name): f"node {n.title}" for n in plan.topology.nodes}
    found |= {Selection(LINK, link.name): f"link {link.name}" for link in plan.topology.links}
    return found | {Selection(SESSION, s["ksid"]): f"session {s['ksid'][:8]} {pair(s)}" for s in listed(snapshot)}


def session(snapshot: Snapshot, selection: Selection) -> Document | None:
    """The selected key session, if one is selected and still there."""
    if selection.kind != SESSION:
        return None
    return next((s for s in snapshot.told("sessions") if s["ksid"] == selection.name), None)


# More rows than that nobody reads, and a browser has trouble to keep up with.
MOST_LISTED = 100


def listed(snapshot: Snapshot) -> Sequence[Document]:
    """The key sessions to list: all, or the latest if there are very many."""
    return list(snapshot.told("sessions"))[-MOST_LISTED:]


def pair(facts: Document) -> str:
    """Who shares keys with whom, by the names that people know."""
    return f"{facts.get('master', '?')} → {facts.get('slave', '?')}"
