"""Which qkdn_id is whose: as it was declared, else a certificate's name has the one that it showed first, for good.

A node that shows another's, while that is away or after a restart of the controller, would have the other's links.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from controller.network.store import Store
from etsi import gs015
from ietf.yang import Refusal

_SETTING = "identities"


class Identities:
    """The qkdn_id of each node, kept in the store; `declared`: those known beforehand, by node. Thread-safe."""

    def __init__(self, store: Store, declared: Mapping[str, str]) -> None:
        self._store = store
        self._owners = {qkdn_id: name for name, qkdn_id in declared.items()}
        self._lock = threading.Lock()
        self._ids: dict[str, str] = store.setting(_SETTING)

    def check(self, name: str, qkdn_id: str) -> None:
        """Refusal unless the node of that name may show that ID; it is the node's from now on."""
        owner = self._owners.get(qkdn_id)
        if owner is not None:
            if owner != name:
                text = f"expected another ID than node {owner}'s"
                raise Refusal("invalid-value", text, path=f"/{gs015.NODE}/qkdn_id")
            return
        with self._lock:
            known = self._ids.get(name)
            if known is None and qkdn_id not in self._ids.values():
                self._ids[name] = qkdn_id
                self._store.put_setting(_SETTING, self._ids)
            elif known != qkdn_id:
                text = "expected an ID that no other node has had" if known is None else f"expected {known}, as before"
                raise Refusal("invalid-value", text, path=f"/{gs015.NODE}/qkdn_id")

    def forget(self, name: str) -> None:
        """The node is no longer part of the network."""
        with self._lock:
            if self._ids.pop(name, None) is not None:
                self._store.put_setting(_SETTING, self._ids)
