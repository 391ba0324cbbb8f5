"""The network as marks on a map: where, in which form, with which words. PURE.

What a mark says, it says by form and word, so that it reads on any projector and in greyscale.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from documents.paths import paths_of
from scenario.quantum.decoy_bb84 import MOST_QBER
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Switched
from testbed.dashboard.collected import timeline
from testbed.dashboard.collected.snapshot import Document, Snapshot, TunnelEnd, mean
from testbed.dashboard.views.layout import HEIGHT, WIDTH, Layout, Point, lay_out
from testbed.dashboard.views.selection import LINK, NODE, Selection, session
from testbed.network.faults import broken_qcs
from testbed.planning.plan import Plan

# Seconds without an answer after which a node is shown as silent.
SILENT_S = 3.0
# For so long a refusal or a failure stands at its node and its QC.
ALERT_S = 6.0
# A QBER that no healthy device has; above 11 % no key is made.
NOISY_PERCENT = 4.5
_MOST_TRAVELLERS = 12
_ALERTS = {timeline.REFUSED: "✕ session refused", timeline.FAILED: "✕ no key"}

UP, CHANGED, DOWN, NO_KEY, SHORT, NOISY = "up", "changed", "down", "no-key", "short", "noisy"
OPERATING, SILENT, ALERT = "operating", "silent", "alert"


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

    `label`: what stands there; empty if nothing does. `stock` is the share of what could be in store, 0 to 1.
    `makes`: whether key material comes in.
    """

    selection: Selection
    ends: tuple[int, int, int, int]
    label_at: tuple[int, int]
    state: str
    label: str
    stock: float
    makes: bool
    words: str
    selected: bool
    on_path: bool


TUNNEL, LIGHT = "tunnel", "light"


@dataclass(frozen=True, slots=True)
class Arc:
    """A curve beside the straight way between two datacenters: a tunnel, on one side, or the light of a QC on demand,
    on the other. `key` tells it from others. `state`: of a tunnel the worse one of its two ends; UP or NO_KEY of light.
    """

    kind: str
    key: tuple[str, ...]
    curve: str  # of an SVG path
    state: str
    words: str


@dataclass(frozen=True, slots=True)
class MapView:
    """All marks, on a layout."""

    layout: Layout
    nodes: tuple[NodeMark, ...]
    links: tuple[LinkMark, ...]
    tunnels: tuple[Arc, ...] = ()
    lights: tuple[Arc, ...] = ()


def layout_of(plan: Plan) -> Layout:
    """Where things stand on the map of `plan`."""
    return lay_out(
        tuple((n.name, n.position) for n in plan.topology.nodes),
        tuple((link.name, link.a, link.b) for link in plan.topology.links),
        max(len(n.title) for n in plan.topology.nodes),
    )


def draw(plan: Plan, snapshot: Snapshot, selection: Selection) -> MapView:
    """The map of `plan` as `snapshot` has it."""
    layout = layout_of(plan)
    chosen = session(snapshot, selection)
    path = set((chosen or {}).get("qcs", ()))
    return MapView(
        layout,
        tuple(_node(n, snapshot, selection, layout) for n in plan.topology.nodes),
        tuple(_links(plan, snapshot, selection, path, layout)),
        tuple(_tunnels(snapshot, layout)),
        tuple(_lights(plan, snapshot, layout)),
    )


def selected_in(drawn: MapView, selection: Selection) -> MapView:
    """The same picture with another node or link selected."""
    nodes = tuple(replace(m, selected=m.selection == selection) for m in drawn.nodes)
    links = tuple(replace(m, selected=m.selection == selection) for m in drawn.links)
    return replace(drawn, nodes=nodes, links=links)


def travels(plan: Plan, snapshot: Snapshot, since: float) -> list[list[Point]]:
    """The ways of keys that were delivered after that time, as points of the map; only the latest of very many.

    A key from the pool travels nowhere: its way is the one place.
    """
    at = layout_of(plan).nodes
    paths = {s["ksid"]: paths_of(s) for s in snapshot.told("sessions")}
    found = []
    for key in snapshot.figures.keys:
        for path in paths.get(key.get("ksid"), ()) if key["time"] > since else ():
            found.append([at[n] for n in (path[:1] if key.get("source") == "pool" else path)])
    return found[-_MOST_TRAVELLERS:]


def _rounded(point: Point) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _recent(snapshot: Snapshot) -> Iterator[timeline.Happening]:
    """What was refused or failed so lately that it is still to be seen, the newest first."""
    for happening in reversed(snapshot.happenings):
        if happening.time < snapshot.time - ALERT_S:
            return
        if happening.kind in _ALERTS:
            yield happening


