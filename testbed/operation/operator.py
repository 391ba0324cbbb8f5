"""Does what an operator asks of a running network: the requests of `testbed.operation.interface`, and nothing else.

All faces call `do`, from whatever thread: the command line, the live view, and the socket for `qkd` and the Python API.
Answers are JSON, with names where the network has IDs. What is not done is a UserError, whose text is one sentence for
people.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from decisions.parameters import PARAMETERS
from decisions.tunnels import Terms, terms
from documents.checks import Malformed
from etsi.gs004 import qos
from mtls.call import Caller, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.errors import UserError
from testbed.evidence import summary
from testbed.fibres.fibres import Fibre
from testbed.machine.namespaces import network_of, threads_in_network
from testbed.network.emulation import Emulation
from testbed.network.expose import FILE
from testbed.network.operator_calls import ControlRoom
from testbed.operation.desk import Desk, NotDone
from testbed.operation.feed import Event, Feed
from testbed.operation.interface import checked
from testbed.planning.fault import Fault
from testbed.planning.plan import AGENT_PORT, CONTROLLER_PORT, KME_PORT, OPERATOR, Plan, SaePlan
from testbed.stories import journals, svg, text
from testbed.stories.model import KEY, SESSION, NoStory

# Longer round trips are not measured right after a change: one would wait for many of them.
_LONGEST_RTT_MS = 1000.0
_KEY_TIMEOUT_S = 30.0
_CALLS_AT_ONCE = 4  # of one SAE
_Rows = list[tuple[str, str]]


class Operator:
    """The operator of `emulation`, who calls from `room`, if not the run's. Thread-safe.

    `end` ends the run; None: whoever has this operator does that in another way.
    """

    def __init__(
        self, emulation: Emulation, end: Callable[[], None] | None = None, room: ControlRoom | None = None
    ) -> None:
        self._emulation = emulation
        self._end = end
        self._plan = emulation.plan
        self._since = time.time()
        self._desk = Desk(emulation.plan, room or emulation.control_room, emulation.fibres)
        self._feed = Feed(emulation.run.path, emulation.plan.nodes, self._desk.name)
        self._saes = _Saes(emulation)
        self._capturing = threading.Lock()
        self._stopping = False
        self._do: Mapping[str, Callable[..., Any]] = {
            "status": self._status, "controller": self._desk.status, "processes": emulation.processes.away,
            "names": self._names, "topology": self._topology, "qcs": self._qcs,
            "sessions": self._sessions,
            "refusals": self._refusals, "saes": self._list_saes,
            "sae": self._sae, "node": self._desk.node, "describe": self._describe,
            "open": self._open, "close": self._close, "ksid": self._ksid, "get_key": self._get_key,
            "get_key_with_ids": self._get_key_with_ids, "parameters": self._desk.parameters, "set": self._set,
            "set_parameters": self._desk.set_parameters,
            "set_rate": self._set_rate, "set_generation": self._set_generation, "fibres": self._fibres,
            "change_fibre": self._change_fibre, "reset_fibre": self._reset_fibre, "measure_fibre": self._measure_fibre,
            "faults": self._faults, "break": self._break, "heal": self._heal, "stories": self._stories,
            "story": self._story, "last_story": self._last_story, "capture": self._capture,
            "end_capture": self._end_capture, "tunnels": self._emulation.tunnels.all, "open_tunnel": self._open_tunnel,
            "close_tunnel": self._emulation.tunnels.close, "summary": self._summary, "stop": self._stop,
        }  # fmt: skip

    def do(self, name: str, /, **arguments: Any) -> Any:
        """The answer to a request that does not stream; UserError."""
        try:
            given = checked(name, arguments)
            return self._do[name](**given)
        except (Malformed, NoStory) as error:
            raise NotDone(str(error)) from None

    def stream(self, name: str, /, **arguments: Any) -> Iterator[Event]:
        """The events of a request that streams; UserError."""
        try:
            given = checked(name, arguments)
        except Malformed as error:
            raise NotDone(str(error)) from None
        if name == "events":
            return self._feed.past(given.get("names"), given.get("since", 0.0))
        return self._feed.follow(given.get("names"), given.get("since"))

    def close(self) -> None:
        """Nobody asks any more."""
        self._feed.close()
        self._saes.close()

    def _status(self) -> dict[str, Any]:
        emulation, controller, problem = self._emulation, None, ""
        try:
            controller = self._desk.status()
        except UserError as error:
            problem = str(error)
        return {
            "run": str(emulation.run.path), "topology": self._plan.topology.name, "since": self._since,
            "nodes": len(self._plan.nodes), "switches": len(self._plan.switches),
            "controller": controller, "problem": problem,
            "dark": self._dark(controller["ports_down"]) if controller else [],
            "exposed": None if emulation.exposed is None else str(emulation.run.path / FILE),
            "broken": [fault.name for fault in emulation.faults.active()],
            "away": emulation.processes.away(), "devices": self._desk.devices(),
        }  # fmt: skip

    def _dark(self, ports: Sequence[str]) -> list[str]:
        """What the controller heard of ports that are down, by fibre."""
        return [
            f"{p.link.name} dark at {' and '.join(dark)}"
            for p in self._plan.links
            if (dark := [port for port in (p.port_a, p.port_b) if port in ports])
        ]

    def _names(self) -> dict[str, list[str]]:
        return {
            "nodes": self._plan.nodes, "fibres": [p.link.name for p in self._plan.links], "qcs": self._desk.qc_names(),
            "saes": [sae.name for sae in self._plan.saes], "parameters": sorted(PARAMETERS),
            "databases": self._plan.database_hosts,
        }  # fmt: skip

    def _topology(self) -> dict[str, Any]:
        topology = self._plan.topology
        places = {node.name: dict(zip("xy", node.position, strict=True)) for node in topology.nodes}
        return {
            "name": topology.name, "description": topology.description,
            "nodes": [{"name": node.name, "label": node.title, **places[node.name]} for node in topology.nodes],
            "fibres": [{"name": link.name, "a": link.a, "b": link.b, "qcs": [qc.name for qc in link.qcs]}
                       for link in topology.links],
        }  # fmt: skip

    def _qcs(self) -> list[dict[str, Any]]:
        """With the rate that was set, or else the planned one."""
        planned = {qc.name: {"low": qc.low_bytes_per_slot, "high": qc.high_bytes_per_slot}
                   for qc, _, _ in self._plan.topology.qcs()}  # fmt: skip
        return [qc | {"rate": qc["rate"] or planned.get(qc["qc"])} for qc in self._desk.qcs()]

    def _sessions(self) -> list[dict[str, Any]]:
        return [self._with_names(session) for session in self._desk.sessions()]

    def _refusals(self) -> list[dict[str, Any]]:
        return [self._with_names(refusal) for refusal in self._desk.refusals()]

    def _with_names(self, document: Mapping[str, Any]) -> dict[str, Any]:
        sides = {side: self._desk.name(document[f"{side}_sae"]) for side in ("master", "slave")}
        return {**document, **sides}

    def _list_saes(self) -> list[dict[str, Any]]:
        return [{"name": s.name, "node": s.node, "id": s.id, "external": s.external} for s in self._plan.saes]

    def _sae(self, name: str) -> dict[str, Any]:
        return {"sessions": self._desk.sessions_of(name)}

    def _describe(self, name: str) -> list[_Rows]:
        found = describe(self._plan, name, self._emulation.credentials, self._emulation.exposed)
        if not found:
            raise NotDone(f"no application or node {name!r}, nor 'operator': 'qkd saes' lists the applications")
        return found

    def _open(
        self, master: str, slave: str, key_size_bits: int | None = None, interval_s: float | None = None,
        duration_s: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        wanted = {"key_size_bits": key_size_bits, "interval_s": interval_s}
        opened = self._desk.open(
            master, slave, qos({k: v for k, v in wanted.items() if v is not None}), duration_s
        )
        return {"ksid": opened.ksid, "path": list(opened.path), "paths": opened.paths}

    def _close(self, ksid: str) -> None:
        self._desk.close(ksid)

    def _ksid(self, master: str, slave: str) -> dict[str, str]:
        return {"ksid": self._desk.ksid(master, slave)}

    def _get_key(self, master: str, slave: str, number: int | None = None, size: int | None = None) -> Any:
        asks, peer = self._desk.sae(master), self._desk.sae(slave)
        wanted = {name: value for name, value in (("number", number), ("size", size)) if value is not None}
        return self._saes.call(asks, f"{peer.id}/enc_keys", wanted)

    def _get_key_with_ids(self, master: str, slave: str, key_ids: Sequence[str]) -> Any:
        asks, peer = self._desk.sae(slave), self._desk.sae(master)
        wanted = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        return self._saes.call(asks, f"{peer.id}/dec_keys", wanted)

    def _set(self, name: str, value: str) -> dict[str, str]:
        return {"said": self._desk.set_parameter(name, value)}

    def _set_rate(self, qc: str, low: int, high: int) -> dict[str, str]:
        return {"said": self._desk.set_rate(qc, low, high)}

    def _set_generation(self, qc: str, enabled: bool) -> dict[str, str]:
        return {"said": self._desk.set_generation(qc, enabled=enabled)}

    def _fibres(self) -> list[dict[str, Any]]:
        lit = self._emulation.fibres.lit()
        return [fibre_document(fibre, lit=fibre.name in lit) for fibre in self._emulation.fibres.all()]

    def _change_fibre(
        self, fibre: str, shape: Mapping[str, Any], towards: str | None = None, measure: bool = True
    ) -> dict[str, Any]:
        return self._changed(self._emulation.fibres.change(fibre, shape, towards=towards), measure)

    def _reset_fibre(self, fibre: str, measure: bool = True) -> dict[str, Any]:
        return self._changed(self._emulation.fibres.reset(fibre), measure)

    def _changed(self, fibre: Fibre, measure: bool) -> dict[str, Any]:
        found = fibre_document(fibre, lit=fibre.name in self._emulation.fibres.lit())
        if not measure or not found["lit"] or fibre.rtt_ms > _LONGEST_RTT_MS:
            return found | {"rtt": None}
        link = self._emulation.fibres.rtt(fibre.name)
        return found | {"rtt": {"configured_ms": link.configured_rtt_ms, "measured_ms": link.measured_rtt_ms}}

    def _measure_fibre(self, fibre: str, towards: str | None = None) -> list[dict[str, Any]]:
        return [
            {"from": a, "to": b, "figures": [
                {"quantity": f.quantity, "unit": f.unit, "configured": f.configured, "measured": f.measured,
                 "low": f.low, "high": f.high} for f in figures
            ]}
            for a, b, figures in self._emulation.fibres.measure(fibre, towards=towards)
        ]  # fmt: skip

    def _faults(self) -> list[dict[str, Any]]:
        return [_fault(fault) for fault in self._emulation.faults.active()]

    def _break(self, kind: str, where: Sequence[str]) -> dict[str, Any]:
        return _fault(self._emulation.faults.inject(kind, *where))

    def _heal(self, kind: str | None = None, where: Sequence[str] = ()) -> list[dict[str, Any]]:
        return [_fault(fault) for fault in self._emulation.faults.heal(kind, *where)]

    def _stories(self) -> list[dict[str, Any]]:
        return [asdict(heading) for heading in journals.latest(self._emulation.run.path)]

    def _story(self, ident: str) -> dict[str, Any]:
        story = journals.read(self._emulation.run.path, ident)
        path = self._emulation.run.make("stories") / f"{story.ident}.svg"
        drawn = svg.draw(story)
        path.write_text(drawn)
        return {
            "ident": story.ident, "title": story.title, "text": text.draw(story), "picture": str(path), "svg": drawn,
            "learned": [asdict(one) for one in story.learned],
        }  # fmt: skip

    def _last_story(self, master: str, slave: str, kind: str = KEY) -> dict[str, str]:
        if kind not in (KEY, SESSION):
            raise Malformed("kind", f"{KEY} or {SESSION}")
        pair = (self._desk.sae(master).id, self._desk.sae(slave).id)
        found = journals.last(self._emulation.run.path, *pair, kind)
        if found is None:
            raise NoStory(f"{master} and {slave} have no {kind} to tell of: 'qkd story' lists what there is")
        return {"ident": found.ident}

    def _capture(self, a: str, b: str) -> dict[str, str]:
        with self._capturing:
            return {"file": str(self._emulation.captures.start(a, b))}

    def _end_capture(self, a: str, b: str) -> dict[str, Any]:
        with self._capturing:
            file, lost = self._emulation.captures.stop(a, b)
            return {"file": str(file), "lost_packets": lost}

    def _open_tunnel(
        self, a: str, b: str, kind: str | None = None, every_s: float | None = None, policy: str | None = None
    ) -> dict[str, Any]:
        given = {"kind": kind, "every_s": every_s, "policy": policy}
        wanted = terms(Terms().to_json() | {name: value for name, value in given.items() if value is not None})
        rates = {
            qc["qc"]: (qc["rate"]["low"] + qc["rate"]["high"]) / 2 if qc["rate"] else qc["generated_per_slot"]
            for qc in self._qcs()
            if qc["enabled"]
        }
        return self._emulation.tunnels.open(a, b, wanted, parameters=self._desk.parameters(), rates=rates)

    def _summary(self) -> dict[str, Any]:
        return summary.summarise(summary.read_run(self._emulation.run.path, *summary.SUMMARISED))

    def _stop(self) -> None:
        if self._end is None:
            raise NotDone("the run is not ended from here")
        with self._capturing:
            if not self._stopping:
                self._stopping = True
                self._end()


class _Saes:
    """Calls KMEs as SAEs of the testbed's do, each from its own host. Thread-safe."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._lock = threading.Lock()
        self._pools: dict[str, tuple[int, ThreadPoolExecutor]] = {}  # by host, with its network
        self._callers: dict[str, Caller] = {}  # by SAE

    def call(self, sae: SaePlan, what: str, body: Mapping[str, Any]) -> Any:
        """What the KME of that SAE answers; NotDone."""
        url = f"{self._emulation.plan.url(sae.node, KME_PORT)}/api/v1/keys/{what}"
        pool, caller = self._of(sae)
        try:
            reply = pool.submit(
                caller.request, "POST", url, to=Identity(Role.NODE, sae.node), body=dict(body), timeout_s=_KEY_TIMEOUT_S
            ).result()
        except Unreachable as error:
            raise NotDone(f"no answer: {error}") from None
        if not reply.ok:
            raise NotDone(f"no keys ({reply.status}): {reply.message}")
        return reply.body

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            for network, pool in self._pools.values():
                pool.shutdown(wait=False, cancel_futures=True)
                os.close(network)
            for caller in self._callers.values():
                caller.close()

    def _of(self, sae: SaePlan) -> tuple[ThreadPoolExecutor, Caller]:
        with self._lock:
            if sae.node not in self._pools:
                network = network_of(self._emulation.network.pid(sae.node))
                self._pools[sae.node] = network, threads_in_network(network, _CALLS_AT_ONCE, "sae")
            if sae.id not in self._callers:
                credentials = self._emulation.credentials(sae.identity)
                self._callers[sae.id] = Caller(credentials, connections=_CALLS_AT_ONCE)
            return self._pools[sae.node][1], self._callers[sae.id]


