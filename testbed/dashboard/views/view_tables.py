"""Key sessions, QCs, refusals and failures as rows of words. PURE.

Why something was refused or failed stands there in plain words: one sentence, and what one can do about it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents.paths import in_words, paths_of
from testbed.dashboard.collected.snapshot import Document, Heard, Sample, Snapshot
from testbed.dashboard.views.selection import Selection, listed, pair
from testbed.dashboard.views.view_map import generates, lit
from testbed.evidence.summary import quantiles
from testbed.network.faults import broken_qcs
from testbed.planning.plan import Plan

Facts = Mapping[str, Any]

# cause -> what happened, what helps. Facts that are missing read "?".
_REFUSALS = {
    "refused": (
        "{qc} cannot carry it: needs {needed_bytes} bytes, {available_bytes} are to spare.",
        "End a session over it, raise its rate, or change the admission policy.",
    ),
    "no_path": ("No chain of QCs that generate leads from one to the other.", "Heal a link or switch a QC on."),
    "too_few_paths": (
        "The mode needs {needed} node-disjoint paths, and there are {paths}.",
        "Heal what is down, or choose a mode that needs fewer.",
    ),
    "unknown_node": ("The controller does not reach {node}.", "Wait until it is back."),
    "agent_unreachable": ("{node} did not take over the configuration.", "Heal what is broken there, then try again."),
    "exists": ("The two have a key session already.", "Close that one first."),
    "same_node": ("Both are at the same node.", "They need no quantum key."),
    "foreign": ("Another node has registered this application.", "Look which node it belongs to."),
    "opening": ("A session of the two is being opened.", "Try again."),
    "too_many_sessions": ("Of {who} there are {most} key sessions, and can be no more.", "End some there first."),
}
_FAILURES = {
    "short_of_material": (
        "{qc} has too little key material that is young enough: {short_bytes} bytes short. Nothing was used up.",
        "Raise its rate, or have fewer keys over it. The last fifth of a TTL serves no new key.",
    ),
    "relay_broken": ("The relay broke at {node}; what it had taken is lost.", "Heal the link or node there."),
    "relay_altered": (
        "The key was altered on the way {path}; no application has got it.", "Distrust the nodes between.",
    ),
    "over_bandwidth": (
        "The application has taken more than its maximum of {max_bandwidth} bit/s allows. Nothing was used up.",
        "Ask less often, or have the controller allow it more.",
    ),
    "path_down": ("The session's path is down, and there is no other. Nothing was used up.", "Heal what is broken."),
    "database_unreachable": (
        "The shared database did not answer in time.",
        "Start it again if it was killed, or heal the links to its datacenter.",
    ),
    "busy": ("What came before it took all the time that there was. Nothing was used up.", "Ask less often."),
    "machine_refused": ("The node's machine has no room on its disk, or lacks something else.", "Make room there."),
    "internal_error": ("The node met a bug of ours.", "Its log says where; please report it."),
    "database_changed": (
        "The shared database has begun anew, and waits for the reports of nodes. Nothing was used up.", "Try again.",
    ),
    "database_refused": ("The shared database refused what a node asked for.", "Look into the log of that node."),
    "expired": ("What was allocated on {qc} was too old when it was needed.", "Raise the TTL, or shorten delays."),
    "no_session": ("The two have no key session open.", "Open one first."),
    "controller_unreachable": (
        "The node does not reach the controller.",
        "Start it again if it was killed, or heal the links to its datacenter.",
    ),
}


def why_refused(facts: Facts) -> tuple[str, str]:
    """Of a key session that was refused: why, and what helps."""
    return _say(_REFUSALS, facts)


def why_failed(facts: Facts) -> tuple[str, str]:
    """Of a request for keys that failed: why, and what helps."""
    return _say(_FAILURES | _REFUSALS, facts)


def _say(words: Mapping[str, tuple[str, str]], facts: Facts) -> tuple[str, str]:
    cause = str(facts.get("cause", "unknown"))
    why, helps = words.get(cause, (f"{facts.get('message', cause)}.", ""))
    if cause == "refused" and "message" in facts:
        why = "{message}."  # the controller's words: they say what was generated and requested, and what else was tried
    return why.format_map(_Known(facts)), helps


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


_SHOWN = 12
SPARK_WIDTH, SPARK_HEIGHT = 120, 30


@dataclass(frozen=True, slots=True)
class Row:
    """A row: what tells it from others, and its cells."""

    key: str
    cells: tuple[str, ...]
    selected: bool = False


@dataclass(frozen=True, slots=True)
class Spark:
    """A little curve of the last minutes, as points of a polyline, and its last value in words."""

    points: str
    now: str


@dataclass(frozen=True, slots=True)
class QcRow:
    """A QC: its name, its link, its state and its error rate in words, and its curves: made, stored, expired, load.

    `link`: empty for a QC on demand, which no fibre has for itself; `past`: whom its light goes past, in words.
    """

    qc: str
    link: str
    past: str
    state: str
    error_rate: str
    sparks: tuple[Spark, ...]


def sessions(snapshot: Snapshot, selection: Selection) -> list[Row]:
    """Who, state, path, mode, KSID (its beginning; the details have all of it), keys delivered, requests failed."""
    found = []
    for s in listed(snapshot):
        keys, failed = snapshot.figures.by_session.get(s["ksid"], (0, 0))
        path = in_words(paths_of(s), " – ") or "not chosen yet"
        cells = (pair(s), session_state(s), path, s["mode"], s["ksid"][:8], str(keys), str(failed))
        found.append(Row(s["ksid"], cells, selection.name == s["ksid"]))
    return found


_TUNNELS = {"up": "● up", "held": "◐ under an old key", "closed": "✕ closed"}


def tunnels(plan: Plan, snapshot: Snapshot) -> list[Row]:
    """Ends of tunnels: where, kind, state, the key, its age, how many keys there were; by end and key."""
    titles = {n.name: n.title for n in plan.topology.nodes}
    return [
        Row(
            f"{end.node} {end.peer} {end.key_id}",
            (f"{titles[end.node]} → {titles[end.peer]}", end.kind, _TUNNELS[end.state], end.key_id[:8],
             f"{max(0.0, snapshot.time - end.since):.0f} s", str(end.keys)),
        )
        for end in sorted(snapshot.figures.tunnels, key=lambda end: (end.node, end.peer))
    ]  # fmt: skip


_STATES = {"open": "●", "waiting": "○", "configuring": "◐", "ending": "◌"}


def session_state(session: Document) -> str:
    """A key session's state in words; why, if it is interrupted."""
    if session["interruption"]:
        return f"✕ interrupted: {session['interruption']}"
    return f"{_STATES.get(session['state'], '·')} {session['state']}" + (" (implicit)" if session["implicit"] else "")


