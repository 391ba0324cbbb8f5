"""What an operator changes while the network runs, parameters and rates of QCs, as it is now and as it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.graph import Graph
from controller.parameters import Parameters, changed
from controller.store import Store
from telemetry.journal import Journal

_PARAMETERS, _RATES = "parameters", "rates"


class Settings:
    """`parameters`, and `rates` by QC: (low, high) in bytes a slot. Thread-safe."""

    def __init__(self, graph: Graph, parameters: Parameters, journal: Journal, store: Store) -> None:
        self._graph = graph
        self._journal = journal
        self._store = store
        # What was changed while the network ran counts for more than what it was started with.
        self.parameters = changed(parameters, store.setting(_PARAMETERS))
        self.rates: dict[str, tuple[int, int]] = {
            qc: (low, high) for qc, (low, high) in store.setting(_RATES).items()
        }  # fmt: skip
        self._steps: list[Callable[[], None]] = []

    def on_change(self, step: Callable[[], None]) -> None:
        """Call `step` when parameters or rates have changed, after those that were named before."""
        self._steps.append(step)

    def set_parameters(self, document: Mapping[str, Any]) -> Parameters:
        """Change what `document` names; Malformed. Running sessions go on under the new parameters."""
        with self._graph.lock:  # who chooses and admits does so by the same from first to last
            self.parameters = changed(self.parameters, document)
            self._store.put_setting(_PARAMETERS, self.parameters.to_json())
        self._journal.event("parameters", **self.parameters.to_json())
        self._changed()
        return self.parameters

    def set_rate(self, qc: str, low: int, high: int) -> bool:
        """Have a QC make low to high bytes a slot; False if there is no such QC."""
        if qc not in self._graph.links():
            return False
        with self._graph.lock:
            self.rates = self.rates | {qc: (low, high)}
            self._store.put_setting(_RATES, self.rates)
        self._journal.event("rate", qc=qc, low=low, high=high)
        self._changed()
        return True

    def _changed(self) -> None:
        for step in self._steps:
            step()
