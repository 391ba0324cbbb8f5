"""Two real nodes at the ends of a QC, and a key session over it that a controller of the test's has opened."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from mtls.call import Reply
from mtls.identity import Identity, Role
from testbed.network.loopback import Stack

ALICE, BOB = (str(uuid.uuid4()) for _ in range(2))
QC = "a-b/1"
KEY_BYTES = 32


class TwoNodes(Stack):
    """Nodes a and b, a session of alice and bob."""

    def call(self, sae: str, node: str, path: str, body: Any) -> Reply:
        """A request of an SAE to its KME."""
        to = Identity(Role.NODE, node)
        return self.caller(Role.SAE, sae).request("POST", self.kme(node) + path, to=to, body=body)

    def exchange(self) -> str:
        """One key for both SAEs: "ok", or what the master was told."""
        given = self.keys()
        if not given.ok:
            return str(given.detail("cause"))
        assert self.fetch(given).body == given.body
        assert len(base64.b64decode(given.body["keys"][0]["key"])) == KEY_BYTES
        return "ok"

    def keys(self) -> Reply:
        """A key for the master."""
        return self.call(ALICE, "a", f"/api/v1/keys/{BOB}/enc_keys", {"size": 8 * KEY_BYTES})

    def fetch(self, given: Reply) -> Reply:
        """The same key for the slave."""
        ids = {"key_IDs": [{"key_ID": k["key_ID"]} for k in given.body["keys"]]}
        return self.call(BOB, "b", f"/api/v1/keys/{ALICE}/dec_keys", ids)

    def configure(self, method: str, node: str, at: str, body: Any) -> int:
        """What a controller tells a node: the status of the answer."""
        url = f"{self.agent(node)}{at}"
        to = Identity(Role.NODE, node)
        return self.caller(Role.CONTROLLER, "ctl").request(method, url, to=to, body=body).status

    def set(self, **parameters: object) -> None:
        """Change parameters of both nodes."""
        for node in "ab":
            at = "/restconf/data/qkd-testbed:node/parameters"
            assert self.configure("PATCH", node, at, {"qkd-testbed:parameters": parameters}) == 204

    def figure(self, node: str, name: str) -> int:
        """A figure of the QC in the node's status."""
        url, to = f"{self.agent(node)}/qkd/v1/status", Identity(Role.NODE, node)
        return int(self.caller(Role.OPERATOR, "operator").request("GET", url, to=to).body["qcs"][0][name])
