"""What an operator may look at and do while the network runs: one way, whoever asks, the command line or the page.

Whatever is not done ends in a `NotDone`, whose text is one sentence for people.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from decisions.parameters import PARAMETERS, TTL, checked
from documents.checks import Malformed
from documents.paths import paths_of
from etsi.gs004 import QoS
from mtls.call import Reply, Unreachable
from testbed.errors import UserError
from testbed.fibres.fibres import Fibres
from testbed.network.faults import device_qcs
from testbed.network.operator_calls import ControlRoom
from testbed.planning.plan import Plan, SaePlan

_QOS = QoS()
_NODES_S = 2.0  # for all nodes together to say how their devices are


class NotDone(UserError):
    """What was asked for was not done; the text says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A key session that is open now, and the nodes on its path; each of `paths`, if there are several."""

    ksid: str
    path: tuple[str, ...]
    paths: list[list[str]]


class Desk:
    """The operator of the network of `plan`, who calls from `room` and knows its fibres."""

    def __init__(self, plan: Plan, room: ControlRoom, fibres: Fibres) -> None:
        self._plan = plan
        self._room = room
        self._fibres = fibres

    def status(self) -> dict[str, Any]:
        """What the controller knows: nodes, switches, parameters."""
        return self._read("/qkd/v1/status")

    def qcs(self) -> list[dict[str, Any]]:
        """The QCs as the controller sees them."""
        return list(self._read("/qkd/v1/qcs")["qcs"])

    def sessions(self) -> list[dict[str, Any]]:
        """The key sessions that there are."""
        return list(self._read("/qkd/v1/key_sessions")["key_sessions"])

    def refusals(self) -> list[dict[str, Any]]:
        """The last key sessions that were refused, the oldest first."""
        return list(self._read("/qkd/v1/refusals")["refusals"])

    def parameters(self) -> dict[str, Any]:
        """What can be set, and how it is set."""
        return self._read("/qkd/v1/parameters")

    def node(self, name: str) -> dict[str, Any]:
        """What a node tells of itself: its QCs with their stocks, its sessions, its parameters."""
        reply = self._answer(lambda: self._room.agent(name, "GET", "/qkd/v1/status"))
        if not reply.ok:
            raise NotDone(f"node {name} has no answer: {reply.message}")
        return dict(reply.body)

    def devices(self) -> dict[str, list[str]]:
        """By QC whose key material comes from a device of the user's: what is wrong at its ends, in words."""
        found: dict[str, list[str]] = {qc: [] for qc in sorted(device_qcs(self._plan))}
        qcs = [(link, qc.name) for link in self._plan.topology.links for qc in link.qcs if qc.name in found]
        nodes = sorted({node for link, _ in qcs for node in (link.a, link.b)})
        until = time.monotonic() + _NODES_S
        for node, asked in [(node, self._room.ask(node, "GET", "/qkd/v1/status")) for node in nodes]:
            with contextlib.suppress(TimeoutError, Unreachable):  # a node that is away is told of elsewhere
                for qc, device in asked.result(max(0.0, until - time.monotonic())).body["devices"].items():
                    found[qc] += [f"{node}: {device['why']}"] if device["why"] else []
        return found

    def name(self, sae_id: str) -> str:
        """What people call an application, or its ID if it has no name here."""
        return self._plan.name_of(sae_id)

    def open(self, master: str, slave: str, qos: QoS = _QOS, duration_s: float | None = None) -> Opened:
        """Have application `master` open a key session with `slave`; both by name or ID.

        `duration_s`: after which it ends; None: when it is closed.
        """
        asks, answers = self.sae(master), self.sae(slave)
        outside = next((sae.name for sae in (asks, answers) if sae.external), None)
        if outside is not None:
            why = f"its own client asks its KME for keys, see 'qkd cert {outside}'"
            raise NotDone(f"{outside} runs outside the testbed: {why}")
        wanted = {"peer": answers.id, "qos": qos.to_json(), "duration_s": duration_s}
        reply = self._answer(lambda: self._room.sae(asks, "POST", "/sae/v1/sessions", wanted).result())
        if not reply.ok:
            raise NotDone(f"not opened: {reply.message}")
        return Opened(reply.body["ksid"], tuple(reply.body["path"]), paths_of(reply.body))

    def sessions_of(self, name: str) -> list[dict[str, Any]]:
        """The key sessions of an application, by name or ID, as it sees them itself."""
        sae = self.sae(name)
        if sae.external:
            raise NotDone(f"{sae.name} runs outside the testbed, and tells nothing of itself")
        reply = self._answer(lambda: self._room.sae(sae, "GET", "/sae/v1/sessions").result())
        if not reply.ok:
            raise NotDone(f"{sae.name}: {reply.message}")
        return [{**found, "peer": self.name(found["peer"]), "peer_sae": found["peer"]}
                for found in reply.body["sessions"]]  # fmt: skip

    def ksid(self, master: str, slave: str) -> str:
        """The ID of the key session that application `master` has with `slave`; both by name or ID."""
        pair = (self.sae(master).id, self.sae(slave).id)
        found = next((s["ksid"] for s in self.sessions() if (s["master_sae"], s["slave_sae"]) == pair), None)
        if found is None:
            raise NotDone(f"{master} has no key session with {slave}: 'qkd sessions' lists them")
        return str(found)

    def close(self, ksid: str) -> None:
        """End a key session."""
        session = next((s for s in self.sessions() if s["ksid"] == ksid.lower()), None)
        if session is None:
            raise NotDone(f"no key session {ksid!r}: 'qkd sessions' lists them")
        master = self._plan.sae(session["master_sae"])
        if master is None or master.external or session["implicit"]:
            reply = self._call("DELETE", f"/qkd/v1/key_sessions/{ksid.lower()}")
        else:
            # By its master, which then asks for no more keys; behind its back it would take the end for an error.
            way = f"/sae/v1/sessions/{ksid.lower()}"
            reply = self._answer(lambda: self._room.sae(master, "DELETE", way).result())
            if reply.status == 404:  # it was started anew, and has forgotten its sessions
                reply = self._call("DELETE", f"/qkd/v1/key_sessions/{ksid.lower()}")
        if not reply.ok:
            raise NotDone(f"not closed: {reply.message}")

    def set_parameter(self, name: str, text: str) -> str:
        """Set a parameter of the network to what `text` says; what it is now, and where not yet."""
        try:
            wanted = checked({name: text if name not in PARAMETERS else PARAMETERS[name].parse(text)})
        except Malformed as error:
            raise NotDone(f"not set: {error}") from None
        reply = self._set_parameters(wanted)
        return f"{name} is {reply.body[name]} now{_not_yet(reply)}"

    def set_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set parameters of the network to these values; what all are now, and where not yet."""
        try:
            reply = self._set_parameters(checked(values))
        except Malformed as error:
            raise NotDone(f"not set: {error}") from None
        not_yet = reply.body.get("not_yet", [])
        return {"parameters": {name: reply.body[name] for name in PARAMETERS}, "not_yet": not_yet}

    def _set_parameters(self, wanted: Mapping[str, Any]) -> Reply:
        if TTL.name in wanted:
            self._fibres.check_ttl(wanted[TTL.name])
        reply = self._call("PATCH", "/qkd/v1/parameters", dict(wanted))
        if not reply.ok:
            raise NotDone(f"not set: {reply.message}")
        if TTL.name in wanted:
            self._fibres.ttl_slots = reply.body[TTL.name]
        return reply

    def qc_names(self) -> list[str]:
        """All QCs, in the topology's order."""
        return [qc.name for qc, _, _ in self._plan.topology.qcs()]

    def set_rate(self, qc: str, low: int, high: int) -> str:
        """Have a QC make low to high bytes a slot; in words, with the ends that have not taken it over yet."""
        if qc in device_qcs(self._plan):
            raise NotDone(f"{qc}: its key material comes from a device of yours, whose rate nothing here can set")
        not_yet = self._put(f"/qkd/v1/qcs/{qc}/rate", {"low": low, "high": high}, qc)
        return f"{qc} makes {low}-{high} bytes a slot from now on{not_yet}"

    def set_generation(self, qc: str, *, enabled: bool) -> str:
        """Have a QC generate, or not; in words, with the ends that have not taken it over yet."""
        not_yet = self._put(f"/qkd/v1/qcs/{qc}/generation", {"enabled": enabled}, qc)
        return f"{qc} {'generates' if enabled else 'does not generate any more'}{not_yet}"

    def _put(self, path: str, body: dict[str, Any], qc: str) -> str:
        reply = self._call("PUT", path, body)
        if not reply.ok:
            raise NotDone(f"{qc}: {reply.message}")
        return _not_yet(reply)

    def _read(self, path: str) -> dict[str, Any]:
        reply = self._call("GET", path)
        if not reply.ok:
            raise NotDone(f"the controller has no answer: {reply.message}")
        return dict(reply.body)

    def _call(self, method: str, path: str, body: Any = None) -> Reply:
        return self._answer(lambda: self._room.controller(method, path, body))

    @staticmethod
    def _answer(call: Callable[[], Reply]) -> Reply:
        try:
            return call()
        except Unreachable as error:
            raise NotDone(f"no answer: {error}") from None

    def sae(self, name: str) -> SaePlan:
        """The application of that name or ID."""
        sae = self._plan.sae(name)
        if sae is None:
            raise NotDone(f"no application {name!r}: 'qkd saes' lists them")
        return sae


def _not_yet(reply: Reply) -> str:
    """Where the controller could not have it taken over yet, to be put behind what is done."""
    nodes = reply.body.get("not_yet", []) if isinstance(reply.body, dict) else []
    return f"; not yet at {', '.join(nodes)}, told again until it is" if nodes else ""