def refusals(snapshot: Snapshot) -> list[Row]:
    """When, who, why, what helps, and whether there is a story (`story_of`); the newest first."""
    return [_trouble(r, why_refused(r)) for r in reversed(list(snapshot.told("refusals"))[-_SHOWN:])]


def _trouble(facts: Facts, why: tuple[str, str]) -> Row:
    cells = (clock(facts["time"]), pair(facts), *why, "story" if "trace" in facts else "")
    return Row(f"{facts.get('trace', '-')} {facts['time']} {cells[1]}", cells)


def story_of(key: str) -> str:
    """What a row of that key, of refusals or failures, has a story of."""
    return key.partition(" ")[0]


def failures(snapshot: Snapshot) -> list[Row]:
    """Requests for keys that failed, as `refusals`."""
    return [_trouble(f, why_failed(f)) for f in reversed(snapshot.figures.failures[-_SHOWN:])]


def keys(snapshot: Snapshot) -> list[Row]:
    """The latest keys: key ID (the first, if several came at once), when, who, hops, ms."""
    rows = []
    for k in reversed(snapshot.figures.keys[-_SHOWN:]):
        more = f" and {len(k['key_ids']) - 1} more" if len(k["key_ids"]) > 1 else ""
        hops = "1 hop" if k["hops"] == 1 else f"{k['hops']} hops"
        made = hops + (", from the pool" if k.get("source") == "pool" else "")
        cells = (k["key_ids"][0][:8] + more, clock(k["time"]), pair(k), made, f"{k['duration_ms']:.1f} ms")
        rows.append(Row(k["key_ids"][0], cells))
    return rows


def qcs(plan: Plan, snapshot: Snapshot) -> list[QcRow]:
    """All QCs with their curves, of those on demand the ones that are lit; each column has one scale, from 0 to the
    highest value in it."""
    names = [(qc.name, link.name, "") for link in plan.topology.links for qc in link.qcs]
    names += [(one.qc.name, "", f"past {', '.join(one.past)}" if one.past else "") for one in lit(plan, snapshot)]
    curves = {qc: tuple(snapshot.curves.get(qc, ())) for qc, *_ in names}
    tops = tuple(max((v for found in curves.values() for v in series(found)[i]), default=0.0) for i in range(4))
    qber = {q["qc"]: q["qber_percent"] for q in snapshot.told("qcs")}
    rows = []
    for qc, link, past in names:
        error_rate = "–" if qber.get(qc) is None else f"{qber[qc]:.2f} %"
        values = series(curves[qc])
        sparks = tuple(_spark(v, top, unit) for v, top, unit in zip(values, tops, UNITS, strict=True))
        state = ", ".join((qc_state(plan, snapshot, qc), *device_states(plan, snapshot, qc)))
        rows.append(QcRow(qc, link, past, state, error_rate, sparks))
    return rows


