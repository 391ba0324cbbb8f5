"""A recorded run again, in virtual time: the same arrivals and requests on the same bytes; and where the two differ.

What a run recorded is read from its journals and records: which blocks QCs made when, which sessions were asked for
when, when each of them asked for a key, and what came of that. All of it is offered again; what comes of it is decided
anew.
"""

from __future__ import annotations

import collections
import itertools
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from decisions.admission import Refused
from decisions.parameters import PARAMETERS
from decisions.ranges import Shortage, promised_slots
from etsi.gs004 import QoS
from scenario.scenario import Scenario
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Sae, Topology
from scenario.workload import Arrival
from simulation.engine import PATH_DOWN, SHORT, Simulation
from simulation.sessions import Session, Witness
from simulation.supply import Recorded
from testbed.audit import RECORDS
from testbed.errors import UserError
from testbed.evidence.summary import Event, read_run

# From the making of a block until the shared database gives its bytes, as both nodes have stored and reported it; where
# the run does not tell.
_KNOWN_AFTER_S = 0.025
# So near a block a request may find it in one engine and not in the other.
_NEAR_S = 0.1
_SHAPE = Shape(delay_ms=0.0)
_WANTED = (
    "statement", "session_requested", "session_refused", "session_failed", "session_closed", "ksid_assigned",
    "key_delivered", "key_failed", "parameters", "block", "reported", "started",
    "device_block",
)  # fmt: skip
SERVED, OPEN = "served", "open"
_FIRST = {"session_requested": 0, "ksid_assigned": 1}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a key: when it was decided on, and what came of it: SERVED, or a cause and a QC."""

    at_s: float
    outcome: str


@dataclass(slots=True)
class _Told:
    """A session as the run tells of it."""

    master: str
    slave: str
    at_s: float
    qos: QoS
    duration_s: float | None
    outcome: str = ""  # OPEN, or the cause for which it did not come to be
    closed_s: float | None = None
    asked: list[Asked] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two engines differ: session and request by their numbers (None: the session itself), and why."""

    session: int
    request: int | None
    recorded: str
    simulated: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """`compared` sessions and requests; how many of them got nothing in the run; and those that differ."""

    compared: int
    failing: int
    differences: Sequence[Difference]

    @property
    def agreeing(self) -> float:
        """Share."""
        return 1 - len(self.differences) / self.compared if self.compared else 1.0


