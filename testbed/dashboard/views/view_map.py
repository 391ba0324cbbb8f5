"""The network as marks on a map: where, in which form, with which words. PURE.

What a mark says, it says by form and word, so that it reads on any projector and in greyscale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scenario.shape import Shape
from scenario.topology_description import Link, Node
from testbed.dashboard.collected.snapshot import Document, Snapshot, mean
from testbed.dashboard.views.selection import LINK, NODE, Selection, session
from testbed.network.faults import broken_qcs
from testbed.planning.plan import Plan

WIDTH, HEIGHT = 1200, 660
_MARGIN_X, _MARGIN_Y = 130, 62
LABEL_WIDTH, _LABEL_HEIGHT = 186, 60
# So many nodes have room for big letters; more of them share it.
_ROOMY = 6
# Seconds without an answer after which a node is shown as silent.
SILENT_S = 3.0

UP, CHANGED, DOWN, NO_KEY = "up", "changed", "down", "no-key"
OPERATING, SILENT = "operating", "silent"


@dataclass(frozen=True, slots=True)
class NodeMark:
    """A datacenter: its centre, and what to write there. `words` is for people who do not see it, and changes with
    the state alone."""

    selection: Selection
    x: int
    y: int
    state: str
    title: str
    line: str
    words: str
    selected: bool


@dataclass(frozen=True, slots=True)
class LinkMark:
    """A link from one centre to the other; its label lies beside it, so that the line's form is to be seen.

    `stock` is the share of what could be in store, 0 to 1.
    """

    selection: Selection
    ends: tuple[int, int, int, int]
    label_at: tuple[int, int]
    state: str
    lines: tuple[str, ...]
    stock: float
    words: str
    selected: bool
    on_path: bool


@dataclass(frozen=True, slots=True)
class MapView:
    """All marks; `scale` is 1 where there is room, less where many nodes share it."""

    scale: float
    nodes: tuple[NodeMark, ...]
    links: tuple[LinkMark, ...]


def draw(plan: Plan, snapshot: Snapshot, selection: Selection) -> MapView:
    """The map of `plan` as `snapshot` has it."""
    number = len(plan.topology.nodes)
    scale = min(1.0, max(0.45, (_ROOMY / number) ** 0.5))
    chosen = session(snapshot, selection)
    path = set((chosen or {}).get("qcs", ()))
    return MapView(
        scale,
        tuple(_node(n, snapshot, selection) for n in plan.topology.nodes),
        tuple(_links(plan, snapshot, selection, path, scale=scale)),
    )


def place(position: tuple[float, float]) -> tuple[int, int]:
    """Where on the map a position of a topology file is."""
    x, y = position
    return round(_MARGIN_X + x * (WIDTH - 2 * _MARGIN_X)), round(_MARGIN_Y + (1 - y) * (HEIGHT - 2 * _MARGIN_Y))


def beside(a: tuple[int, int], b: tuple[int, int], scale: float) -> tuple[int, int]:
    """Where a link's label has its centre: off its middle, on the side away from the middle of the map."""
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy) or 1.0
    across = -dy / length, dx / length
    if across[0] * (WIDTH / 2 - x) + across[1] * (HEIGHT / 2 - y) > 0:
        across = -across[0], -across[1]
    # A label is broader than high: as far off as half of it reaches in that direction, and a little more.
    off = scale * (abs(across[0]) * LABEL_WIDTH / 2 + abs(across[1]) * _LABEL_HEIGHT / 2 + 14)
    return round(x + across[0] * off), round(y + across[1] * off)


def _node(node: Node, snapshot: Snapshot, selection: Selection) -> NodeMark:
    heard = snapshot.nodes.get(node.name)
    silent = heard is None or heard.answer is None or heard.silent_s > SILENT_S
    sessions = sum(node.name in (s["path"] or ()) for s in snapshot.told("sessions"))
    keys = snapshot.figures.by_node.get(node.name, 0)
    killed = any(f.kind == "node" and node.name in f.where for f in snapshot.faults)
    line = "✕ killed" if killed else "✕ no answer" if silent else f"{_many(sessions, 'session')} · {_many(keys, 'key')}"
    mine = Selection(NODE, node.name)
    words = f"node {node.title}: {line if silent or killed else 'operating'}"
    x, y = place(node.position)
    return NodeMark(mine, x, y, SILENT if silent or killed else OPERATING, node.title, line, words, selection == mine)


def _links(
    plan: Plan, snapshot: Snapshot, selection: Selection, path: set[str], *, scale: float
) -> Iterator[LinkMark]:
    at = {n.name: place(n.position) for n in plan.topology.nodes}
    qcs = {q["qc"]: q for q in snapshot.told("qcs")}
    for link in plan.topology.links:
        mine = Selection(LINK, link.name)
        state, word = link_state(plan, link, snapshot, qcs)
        made, stored = figures(link, snapshot)
        amounts = f"{made:.0f} B/s · {stored} B"
        label = (word, amounts) if word else (amounts,)
        show = len(at) <= 2 * _ROOMY or bool(word) or selection == mine
        yield LinkMark(
            mine, (*at[link.a], *at[link.b]), beside(at[link.a], at[link.b], scale), state, label if show else (),
            _share(link, snapshot),
            f"link {link.name}: {word or 'up'}", selection == mine, any(qc.name in path for qc in link.qcs),
        )  # fmt: skip


def link_state(plan: Plan, link: Link, snapshot: Snapshot, qcs: Mapping[str, Document]) -> tuple[str, str]:
    """A link's state, the worst thing about it first, and the words for it; empty if all is as it should be."""
    fibre = snapshot.fibres.get(link.name)
    if fibre is not None and not fibre.lit:
        return DOWN, "✕ CUT"
    broken = broken_qcs(plan, snapshot.faults)
    if link.qcs and all(qc.name in broken or not generates(qcs.get(qc.name)) for qc in link.qcs):
        return NO_KEY, "○ no new key"
    if fibre is not None and fibre.shapes != (link.a_to_b, link.b_to_a):
        return CHANGED, f"◷ {shaped(fibre.shapes)}"
    return UP, ""


def shaped(shapes: tuple[Shape, Shape]) -> str:
    """Both directions of a fibre in a few words: delay, and loss if there is some; one figure if they are alike."""
    words = [f"{s.delay_ms:g} ms" + (f", {s.loss_percent:g} % lost" if s.loss_percent else "") for s in shapes]
    return words[0] if words[0] == words[1] else " / ".join(words)


def generates(qc: Document | None) -> bool:
    """Whether the controller sees new key material on a QC; what it has said nothing of is taken to be well."""
    return qc is None or (bool(qc["enabled"]) and qc["status"] in ("ACTIVE", "PASSIVE"))


def figures(link: Link, snapshot: Snapshot) -> tuple[float, int]:
    """Bytes a second that all QCs of a link made in the last slots, and the bytes that they have in stock now."""
    samples = [snapshot.curves.get(qc.name, ()) for qc in link.qcs]
    made = sum(mean([s.made for s in found[-5:]]) for found in samples)
    return made, sum(found[-1].stored for found in samples if found)


def _share(link: Link, snapshot: Snapshot) -> float:
    """How full the stock is: against all that the QCs can make in a TTL."""
    ttl = int(snapshot.parameters.get("ttl_slots", 15))
    made, stored = figures(link, snapshot)
    most = max(made, sum(qc.low_bytes_per_slot for qc in link.qcs) * 0.5) * ttl
    return min(1.0, stored / most) if most else 0.0


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