UNITS = ("B/s", "B", "B/s", "%")
SMOOTHED_SLOTS = 15


def series(samples: Sequence[Sample]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Made and stored bytes, expired bytes, and load: the share of what was made that was used, in percent.

    What expired and the load are over the last slots, because keys are asked for in bursts; where nothing is made any
    more, what is used of the stock counts as all there is.
    """
    load = []
    for i in range(len(samples)):
        some = samples[max(0, i + 1 - SMOOTHED_SLOTS) : i + 1]
        made, used = sum(s.made for s in some), sum(s.used for s in some)
        load.append(100 * used / made if made else 100.0 * bool(used))
    return [s.made for s in samples], [float(s.stored) for s in samples], smoothed([s.expired for s in samples]), load


def smoothed(values: Sequence[float]) -> list[float]:
    """Of each value the mean with those before it, SMOOTHED_SLOTS in all."""
    sums = [0.0, *itertools.accumulate(values)]
    starts = [max(0, end - SMOOTHED_SLOTS) for end in range(1, len(sums))]
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]


def qc_state(plan: Plan, snapshot: Snapshot, name: str) -> str:
    """What the controller says of a QC, unless it is known better."""
    qc = next((q for q in snapshot.told("qcs") if q["qc"] == name), None)
    if name in broken_qcs(plan, snapshot.faults):
        return "✕ broken"
    if qc is None:
        return "not known yet"
    if not qc["enabled"]:
        return "○ switched off"
    if qc["status"] == "PENDING" and any(one.qc.name == name for one in plan.topology.switched):
        return "◐ is being lit"
    return "● generates" if generates(qc) else f"✕ {qc['status'].lower()}"


_DEVICE = {
    "answers": "answers", "waits": "is not asked", "refuses": "gives no keys", "silent": "does not answer",
    "bad_answer": "answers with something else", "suspected": "is switched off",
}  # fmt: skip


def device_states(plan: Plan, snapshot: Snapshot, name: str) -> list[str]:
    """How a device of the user's is that makes a QC's key material, in words: at both ends alike, or at each of them.

    Nothing for a QC that is emulated, and of an end of which nothing is known. One that was switched off, because the
    keys of its two ends were not the same or came again, says so.
    """
    ends = next((ends for qc, *ends in plan.topology.qcs() if qc.name == name and qc.source is not None), ())
    found = {}
    for node in ends:
        told = (snapshot.nodes.get(node, Heard()).answer or {}).get("devices", {}).get(name)
        if told is not None:
            why = f": {told['why']}" if told["state"] == "suspected" else ""
            found[node] = f"{_DEVICE.get(told['state'], told['state'])}{why}"
    if len(found) == len(ends) and len(set(found.values())) == 1:
        return [f"device {next(iter(found.values()))}"]
    return [f"device at {node} {words}" for node, words in found.items()]


def clock(when: float) -> str:
    """Wall-clock time as people read it."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def _spark(values: Sequence[float], top: float, unit: str) -> Spark:
    """The newest value is at the right end; `top` is at the upper edge."""
    shown = values[-SPARK_WIDTH:]
    left = SPARK_WIDTH - len(shown)
    height = SPARK_HEIGHT - 2
    points = " ".join(
        f"{left + i},{SPARK_HEIGHT - 1 - (height * v / top if top else 0):.1f}" for i, v in enumerate(shown)
    )
    return Spark(points, f"{values[-1]:.0f} {unit}" if values else "–")


def headline(snapshot: Snapshot) -> str:
    """The run in one line."""
    figures = snapshot.figures
    sessions_open = sum(s["state"] == "open" for s in snapshot.told("sessions"))
    counts = (
        (sessions_open, "key session", "open"), (figures.single_hop + figures.multi_hop, "key", "delivered"),
        (figures.failed, "request", "failed"), (len(snapshot.told("refusals")), "session", "refused"),
    )  # fmt: skip
    return " · ".join(f"{number} {what if number == 1 else what + 's'} {how}" for number, what, how in counts)


def times(snapshot: Snapshot) -> str:
    """Median and 95th percentile of the delivery times."""
    parts = []
    for name, several in (("one hop", False), ("several hops", True)):
        found = quantiles(durations_ms(snapshot, several_hops=several))
        if found["p50"] is not None:
            parts.append(f"{name}: median {found['p50']:.1f} ms, 95 % within {found['p95']:.1f} ms")
    return "; ".join(parts) or "none yet"


def durations_ms(snapshot: Snapshot, *, several_hops: bool) -> list[float]:
    """Delivery times of the last minutes, over one hop or over several."""
    return snapshot.figures.durations_ms(snapshot.time, several_hops=several_hops)