def replay(run: Path, **changes: Any) -> Comparison:
    """What virtual time makes of the run in that folder, beside what came of it; UserError if it cannot be read.

    `changes`: parameters that are to be other ones than they were.
    """
    found = recording(run)
    simulation = Simulation(
        Scenario(found.topology, found.arrivals, {**found.parameters, **changes}), found.supplies, found.asks
    )
    listener = simulation.witness = _Listener()
    simulation.run()
    return _compare(found.told, found.supplies, simulation, listener)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run was offered: its network, key sessions as they arrived, when each asked for keys (by its number), what
    QCs made, and its parameters.
    """

    topology: Topology
    arrivals: Sequence[Arrival[Sae]]
    asks: Mapping[int, Sequence[float]]
    supplies: Mapping[str, Recorded]
    parameters: Mapping[str, Any]
    told: Sequence[_Told]

    def on(self, topology: Topology) -> Recording:
        """The same sessions on another network, whose QCs make what they make; UserError if it lacks an SAE."""
        saes = {sae.name: sae for sae in topology.saes}
        arrivals = []
        for arrival in self.arrivals:
            for side in (arrival.master, arrival.slave):
                if side.name not in saes:
                    raise UserError(f"{topology.name}: expected an SAE {side.name!r}, which the recorded run had")
            arrivals.append(replace(arrival, master=saes[arrival.master.name], slave=saes[arrival.slave.name]))
        return replace(self, topology=topology, arrivals=arrivals, supplies={})


def recording(run: Path) -> Recording:
    """Of the finished run in that folder; UserError."""
    events, topology = read_run(run, *_WANTED), _topology(run)
    supplies = _supplies(events, topology)
    began_s = min((float(e["time"]) for e in events), default=0.0)
    told = _sessions(events)
    names = {sae: name for e in events if e["event"] == "started" for sae, name in e.get("saes", {}).items()}
    saes = {sae.name: replace(sae, name=names.get(sae.name, sae.name)) for sae in topology.saes}
    return Recording(
        replace(topology, saes=tuple(saes.values())),
        [Arrival(s.at_s - began_s, saes[s.master], saes[s.slave], _length_s(s), s.qos) for s in told],
        {number: [ask.at_s - began_s for ask in s.asked] for number, s in enumerate(told)},
        {qc: supply.later(-began_s) for qc, supply in supplies.items()}, _parameters(events), told,
    )  # fmt: skip


def _length_s(told: _Told) -> float | None:
    """How long it was to last, or lasted."""
    if told.duration_s is not None or told.closed_s is None:
        return told.duration_s
    return told.closed_s - told.at_s


def _topology(run: Path) -> Topology:
    try:
        meant = json.loads((run / RECORDS).read_text())["meant"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run / RECORDS}: expected the records of a run that came to its end: {error}") from None
    fibres: dict[tuple[str, str, str], list[Qc]] = collections.defaultdict(list)
    for name, (a, b, _) in meant["qcs"].items():
        fibres[name.rpartition("/")[0], a, b].append(Qc(name, 0, 0))
    return Topology(
        "recorded", "", tuple(Node(node, node, (0.0, 0.0)) for node in meant["nodes"]),
        tuple(Link(name, a, b, None, _SHAPE, _SHAPE, tuple(qcs)) for (name, a, b), qcs in fibres.items()),
        tuple(Sae(sae, node, sae, not ours) for sae, (node, ours) in meant["saes"].items()),
        meant["nodes"][0], meant["nodes"][0],
    )  # fmt: skip


def _supplies(events: Sequence[Event], topology: Topology) -> dict[str, Recorded]:
    """What each QC made, by the time from which the shared database gave it."""
    blocks: dict[str, list[Event]] = collections.defaultdict(list)
    of_devices: dict[tuple[str, str], list[Event]] = collections.defaultdict(list)  # by QC and node
    told: dict[tuple[str, str], list[tuple[int, float]]] = collections.defaultdict(list)  # by node and QC
    for event in events:
        if event["event"] == "block":
            blocks[event["qc"]].append(event)
        elif event["event"] == "device_block":
            block = {**event, "offset": event["start"], "n_bytes": event["end"] - event["start"]}
            of_devices[event["qc"], event["who"].removeprefix("node:")].append(block)
        elif event["event"] == "reported":
            for qc, known in event["known"].items():
                told[event["who"].removeprefix("node:"), qc].append((int(known), float(event["at"])))
    found = {}
    for link in topology.links:
        for qc in link.qcs:
            made = blocks[qc.name] or of_devices[qc.name, max(link.a, link.b)]  # which is the last to have them
            once = len({event["epoch"] for event in made}) == 1  # else offsets begin anew
            known = [
                float(event["known"]) if "known" in event
                else max(_since(told[end, qc.name], event) for end in (link.a, link.b)) if once and event["n_bytes"]
                else float(event["time"]) + _KNOWN_AFTER_S
                for event in made
            ]  # fmt: skip
            found[qc.name] = Recorded(list(itertools.accumulate(known, max)), [int(e["n_bytes"]) for e in made])
    return found


def _since(told: Sequence[tuple[int, float]], block: Event) -> float:
    """When the shared database knew that an end holds a block, by what it answered to that end's reports."""
    place = bisect_left(told, int(block["offset"]) + int(block["n_bytes"]), key=lambda report: report[0])
    return told[place][1] if place < len(told) else float(block["time"]) + _KNOWN_AFTER_S


def _parameters(events: Sequence[Event]) -> dict[str, Any]:
    """Those of the run; UserError if they changed while it ran."""
    told = (e for e in events if e["event"] == "parameters" and e["who"] == "controller")
    found = [{name: e[name] for name in PARAMETERS if name in e} for e in told]
    if not found:
        raise UserError("expected the journal of a controller, which tells of the run's parameters")
    if any(now != found[0] for now in found):
        raise UserError("the run's parameters changed while it ran: expected a run with the same from first to last")
    return found[0]