def fibre_document(fibre: Fibre, *, lit: bool) -> dict[str, Any]:
    """A fibre for programs. PURE."""
    directions = [{"from": a, "to": b, **shape.to_json()} for a, b, shape in fibre.directions]
    return {"name": fibre.name, "a": fibre.a, "b": fibre.b, "lit": lit, "directions": directions}


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "name": fault.name, "kind": fault.kind, "where": list(fault.where), "since": fault.since,
        "fraction": fault.fraction,
    }  # fmt: skip


def describe(
    plan: Plan, name: str, credentials: Callable[[Identity], Credentials], exposed: Mapping[str, Any] | None
) -> list[_Rows]:
    """What to know of whoever is called `name`: an SAE (by its ID, too), a node, or the operator.

    `exposed` is what expose.json says, if the run is exposed. If an SAE and a node share the name, both are described;
    empty if nobody is called so.
    """
    blocks: list[_Rows] = []
    sae = plan.sae(name)
    if sae is not None:
        where = " (runs outside the testbed)" if sae.external else ""
        head = [("SAE", sae.name + where), ("SAE ID", sae.id), ("node", sae.node)]
        blocks.append([*head, *_files(credentials(sae.identity)), *_kme(plan, sae.node, exposed)])
    if name in plan.nodes:
        agent = _urls("agent", plan.url(name, AGENT_PORT), exposed["agents"][name] if exposed else None)
        files = _files(credentials(Identity(Role.NODE, name)))
        blocks.append([("node", name), *files, *_kme(plan, name, exposed), *agent])
    if name == OPERATOR.name:
        controller = _urls("controller", plan.url("ctl", CONTROLLER_PORT), exposed["controller"] if exposed else None)
        blocks.append([*_files(credentials(OPERATOR)), *controller])
    return blocks


def _files(credentials: Credentials) -> _Rows:
    found = (("certificate", credentials.certificate), ("key", credentials.key), ("CA", credentials.ca))
    return [(what, str(path)) for what, path in found]


def _kme(plan: Plan, node: str, exposed: Mapping[str, Any] | None) -> _Rows:
    return _urls("KME", plan.url(node, KME_PORT), exposed["kmes"][node] if exposed else None)


def _urls(what: str, inside: str, outside: str | None) -> _Rows:
    rows = [(what, f"{inside} (in the emulated network)")]
    return [*rows, (what, f"{outside} (on this machine)")] if outside else rows
