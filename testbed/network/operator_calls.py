"""The operator's desk: calls controller, agents and applications over mutual TLS, from the controller's host.

Calls are made by threads that live in that host's network namespace, so they cross the emulated network as the
operator's traffic would; the rest of this process has no leg in it.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

from mtls.call import Caller, Reply, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.machine.namespaces import network_of, threads_in_network
from testbed.planning.plan import AGENT_PORT, CONTROLLER_PORT, Plan, SaePlan

_THREADS = 16
_LEADER, _LEADER_S, _ROUND_TRIPS = "/qkd/v1/leader", 2.0, 4
# Opening a session takes several round trips over links that may have a second of delay.
OPENS_WITHIN_S = 30.0


class ControlRoom:
    """Calls as the operator from inside the network namespace of process `pid`, at most `threads` at a time.

    What does not answer within `timeout_s` (an application: `saes_within_s`, if that is given) does not answer.
    """

    def __init__(
        self, plan: Plan, credentials: Credentials, pid: int, *, threads: int = _THREADS,
        timeout_s: float = OPENS_WITHIN_S, saes_within_s: float | None = None,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._timeout_s = timeout_s
        self._saes_within_s = timeout_s if saes_within_s is None else saes_within_s
        self._leader = plan.controllers[0]  # which was so when it was asked last
        self._network = network_of(pid)
        self._pool = threads_in_network(self._network, threads, "operator")
        self._caller = Caller(credentials, connections=threads)

    def close(self) -> None:
        """Drop all connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._caller.close()
        os.close(self._network)

    def controller(self, method: str, path: str, body: Any = None) -> Reply:
        """A call of the controller, of several the one that leads; Unreachable if it does not answer."""
        leader = self.leader()
        url = self._plan.url(leader.name, CONTROLLER_PORT) + path
        return self._submit(method, url, leader, body).result()

    def leader(self) -> Identity:
        """The controller that leads, the first one if there is no other. Unreachable: none says that it does."""
        first, *others = sorted(self._plan.controllers, key=lambda each: each != self._leader)
        if not others:
            return first
        within_s = _LEADER_S + _ROUND_TRIPS * self._plan.round_trip_s
        unsure, why = None, Unreachable(self._plan.url(first.name, CONTROLLER_PORT), "no controller leads now")
        for each in (first, *others):
            url = self._plan.url(each.name, CONTROLLER_PORT) + _LEADER
            try:
                said = self._submit("GET", url, each, None, within_s).result()
            except Unreachable as error:
                why = error
                continue
            if said.ok and said.body["standing"] == "leader":
                self._leader = each
                return each
            if said.ok and said.body["standing"] == "unsure":
                unsure = each
        if unsure is None:
            raise why
        return unsure  # which may lead still, and says itself what it does not do

    def agent(self, node: str, method: str, path: str, body: Any = None) -> Reply:
        """A call of a node's agent."""
        return self.ask(node, method, path, body).result()

    def ask(self, node: str, method: str, path: str, body: Any = None) -> Future[Reply]:
        """A call of a node's agent, under way."""
        return self._submit(method, self._plan.url(node, AGENT_PORT) + path, Identity(Role.NODE, node), body)

    def sae(self, sae: SaePlan, method: str, path: str, body: Any = None) -> Future[Reply]:
        """A call of an application, under way; of one that the testbed runs, for others take no calls."""
        if sae.port is None:
            raise ValueError(f"{sae.name} runs outside the testbed")
        url = self._plan.url(sae.node, sae.port) + path
        return self._submit(method, url, sae.identity, body, self._saes_within_s)

    def _submit(
        self, method: str, url: str, to: Identity, body: Any, timeout_s: float | None = None
    ) -> Future[Reply]:
        within_s = timeout_s or self._timeout_s
        return self._pool.submit(self._caller.request, method, url, to=to, body=body, timeout_s=within_s)