def _sessions(events: Sequence[Event]) -> list[_Told]:
    """In the order in which the controller decided on them."""
    waiting: dict[tuple[str, str], _Told] = {}
    by_ksid: dict[str, _Told] = {}
    found = []
    given: dict[str, float] = {}  # by trace, when the shared database gave bytes, or had none
    for event in events:
        if event["event"] == "statement" and event["statement"] == "allocate" and "trace" in event:
            given[event["trace"]] = float(event["at"]) + float(event["duration_ms"]) / 2000  # the last try decides
    # In virtual time all that belongs to a session's opening happens at one time.
    for event in sorted(events, key=lambda e: (float(e["time"]), _FIRST.get(e["event"], len(_FIRST)))):
        name, at_s = event["event"], float(event["time"])
        pair = str(event.get("master_sae")), str(event.get("slave_sae"))
        if name == "session_requested":
            qos = QoS(event.get("key_size_bits", 128), event.get("interval_s", 5.0))
            waiting[pair] = _Told(*pair, at_s, qos, event.get("duration_s"))
        elif name == "ksid_assigned" and pair in waiting:
            told = waiting.pop(pair)
            told.at_s, told.outcome = at_s, OPEN
            by_ksid[event["ksid"]] = told
            found.append(told)
        elif name in ("session_refused", "session_failed") and pair in waiting:
            told = waiting.pop(pair)
            told.at_s, told.outcome = at_s, str(event["cause"])
            found.append(told)
        elif name == "session_closed" and event["ksid"] in by_ksid:
            by_ksid[event["ksid"]].closed_s = at_s
        elif event.get("method") == "enc_keys" and event.get("ksid") in by_ksid:
            began_s = given.get(event.get("trace", ""), at_s - float(event["duration_ms"]) / 1000)
            by_ksid[event["ksid"]].asked.append(Asked(began_s, _outcome(event)))
    for told in found:
        told.asked.sort(key=lambda ask: ask.at_s)
    return sorted(found, key=lambda told: told.at_s)


def _outcome(event: Event) -> str:
    if event["event"] == "key_delivered":
        return SERVED
    return f"{event['cause']} {event['qc']}" if "qc" in event else str(event["cause"])


class _Listener(Witness):
    """What comes of each session and request, by their numbers."""

    def __init__(self) -> None:
        self.sessions: dict[int, str] = {}
        self.requests: dict[int, list[str]] = collections.defaultdict(list)

    def opened(self, session: Session, _: float) -> None:
        self.sessions[session.number] = OPEN

    def refused(self, session: Session, _: float, why: Refused | None, paths: int) -> None:
        self.sessions[session.number] = "refused" if why is not None else "too_few_paths" if paths else "no_path"

    def served(self, session: Session, *_: object) -> None:
        self.requests[session.number].append(SERVED)

    def failed(self, session: Session, _: float, cause: str, short: Shortage | None) -> None:
        self.requests[session.number].append(cause if short is None else f"{cause} {short.qc}")


def _compare(
    told: Sequence[_Told], supplies: Mapping[str, Recorded], simulation: Simulation, heard: _Listener
) -> Comparison:
    differences: list[Difference] = []
    upset: dict[str, float] = {}  # QCs on which the two have differed, and when last
    compared = failing = 0
    lasting_s: int = simulation.scenario.parameter("ttl_slots")
    asks = sorted(
        (ask.at_s, number, request) for number, s in enumerate(told) for request, ask in enumerate(s.asked)
    )
    began_s = told[0].at_s - simulation.result.sessions[0].arrival.at_s if told else 0.0
    for number, session in enumerate(told):
        compared += 1
        failing += session.outcome != OPEN
        if (simulated := heard.sessions.get(number, "")) != session.outcome:
            reason = "decided on what had been asked for until then" if session.outcome in (OPEN, "refused") else (
                f"no decision: {session.outcome}")  # fmt: skip
            differences.append(Difference(number, None, session.outcome, simulated, reason))
    for at_s, number, request in asks:
        found = heard.requests.get(number, [])
        if told[number].outcome != OPEN or heard.sessions.get(number) != OPEN or request >= len(found):
            continue  # of a session that differs as a whole
        compared += 1
        failing += told[number].asked[request].outcome != SERVED
        recorded, simulated, qcs = told[number].asked[request].outcome, found[request], simulation.qcs_of(number)
        if recorded == simulated:
            continue
        reason = _reason(recorded, at_s - began_s, {q: supplies[q] for q in qcs if q in supplies}, upset, lasting_s)
        differences.append(Difference(number, request, recorded, simulated, reason))
        upset.update(dict.fromkeys(qcs, at_s - began_s))
    return Comparison(compared, failing, differences)


def _reason(
    recorded: str, at_s: float, supplies: Mapping[str, Recorded], upset: Mapping[str, float], lasting_s: int
) -> str:
    """Why the two engines may differ on a request over QCs that made `supplies`."""
    if recorded != SERVED and not recorded.startswith((SHORT, PATH_DOWN)):
        return f"nothing that key material decides: {recorded}"
    moments = (at_s, at_s - promised_slots(lasting_s))
    near = [qc for qc, made in supplies.items() if any(made.nearest_s(moment) <= _NEAR_S for moment in moments)]
    if near:
        return f"a block of {near[0]} came, or grew too old, within {_NEAR_S:g} s"
    earlier = [qc for qc in supplies if at_s - upset.get(qc, -lasting_s) < lasting_s]
    if earlier:
        return f"follows from an earlier difference on {earlier[0]}"
    return "unknown"
