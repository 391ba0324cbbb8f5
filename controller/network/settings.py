"""What an operator changes while the network runs, as it is now and as it is kept.

Parameters and rates of QCs are state: whoever tells nodes does so until all have the latest. Whether a QC generates is
the nodes' to say, and others may change it there; so a wish of the operator's is kept for each end of the QC until that
has taken it over, and no longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from controller.network.graph import Graph
from controller.network.nodes import Link
from controller.network.store import Store
from decisions.parameters import (
    ADMISSION,
    FOR_NODES,
    IMPLICIT_IDLE,
    KEYS_AHEAD,
    MECHANISM,
    MODE,
    PATH_POLICY,
    TTL,
    checked,
)
from telemetry.journal import Journal


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each is stands in `decisions.parameters`. The nodes get those that are for them."""

    mode: str = MODE.default
    ttl_slots: int = TTL.default
    keys_ahead: int = KEYS_AHEAD.default
    implicit_idle_s: int = IMPLICIT_IDLE.default
    admission: str = ADMISSION.default
    path_policy: str = PATH_POLICY.default
    mechanism: str = MECHANISM.default

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        return asdict(self)

    def for_nodes(self) -> dict[str, Any]:
        """The document that agents get."""
        return {parameter.name: getattr(self, parameter.name) for parameter in FOR_NODES}


def changed(parameters: Parameters, document: Mapping[str, Any]) -> Parameters:
    """`parameters` with those in `document` in their place. Malformed names the wrong member."""
    return replace(parameters, **checked(document))


_PARAMETERS, _RATES, _GENERATION = "parameters", "rates", "generation"


class Settings:
    """`parameters`, and `rates` by QC: (low, high) in bytes a slot. `version` grows with each change. Thread-safe."""

    def __init__(self, graph: Graph, parameters: Parameters, journal: Journal, store: Store) -> None:
        self._graph = graph
        self._journal = journal
        self._store = store
        # What was changed while the network ran counts for more than what it was started with.
        self.parameters = changed(parameters, store.setting(_PARAMETERS))
        # At each start: a change that was kept may be missing there, if the controller was killed before it wrote it.
        journal.event("parameters", **self.parameters.to_json())
        self.rates: dict[str, tuple[int, int]] = {
            qc: (low, high) for qc, (low, high) in store.setting(_RATES).items()
        }  # fmt: skip
        self.version = 0
        self._lock = threading.Lock()
        # Node -> link's ID -> whether it is to generate.
        self._wishes: dict[str, dict[str, bool]] = store.setting(_GENERATION)
        self._on_change: Callable[[], None] = lambda: None

    def on_change(self, step: Callable[[], None]) -> None:
        """Call `step` when there is something to tell to nodes."""
        self._on_change = step

    def set_parameters(self, document: Mapping[str, Any]) -> Parameters:
        """Change what `document` names; Malformed. Running sessions go on under the new parameters."""
        with self._graph.lock:  # who chooses and admits does so by the same from first to last
            parameters = changed(self.parameters, document)
            # First, here and below: what the store does not take has not happened.
            self._store.put_setting(_PARAMETERS, parameters.to_json())
            self.parameters = parameters
            self.version += 1
        self._journal.event("parameters", **self.parameters.to_json())
        self._on_change()
        return self.parameters

    def set_rate(self, link: Link, low: int, high: int) -> None:
        """Have a QC make low to high bytes a slot."""
        with self._graph.lock:
            rates = self.rates | {link.qc: (low, high)}
            self._store.put_setting(_RATES, rates)
            self.rates = rates
            self.version += 1
        self._journal.event("rate", qc=link.qc, low=low, high=high)
        self._on_change()

    def set_generation(self, link: Link, *, enabled: bool) -> None:
        """Have a QC generate, or stop."""
        with self._lock:
            wished = {node: self._wishes.get(node, {}) | {link.link_id: enabled} for node in link.ends}
            self._keep_wishes(wished)
        with self._graph.lock:
            self.version += 1
        self._journal.event("generation", qc=link.qc, enabled=enabled)
        self._on_change()

    def wishes(self, node: str) -> dict[str, bool]:
        """The links of which that node has not taken over yet whether they are to generate."""
        with self._lock:
            return dict(self._wishes.get(node, {}))

    def taken_over(self, node: str, link_id: str, *, enabled: bool) -> None:
        """That node has the link generate, or not."""
        self._graph.set_enabled(node, link_id, enabled=enabled)  # at once; the agent's notification follows
        with self._lock:
            wishes = self._wishes.get(node, {})
            if wishes.get(link_id) is enabled:
                self._keep_wishes({node: {key: wish for key, wish in wishes.items() if key != link_id}})

    def _keep_wishes(self, of: Mapping[str, dict[str, bool]]) -> None:
        wishes = {**self._wishes, **of}
        self._store.put_setting(_GENERATION, wishes)
        self._wishes = wishes
