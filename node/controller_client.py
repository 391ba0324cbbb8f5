"""The node's word to the SDN controller: sessions on behalf of its SAEs, registration and reports for the agent."""

from __future__ import annotations

from typing import Any

from etsi.gs004 import QoS
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import Problem
from node.failures import SessionRefused

_TIMEOUT_S = 5.0
# Opening a session informs all agents of the path and waits for them; a refusal comes sooner.
_OPEN_TIMEOUT_S = 15.0


class ControllerClient:
    """Calls of the controller `name` at `url` as `node`."""

    def __init__(self, node: str, caller: Caller, *, url: str, name: str) -> None:
        self._node = node
        self._caller = caller
        self._url = url
        self._controller = Identity(Role.CONTROLLER, name)

    def register_side(self, master: str, slave: str, side: str, wanted: QoS) -> Reply:
        """One side of a session: 202 if the other side is awaited, 200 and the KSID if it was there; or Problem."""
        body = {"node": self._node, "master_sae": master, "slave_sae": slave, "side": side, "qos": wanted.to_json()}
        return self._accepted(self.call("POST", "/qkd/v1/applications", body, timeout_s=_OPEN_TIMEOUT_S))

    def withdraw(self, master: str, slave: str) -> None:
        """Take back the slave's registration of a session that never came to be."""
        self.call("DELETE", f"/qkd/v1/applications?master_sae={master}&slave_sae={slave}")

    def open_implicit(self, master: str, slave: str, slave_node: str, wanted: QoS) -> None:
        """Have a session opened for a master that only asks for keys; SessionRefused.

        When this returns, this node's agent has been told of the session.
        """
        body = {
            "node": self._node, "master_sae": master, "slave_sae": slave, "slave_node": slave_node,
            "qos": wanted.to_json(),
        }  # fmt: skip
        try:
            self._accepted(self.call("POST", "/qkd/v1/implicit_sessions", body, timeout_s=_OPEN_TIMEOUT_S))
        except Problem as problem:
            facts = {"cause": "refused", **problem.details}
            # GS QKD 014 knows 400 and 503; a conflict with another session may be over at the next try.
            status = 400 if problem.status == 400 else 503
            raise SessionRefused(f"no key session: {problem.message}", status=status, **facts) from None

    def close(self, ksid: str) -> bool:
        """End a session; False if the controller knows of none (any more). Problem if it cannot be told."""
        reply = self.call("DELETE", f"/qkd/v1/key_sessions/{ksid}")
        if reply.status == 404:
            return False
        self._accepted(reply)
        return True

    def register_node(self, agent_url: str, links: list[dict[str, str]]) -> Reply:
        """Make this node known, with its QCs; or Problem."""
        body = {"agent_url": agent_url, "links": links}
        return self._accepted(self.call("PUT", f"/qkd/v1/nodes/{self._node}", body))

    def report(self, slot: int, qcs: list[dict[str, Any]]) -> Reply:
        """How this node's QCs fared; 404 if the controller does not know this node (any more)."""
        return self.call("POST", f"/qkd/v1/nodes/{self._node}/qc_status", {"slot": slot, "qcs": qcs})

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = _TIMEOUT_S) -> Reply:
        """Any request; Problem 503 if the controller does not answer."""
        try:
            return self._caller.request(method, self._url + path, to=self._controller, body=body, timeout_s=timeout_s)
        except Unreachable as error:
            text = f"the controller cannot be reached: {error.reason}"
            raise Problem(503, text, cause="controller_unreachable") from None

    @staticmethod
    def _accepted(reply: Reply) -> Reply:
        """The reply if it is no refusal; else a Problem with the same facts, for the SAE to read."""
        if reply.ok:
            return reply
        facts = {str(k): v for k, v in reply.details.items() if k not in ("status", "message")}
        raise Problem(reply.status if reply.status in (400, 409, 503) else 503, reply.message, **facts)
