"""What is emulated or simulated, as one value. PURE."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decisions.modes import MODES
from decisions.parameters import PARAMETERS, checked
from decisions.paths import fewest_links
from decisions.rekey import GO_ON, SESSION
from scenario.outages import Outage
from scenario.topology_description import Sae, Topology
from scenario.workload import Arrival


@dataclass(frozen=True, slots=True)
class Scenario:
    """A network, what is asked of it, and what fails.

    `parameters`: those of a network that are not the default. `on_key_failure`, `pace`: how SAEs use keys, see
    `decisions.rekey`. `warm_slots`: how long QCs have been making key material when time begins; None: a TTL. `seed`:
    of what QCs make. `lasts_s`: when all is over; None: when the last session has ended.
    """

    topology: Topology
    arrivals: Sequence[Arrival[Sae]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on_key_failure: str = GO_ON
    pace: str = SESSION
    outages: Sequence[Outage] = ()
    warm_slots: int | None = None
    seed: int = 0
    lasts_s: float | None = None

    def parameter(self, name: str) -> Any:
        """Its value here; Malformed if it cannot be."""
        return checked(dict(self.parameters)).get(name, PARAMETERS[name].default)


def carried_modes(topology: Topology) -> list[str]:
    """The modes in which any two applications of that network, at different nodes, can share keys."""
    nodes, graph = sorted({sae.node for sae in topology.saes}), topology.graph()
    most = max(mode.paths for mode in MODES.values())
    there = min((len(fewest_links(graph, a, b, most)) for a, b in itertools.combinations(nodes, 2)), default=most)
    return [name for name, mode in MODES.items() if mode.paths <= there]