def _node(node: Node, snapshot: Snapshot, selection: Selection, layout: Layout) -> NodeMark:
    heard = snapshot.nodes.get(node.name)
    silent = heard is None or heard.answer is None or heard.silent_s > SILENT_S
    killed = any(f.kind == "node" and node.name in f.where for f in snapshot.faults)
    alert = next((_ALERTS[h.kind] for h in _recent(snapshot) if node.name in h.nodes), "")
    line = "✕ killed" if killed else "✕ no answer" if silent else alert or _counted(node, snapshot)
    state = SILENT if silent or killed else ALERT if alert else OPERATING
    mine = Selection(NODE, node.name)
    words = f"node {node.title}: {line if silent or killed else 'operating'}"
    x, y = _rounded(layout.nodes[node.name])
    return NodeMark(mine, x, y, state, node.title, line, words, selection == mine)


def _counted(node: Node, snapshot: Snapshot) -> str:
    """Sessions that end at a node, with the keys that they got; else those that it relays for others."""
    paths = [s["path"] for s in snapshot.told("sessions") if s["path"]]
    ends = sum(node.name in (path[0], path[-1]) for path in paths)
    relayed = sum(node.name in path[1:-1] for path in paths)
    keys = snapshot.figures.by_node.get(node.name, 0)
    if relayed and not ends and not keys:
        return f"relays {_many(relayed, 'session')}"
    return f"{_many(ends, 'session')} · {_many(keys, 'key')}"


def _links(
    plan: Plan, snapshot: Snapshot, selection: Selection, path: set[str], layout: Layout
) -> Iterator[LinkMark]:
    at = {name: _rounded(place) for name, place in layout.nodes.items()}
    qcs = {q["qc"]: q for q in snapshot.told("qcs")}
    short = {h.qc for h in _recent(snapshot)}
    for link in plan.topology.links:
        mine = Selection(LINK, link.name)
        state, word = link_state(plan, link, snapshot, qcs)
        if state in (UP, CHANGED, NOISY) and any(qc.name in short for qc in link.qcs):
            state, word = SHORT, "✕ too little key"
        made, stored = figures(link, snapshot)
        told = word or (f"{made:.0f} B/s · {stored} B" if layout.roomy or selection == mine else "")
        yield LinkMark(
            mine, (*at[link.a], *at[link.b]), _rounded(layout.labels.get(link.name, (0.0, 0.0))), state,
            told if link.name in layout.labels else "", _share(link, snapshot),
            made > 0 and state not in (DOWN, NO_KEY),
            f"link {link.name}: {word or 'up'}", selection == mine, any(qc.name in path for qc in link.qcs),
        )  # fmt: skip


_BULGE = 0.16  # of the straight way, by which a tunnel lies beside it, and light on the other side
_TIMES = (1.0, 1.4, 0.7, 1.9, 2.5, 3.2, 4.0)  # as far, as long as others are in the way
_CLEAR = 6.0  # from boxes and from the edge of the map
_STEPS = tuple(i / 48 for i in range(1, 48))  # at which it is looked at
_WORST = ("closed", "held", "up")


def curve(layout: Layout, ends: tuple[str, str], bulge: float) -> str:
    """Of an SVG path from one datacenter to the other, that far beside the straight way.

    Where others are in the way it goes farther or nearer, or on the other side, so that they hide the least of it.
    """
    half = (layout.scale * layout.box[0] / 2 + _CLEAR, layout.scale * layout.box[1] / 2 + _CLEAR)
    others = tuple(at for name, at in layout.nodes.items() if name not in ends)
    return _clear_curve(layout.nodes[ends[0]], layout.nodes[ends[1]], others, half, bulge)


@functools.lru_cache(maxsize=1024)
def _clear_curve(a: Point, b: Point, others: tuple[Point, ...], half: Point, bulge: float) -> str:
    def hidden(corner: Point) -> int:
        points = [
            tuple((1 - u) ** 2 * a[i] + 2 * u * (1 - u) * corner[i] + u**2 * b[i] for i in (0, 1)) for u in _STEPS
        ]
        return sum(
            not (_CLEAR < x < WIDTH - _CLEAR and _CLEAR < y < HEIGHT - _CLEAR)
            or any(abs(x - at[0]) < half[0] and abs(y - at[1]) < half[1] for at in others)
            for x, y in points
        )

    ways = [2 * side * times * bulge for side, times in itertools.product((1, -1), _TIMES)]
    corners = [((a[0] + b[0]) / 2 - way * (b[1] - a[1]), (a[1] + b[1]) / 2 + way * (b[0] - a[0])) for way in ways]
    x, y = min(corners, key=hidden)
    return f"M{a[0]:.0f} {a[1]:.0f} Q{x:.0f} {y:.0f} {b[0]:.0f} {b[1]:.0f}"


def lit(plan: Plan, snapshot: Snapshot) -> list[Switched]:
    """The QCs on demand that are lit now, as far as the controller has told."""
    known = {told["qc"] for told in snapshot.told("qcs")}
    return [one for one in plan.topology.switched if one.qc.name in known]


