"""What to tell of the node, link or session that a viewer looks at. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from documents.paths import in_words, paths_of
from testbed.dashboard.collected.snapshot import Document, Snapshot
from testbed.dashboard.views.selection import LINK, NODE, SESSION, Selection, pair, session
from testbed.dashboard.views.view_map import SILENT_S, link_state, shaped
from testbed.dashboard.views.view_tables import clock, qc_state, series, session_state
from testbed.planning.plan import Plan

Facts = list[tuple[str, str]]


def details(plan: Plan, snapshot: Snapshot, selection: Selection) -> tuple[str, Facts]:
    """A title, and names with values."""
    tell: Mapping[str, Callable[[Plan, Snapshot, Selection], tuple[str, Facts]]] = {
        NODE: _node, LINK: _link, SESSION: _session,
    }  # fmt: skip
    return tell.get(selection.kind, _network)(plan, snapshot, selection)


def _network(plan: Plan, snapshot: Snapshot, _: Selection) -> tuple[str, Facts]:
    status = snapshot.told("status")
    silent = snapshot.controller.answer is None or snapshot.controller.silent_s > SILENT_S
    answering = sum(h.answer is not None and h.silent_s <= SILENT_S for h in snapshot.nodes.values())
    return plan.topology.description or plan.topology.name, [
        ("controller", "✕ does not answer" if silent else "● answers"),
        ("nodes", f"{answering} of {len(plan.nodes)} answer"),
        ("switches", f"{len(status.get('switches', ()))} of {len(plan.switches)} connected"),
        ("links", f"{sum(f.lit for f in snapshot.fibres.values())} of {len(plan.links)} up"),
        ("broken", ", ".join(f"✕ {f.name}" for f in snapshot.faults) or "● nothing"),
        ("processes", ", ".join(f"✕ {name} {why}" for name, why in snapshot.away.items()) or "● all alive"),
    ]


def _node(plan: Plan, snapshot: Snapshot, selection: Selection) -> tuple[str, Facts]:
    node = next(n for n in plan.topology.nodes if n.name == selection.name)
    heard = snapshot.nodes.get(node.name)
    answer = (heard.answer if heard is not None else None) or {}
    silent = heard is None or heard.answer is None or heard.silent_s > SILENT_S
    saes = [s.name + (" (outside)" if s.external else "") for s in plan.saes if s.node == node.name]
    sessions = [s for s in snapshot.told("sessions") if node.name in (s["path"] or ())]
    ends = [s for s in sessions if node.name in (s["path"][0], s["path"][-1])]
    services = [
        name
        for name, where in (
            ("controller", plan.topology.controller_at), ("shared database", plan.topology.database_at),
        )
        if where == node.name
    ]  # fmt: skip
    services += [
        f"controller {each.name}"
        for each in plan.controllers[1:]
        if plan.hosts[each.name].switch == plan.switches[node.name]
    ]
    return f"Node {node.title}", [
        ("state", f"✕ no answer for {heard.silent_s:.0f} s" if silent and heard is not None else "● operating"),
        ("applications", ", ".join(saes) or "none"),
        *([("hosts also", ", ".join(services))] if services else []),
        ("sessions", f"{len(ends)} end here, {len(sessions) - len(ends)} are relayed"),
        ("keys delivered", str(snapshot.figures.by_node.get(node.name, 0))),
        *(
            (f"as a relay, {mode}", f"learned {what} of {number}")
            for (mode, what), number in snapshot.figures.by_relay.get(node.name, {}).items()
        ),
        *(_stock(qc) for qc in answer.get("qcs", ())),
    ]


def _stock(qc: Document) -> tuple[str, str]:
    text = f"{qc['stored_bytes']} B stored; {qc['used_bytes']} B used, {qc['expired_bytes']} B expired so far"
    return f"QC {qc['qc']}", text


def _link(plan: Plan, snapshot: Snapshot, selection: Selection) -> tuple[str, Facts]:
    link = next(link for link in plan.topology.links if link.name == selection.name)
    seen = {q["qc"]: q for q in snapshot.told("qcs")}
    fibre = snapshot.fibres.get(link.name)
    state = link_state(plan, link, snapshot, seen)[1] or "● up"
    facts = [("state", state)]
    if fibre is not None:
        now, planned = shaped(fibre.shapes), shaped((link.a_to_b, link.b_to_a))
        facts.append(("delay", now if now == planned else f"{now} (planned: {planned})"))
    if link.length_km is not None:
        facts.append(("length", f"{link.length_km:g} km"))
    for qc in link.qcs:
        found = seen.get(qc.name)
        facts.append((f"QC {qc.name}", qc_state(plan, snapshot, qc.name)))
        if found is not None and found["qber_percent"] is not None:
            facts.append(("error rate", f"{found['qber_percent']:.2f} %"))
        values = series(snapshot.curves.get(qc.name, ()))
        if values[0]:
            made, stored, expired, load = (v[-1] for v in values)
            facts.append(("now", f"makes {made:.0f} B/s, {stored:.0f} B in stock, {expired:.0f} B/s expire"))
            facts.append(("load", f"{load:.0f} % of what it makes is used"))
    using = [pair(s) for s in snapshot.told("sessions") if {q.name for q in link.qcs} & set(s["qcs"])]
    facts.append(("sessions", "; ".join(using[:8]) + (" …" if len(using) > 8 else "") or "none"))
    return f"Link {link.name}", facts


def _session(plan: Plan, snapshot: Snapshot, selection: Selection) -> tuple[str, Facts]:
    found = session(snapshot, selection)
    keys, failed = snapshot.figures.by_session.get(selection.name, (0, 0))
    counted = [("keys delivered", str(keys)), ("requests failed", str(failed))]
    if found is None:
        return "Session", [("KSID", selection.name), ("state", "◌ has ended"), *counted]
    opened = found["opened_at"]
    qos = found["qos"]
    return f"Session {pair(found)}", [
        ("KSID", found["ksid"]),
        ("state", session_state(found)),
        ("master", _end(plan, found["master_sae"])),
        ("slave", _end(plan, found["slave_sae"])),
        ("path", in_words(paths_of(found), " – ") or "not chosen yet"),
        ("mode", found["mode"]),
        ("wants", f"{qos['key_size_bits']} bit every {qos['interval_s']:g} s"),
        ("open since", clock(opened) if opened else "not yet"),
        *counted,
    ]


def _end(plan: Plan, sae_id: str) -> str:
    sae = plan.sae(sae_id)
    return f"{sae.name} at {sae.node}" if sae is not None else sae_id
