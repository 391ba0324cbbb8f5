"""All QCs of a node whose key material comes from devices that speak GS QKD 014."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from documents.checks import text
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import Problem
from node.config import NodeConfig
from node.devices.device_end import DeviceEnd
from node.devices.device_kme import DeviceClient
from node.devices.following_end import FollowingEnd
from node.devices.leading_end import LeadingEnd
from node.devices.offers import told
from node.limits import DEVICE_POLL_S
from node.material.key_store import KeyStore
from telemetry.journal import Journal

PATH = "/qkd/v1/devices/offers"


class Devices:
    """This node's ends of them, by QC. The node whose name comes first in the alphabet leads."""

    def __init__(self, config: NodeConfig, *, store: KeyStore, caller: Caller, journal: Journal) -> None:
        self._caller = caller
        self._nodes = config.nodes
        self._leading: dict[str, LeadingEnd] = {}
        self.ends: dict[str, DeviceEnd] = {}
        common: dict[str, Any] = {"store": store, "journal": journal, "slot_s": config.slot_s}
        for neighbour in config.qcs:
            if neighbour.device is None:
                continue
            device, every_s = DeviceClient(neighbour.device), neighbour.device.every_s
            if config.name < neighbour.peer:
                leading = LeadingEnd(neighbour, device, every_s=every_s, **common)
                self.ends[neighbour.qc] = self._leading[neighbour.qc] = leading
            else:
                ask = functools.partial(self._ask, neighbour.peer)
                self.ends[neighbour.qc] = FollowingEnd(neighbour, device, ask=ask, every_s=every_s, **common)

    def answer(self, peer: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the node at the other end of a QC is told when it asks for offers; Problem, Malformed."""
        end = self._leading.get(text(body.get("qc"), "qc"))
        if end is None or end.peer != peer:
            raise Problem(401, "this node offers no keys of that QC to the caller")
        return end.answer(told(body)).to_json()

    def status(self) -> dict[str, dict[str, Any]]:
        """By QC, for operators."""
        return {qc: end.status for qc, end in self.ends.items()}

    def why_silent(self, qc: str) -> str | None:
        """Why no block of that QC comes, if that is known."""
        return self.ends[qc].why_silent if qc in self.ends else None

    def _ask(self, peer: str, body: Mapping[str, Any]) -> Any:
        reply = self._caller.request(
            "POST", self._nodes[peer] + PATH, to=Identity(Role.NODE, peer), body=body, timeout_s=DEVICE_POLL_S
        )
        if not reply.ok:
            raise Unreachable(PATH, reply.message)
        return reply.body