def _lights(plan: Plan, snapshot: Snapshot, layout: Layout) -> Iterator[Arc]:
    qcs, broken = {q["qc"]: q for q in snapshot.told("qcs")}, broken_qcs(plan, snapshot.faults)
    beside: Counter[tuple[str, str]] = Counter()
    for one in lit(plan, snapshot):
        ends, name = (min(one.a, one.b), max(one.a, one.b)), one.qc.name
        arc = curve(layout, ends, -_BULGE * (1 + beside[ends] / 2))
        beside[ends] += 1
        state = UP if name not in broken and generates(qcs[name]) else NO_KEY
        past = f", past {', '.join(one.past)}" if one.past else ""
        words = f"QC {name} is lit{past}: {'makes key' if state == UP else 'no new key'}"
        yield Arc(LIGHT, (*ends, name), arc, state, words)


def _tunnels(snapshot: Snapshot, layout: Layout) -> Iterator[Arc]:
    tunnels: dict[tuple[str, str], list[TunnelEnd]] = {}
    for end in snapshot.figures.tunnels:
        tunnels.setdefault((min(end.node, end.peer), max(end.node, end.peer)), []).append(end)
    for (a, b), ends in tunnels.items():
        state = min((end.state for end in ends), key=_WORST.index)
        words = f"{ends[0].kind} tunnel between {a} and {b}: {state}"
        yield Arc(TUNNEL, (a, b), curve(layout, (a, b), _BULGE), state, words)


def link_state(plan: Plan, link: Link, snapshot: Snapshot, qcs: Mapping[str, Document]) -> tuple[str, str]:
    """A link's state, the worst thing about it first, and the words for it; empty if all is as it should be."""
    fibre = snapshot.fibres.get(link.name)
    if fibre is not None and not fibre.lit:
        return DOWN, "✕ CUT"
    broken = broken_qcs(plan, snapshot.faults)
    error = max((told.get("qber_percent") or 0.0 for qc in link.qcs if (told := qcs.get(qc.name))), default=0.0)
    if link.qcs and all(qc.name in broken or not generates(qcs.get(qc.name)) for qc in link.qcs):
        noise = error > 100 * MOST_QBER and not any(qc.name in broken for qc in link.qcs)
        return NO_KEY, f"○ no new key, {error:.0f} % errors" if noise else "○ no new key"
    if error >= NOISY_PERCENT:
        return NOISY, f"≈ {error:.1f} % errors"
    if fibre is not None and fibre.shapes != (link.a_to_b, link.b_to_a):
        return CHANGED, f"◷ {_briefly(fibre.shapes)}"
    return UP, ""


def shaped(shapes: tuple[Shape, Shape]) -> str:
    """Both directions of a fibre in a few words: delay, and loss if there is some; one figure if they are alike."""
    words = [f"{s.delay_ms:g} ms" + (f", {s.loss_percent:g} % lost" if s.loss_percent else "") for s in shapes]
    return words[0] if words[0] == words[1] else " / ".join(words)


def _briefly(shapes: tuple[Shape, Shape]) -> str:
    """As `shaped`, as short as a label: how much is lost stands among the facts of the link."""
    delays = dict.fromkeys(f"{shape.delay_ms:.3g}" for shape in shapes)
    return f"{' / '.join(delays)} ms" + (", lossy" if any(shape.loss_percent for shape in shapes) else "")


def generates(qc: Document | None) -> bool:
    """Whether the controller sees new key material on a QC; what it has said nothing of is taken to be well."""
    return qc is None or (bool(qc["enabled"]) and qc["status"] in ("ACTIVE", "PASSIVE"))


def figures(link: Link, snapshot: Snapshot) -> tuple[float, int]:
    """Bytes a second that all QCs of a link made in the last slots, and the bytes that they have in stock now."""
    samples = [snapshot.curves.get(qc.name, ()) for qc in link.qcs]
    made = sum(mean([s.made for s in found[-5:]]) for found in samples)
    return made, sum(found[-1].stored for found in samples if found)


def _share(link: Link, snapshot: Snapshot) -> float:
    """How full the stock is: against all that the QCs can make in a TTL. In steps that can be seen."""
    ttl = int(snapshot.parameters.get("ttl_slots", 15))
    made, stored = figures(link, snapshot)
    most = max(made, sum(qc.low_bytes_per_slot for qc in link.qcs) * 0.5) * ttl
    return math.floor(50 * min(1.0, stored / most)) / 50 if most else 0.0


def _many(number: int, what: str) -> str:
    """So many of something, in few letters."""
    short = str(number) if number < 1000 else f"{number / 1000:.1f}k" if number < 100_000 else f"{number // 1000}k"
    return f"{short} {what}" if number == 1 else f"{short} {what}s"
